/* Rows of a packed weight: __init__.py has the formula, linear/linear.h the layout.
 *
 * A row is a column of its panel: one value in each of k lines, read in order. A few rows a step, so
 * the caller's thread does it alone.
 */
#include "../linear/linear.h"

#define TGI_ROWS "../embedding/rows.h"
#include "../native/each_set.h"

/* Rows `ids` into y [rows, k]; returns how many were read before an id that there is not. */
int64_t tgi_embedding(const Linear *weight, const int64_t *ids, int64_t rows, float *y) {
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0 || ids[i] >= weight->n) return i;
        ON_SET(read_row)(weight, ids[i], y + i * weight->k);
    }
    return rows;
}
