/* RMSNorm, with or without adding to a residual stream first: rms_norm/__init__.py has the
 * formula.
 *
 * One thread takes whole rows. The squares of a row are added sixteen apart, then across, so a
 * row's bits depend on the row alone. Memory bound: reads and writes each row once.
 */
#include "rms_norm.h"

#define TGI_ROWS "../rms_norm/rows.h"
#include "../native/each_set.h"

static void norm_rows(const void *argument, int64_t begin, int64_t end) {
    const Norm *norm = argument;
    for (int64_t r = begin; r < end; r++) {
        const int64_t from = norm->indices ? norm->indices[r] : r;
        ON_SET(norm_row)(norm->x + from * norm->x_stride,
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
