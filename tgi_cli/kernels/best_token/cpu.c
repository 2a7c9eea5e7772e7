/* The likeliest token of each row: best_token/__init__.py has the formula.
 *
 * Each panel has a highest score and a sum relative to it, which are put together from the first
 * panel to the last, sixteen panels apart, then across. Panels are the product's, so that a product
 * with a head leaves them behind.
 */
#include "best_token.h"

#include "../linear/linear.h"
#include "../native/team.h"

#define TGI_ROWS "../best_token/rows.h"
#include "../native/each_set.h"

typedef struct {
    Product product; /* without a weight where the scores are there already */
    int64_t columns, num_panels;
    int64_t *ids;
    float *logprobs;
} Search;

static void choose_rows(const void *argument, int64_t begin, int64_t end) {
    const Search *search = argument;
    const Product *product = &search->product;
    for (int64_t r = begin; r < end; r++)
        ON_SET(choose)(product->y + r * product->y_stride, product->peaks + r * search->num_panels,
                       search->num_panels, search->columns, search->ids + r, search->logprobs + r);
}

static void search_rows(const void *argument, int64_t begin, int64_t end) {
    const Search *search = argument;
    const Product *product = &search->product;
    for (int64_t r = begin; r < end; r++)
        ON_SET(find_peaks)(product->y + r * product->y_stride, search->columns,
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
