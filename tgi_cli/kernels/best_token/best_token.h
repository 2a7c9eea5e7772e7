/* The likeliest token of a row, panel by panel, so that a product can begin the search with each
 * panel that it finishes: the bits are those of a search afterwards. */
#ifndef TGI_BEST_TOKEN_H
#define TGI_BEST_TOKEN_H

#include "../native/tiles.h"

/* Of a panel's scores: the highest, and the sum of exp(score - highest). The sum is NaN where a
 * score isn't a number or is plus infinity, 0 where all are minus infinity. */
typedef struct {
    float highest, sum;
} Peak;

#endif
