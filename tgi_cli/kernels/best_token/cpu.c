/* The likeliest token of each row: best_token/__init__.py has the formula.
 *
 * A unit is a row. Maxima and sums run eight columns apart, then across, in one order for every
 * row.
 */
#include <math.h>

#include "../native/simd.h"
#include "../native/team.h"

typedef struct {
    const float *logits; /* [rows, columns], rows stride apart */
    int64_t stride, rows, columns;
    int64_t *ids;
    float *logprobs;
} Scores;

/* Columns from `i`, those past the end as minus infinity. */
TGI_INLINE v8 columns_from(const float *x, int64_t i, int64_t columns) {
    if (i + 8 <= columns) return v8_load(x + i);
    v8 last = v8_all(-INFINITY);
    memcpy(&last, x + i, (columns - i) * sizeof(float));
    return last;
}

TGI_DISPATCH static void find_best(const float *x, int64_t columns, int64_t *id, float *logprob) {
    v8 highest = v8_all(-INFINITY);
    v8i is_number = highest == highest;
    for (int64_t i = 0; i < columns; i += 8) {
        const v8 s = columns_from(x, i, columns);
        is_number &= s == s;
        highest = v8_select(s > highest, s, highest);
    }
    const float top = v8_max(highest);
    int is_finite = top < INFINITY && top > -INFINITY;
    for (int j = 0; j < 8; j++) is_finite &= is_number[j] != 0;
    *id = 0;
    *logprob = NAN;
    if (!is_finite) return;
    while (x[*id] != top) ++*id;
    v8 sums = v8_all(0.0f);
    for (int64_t i = 0; i < columns; i += 8)
        sums += v8_exp(columns_from(x, i, columns) - v8_all(top));
    *logprob = -logf(v8_sum(sums));
}

static void find_rows(const void *argument, int64_t begin, int64_t end) {
    const Scores *scores = argument;
    for (int64_t r = begin; r < end; r++)
        find_best(scores->logits + r * scores->stride, scores->columns, scores->ids + r,
                  scores->logprobs + r);
}

static void run_scores(void *scores) {
    tgi_team_share((TgiWork){((Scores *)scores)->rows, find_rows, scores});
}

void tgi_best_token(const float *logits, int64_t stride, int64_t rows, int64_t columns,
                    int64_t *ids, float *logprobs) {
    Scores scores = {logits, stride, rows, columns, ids, logprobs};
    if (rows == 1) find_rows(&scores, 0, 1);
    else tgi_team_run(run_scores, &scores);
}
