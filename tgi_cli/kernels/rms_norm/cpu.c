/* RMSNorm, with or without adding to a residual stream first: rms_norm/__init__.py has the
 * formula.
 *
 * One thread takes whole rows. The squares of a row are added eight apart, then across, so a row's
 * bits depend on the row alone. Memory bound: reads and writes each row once.
 */
#include "rms_norm.h"

#include "../native/simd.h"

TGI_DISPATCH static void norm_row(const float *x, float *residual, const float *weight, float *y,
                                  int64_t hidden, float eps) {
    v8 sums = v8_all(0.0f);
    float tail = 0.0f;
    int64_t i = 0;
    const float *h = x;
    if (residual) {
        for (; i + 8 <= hidden; i += 8)
            v8_store(residual + i, v8_load(residual + i) + v8_load(x + i));
        for (; i < hidden; i++) residual[i] += x[i];
        h = residual;
    }
    for (i = 0; i + 8 <= hidden; i += 8) {
        v8 v = v8_load(h + i);
        sums += v * v;
    }
    for (; i < hidden; i++) tail += h[i] * h[i];
    float mean = (v8_sum(sums) + tail) / (float)hidden;
    float scale = 1.0f / __builtin_sqrtf(mean + eps);
    for (i = 0; i + 8 <= hidden; i += 8)
        v8_store(y + i, v8_load(h + i) * v8_all(scale) * v8_load(weight + i));
    for (; i < hidden; i++) y[i] = h[i] * scale * weight[i];
}

static void norm_rows(const void *argument, int64_t begin, int64_t end) {
    const Norm *norm = argument;
    for (int64_t r = begin; r < end; r++) {
        const int64_t from = norm->indices ? norm->indices[r] : r;
        norm_row(norm->x + from * norm->x_stride,
                 norm->residual ? norm->residual + from * norm->hidden : 0, norm->weight,
                 norm->y + r * norm->y_stride, norm->hidden, norm->eps);
    }
}

TgiWork tgi_norm_work(const Norm *norm) { return (TgiWork){norm->rows, norm_rows, norm}; }

static void run_norm(void *norm) { tgi_team_share(tgi_norm_work(norm)); }

/* x, residual (or null), y: [rows, hidden], rows x_stride, hidden and hidden apart. */
void tgi_rms_norm(const float *x, int64_t x_stride, float *residual, const float *weight, float *y,
                  int64_t rows, int64_t hidden, float eps) {
    Norm norm = {x, residual, weight, y, 0, rows, hidden, x_stride, hidden, eps};
    if (rows * hidden > 65536) tgi_team_run(run_norm, &norm);
    else norm_rows(&norm, 0, rows);
}
