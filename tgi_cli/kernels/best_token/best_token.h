/* The likeliest token of a row, panel by panel, so that a product can begin the search with each
 * panel that it finishes: the bits are those of a search afterwards. */
#ifndef TGI_BEST_TOKEN_H
#define TGI_BEST_TOKEN_H

#include <math.h>

#include "../native/simd.h"
#include "../native/tiles.h"

/* Of a panel's scores: the highest, and the sum of exp(score - highest). The sum is NaN where a
 * score isn't a number or is plus infinity, 0 where all are minus infinity. */
typedef struct {
    float highest, sum;
} Peak;

/* `scores` has PANEL numbers, minus infinity after the row's end. */
TGI_INLINE Peak tgi_peak(const float *scores) {
    v8 s[PANEL / 8], highest = v8_all(-INFINITY), sum = v8_all(0.0f);
    for (int i = 0; i < PANEL / 8; i++) {
        s[i] = v8_load(scores + 8 * i);
        highest = v8_select(s[i] > highest, s[i], highest);
    }
    const float top = v8_max(highest);
    const v8 shift = v8_all(top > -INFINITY ? top : 0.0f); /* infinity less itself is no number */
    for (int i = 0; i < PANEL / 8; i++) sum += v8_exp(s[i] - shift);
    return (Peak){top, v8_sum(sum)};
}

#endif
