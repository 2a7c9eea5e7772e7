/* RMSNorm of rows: rms_norm/__init__.py has the formula. */
#ifndef TGI_RMS_NORM_H
#define TGI_RMS_NORM_H

#include "../native/team.h"

typedef struct {
    const float *x; /* [rows, hidden], rows x_stride apart */
    float *residual; /* [rows, hidden] or null: x is added to it first, and it is normalised */
    const float *weight; /* [hidden] */
    float *y;
    const int64_t *indices; /* row r of y comes from row indices[r]; null: from row r */
    int64_t rows, hidden, x_stride, y_stride;
    float eps;
} Norm;

/* A unit is a row. `norm` must outlive the work. */
TgiWork tgi_norm_work(const Norm *norm);

#endif
