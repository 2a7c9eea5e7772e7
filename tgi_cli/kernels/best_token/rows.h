/* For each_set.h: peaks of a row, and what they tell. */
#include "peak.h"

/* From a row's peaks to its best. */
static void ISA(choose)(const float *scores, const Peak *peaks, int64_t num_panels,
                        int64_t columns, int64_t *id, float *logprob) {
    float top = -INFINITY;
    for (int64_t p = 0; p < num_panels; p++)
        if (peaks[p].highest > top) top = peaks[p].highest;
    v16 total = v16_all(0.0f);
    for (int64_t p = 0; p < num_panels; p += 16) {
        float highest[16], sums[16];
        for (int64_t j = 0; j < 16; j++) {
            highest[j] = p + j < num_panels ? peaks[p + j].highest : -INFINITY;
            sums[j] = p + j < num_panels ? peaks[p + j].sum : 0.0f;
        }
        total += v16_load(sums) * v16_exp(v16_load(highest) - v16_all(top));
    }
    const float sum = v16_sum(total);
    *id = 0;
    *logprob = NAN;
    if (!(sum == sum && top > -INFINITY && top < INFINITY)) return;
    int64_t panel = 0;
    while (peaks[panel].highest != top) ++panel;
    *id = panel * PANEL;
    while (*id + 1 < columns && scores[*id] != top) ++*id;
    *logprob = -logf(sum);
}

static void ISA(find_peaks)(const float *scores, int64_t columns, Peak *peaks) {
    for (int64_t column = 0; column < columns; column += PANEL) {
        float last[PANEL];
        if (columns - column >= PANEL) {
            *peaks++ = ISA(peak_of)(scores + column);
            continue;
        }
        for (int64_t j = 0; j < PANEL; j++)
            last[j] = column + j < columns ? scores[column + j] : -INFINITY;
        *peaks++ = ISA(peak_of)(last);
    }
}
