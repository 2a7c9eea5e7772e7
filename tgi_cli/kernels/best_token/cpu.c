/* The likeliest token of each row: best_token/__init__.py has the formula.
 *
 * Each panel has a highest score and a sum relative to it, which are put together from the first
 * panel to the last, eight panels apart, then across. Panels are the product's, so that a product
 * with a head leaves them behind.
 */
#include "best_token.h"

#include "../linear/linear.h"
#include "../native/team.h"

typedef struct {
    Product product; /* without a weight where the scores are there already */
    int64_t columns, num_panels;
    int64_t *ids;
    float *logprobs;
} Search;

/* From a row's peaks to its best. */
TGI_DISPATCH static void choose(const float *scores, const Peak *peaks, int64_t num_panels,
                                int64_t columns, int64_t *id, float *logprob) {
    float top = -INFINITY;
    for (int64_t p = 0; p < num_panels; p++)
        if (peaks[p].highest > top) top = peaks[p].highest;
    v8 total = v8_all(0.0f);
    for (int64_t p = 0; p < num_panels; p += 8) {
        float highest[8], sums[8];
        for (int64_t j = 0; j < 8; j++) {
            highest[j] = p + j < num_panels ? peaks[p + j].highest : -INFINITY;
            sums[j] = p + j < num_panels ? peaks[p + j].sum : 0.0f;
        }
        total += v8_load(sums) * v8_exp(v8_load(highest) - v8_all(top));
    }
    const float sum = v8_sum(total);
    *id = 0;
    *logprob = NAN;
    if (!(sum == sum && top > -INFINITY && top < INFINITY)) return;
    int64_t panel = 0;
    while (peaks[panel].highest != top) ++panel;
    *id = panel * PANEL;
    while (*id + 1 < columns && scores[*id] != top) ++*id;
    *logprob = -logf(sum);
}

static void choose_rows(const void *argument, int64_t begin, int64_t end) {
    const Search *search = argument;
    const Product *product = &search->product;
    for (int64_t r = begin; r < end; r++)
        choose(product->y + r * product->y_stride, product->peaks + r * search->num_panels,
               search->num_panels, search->columns, search->ids + r, search->logprobs + r);
}

TGI_DISPATCH static void find_peaks(const float *scores, int64_t columns, Peak *peaks) {
    for (int64_t column = 0; column < columns; column += PANEL) {
        float last[PANEL];
        if (columns - column >= PANEL) {
            *peaks++ = tgi_peak(scores + column);
            continue;
        }
        for (int64_t j = 0; j < PANEL; j++)
            last[j] = column + j < columns ? scores[column + j] : -INFINITY;
        *peaks++ = tgi_peak(last);
    }
}

static void search_rows(const void *argument, int64_t begin, int64_t end) {
    const Search *search = argument;
    const Product *product = &search->product;
    for (int64_t r = begin; r < end; r++)
        find_peaks(product->y + r * product->y_stride, search->columns,
                   product->peaks + r * search->num_panels);
    choose_rows(argument, begin, end);
}

static void run_search(void *argument) {
    tgi_team_share((TgiWork){((Search *)argument)->product.rows, search_rows, argument});
}

static void run_product_and_search(void *argument) {
    const Search *search = argument;
    tgi_team_share_both(tgi_linear_work(&search->product),
                        (TgiWork){search->product.rows, choose_rows, argument});
}

/* `peaks`: room for rows * ceil(columns / PANEL). */
void tgi_best_token(float *scores, int64_t stride, int64_t rows, int64_t columns, Peak *peaks,
                    int64_t *ids, float *logprobs) {
    Search search = {{.y = scores, .rows = rows, .y_stride = stride, .peaks = peaks},
                     columns, (columns + PANEL - 1) / PANEL, ids, logprobs};
    if (rows == 1) search_rows(&search, 0, 1);
    else tgi_team_run(run_search, &search);
}

/* The scores are a product, written to y. */
void tgi_linear_best(const Linear *weight, const float *x, int64_t x_stride, int64_t rows, float *y,
                     int64_t y_stride, Peak *peaks, int64_t *ids, float *logprobs) {
    Search search = {{weight, x, y, rows, x_stride, y_stride, STORE, peaks},
                     weight->n, (weight->n + PANEL - 1) / PANEL, ids, logprobs};
    if (rows > 0) tgi_team_run(run_product_and_search, &search);
}
