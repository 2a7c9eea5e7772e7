/* Rotary embedding in place: rotary/__init__.py has the formula.
 *
 * Every pair is a chain of its own. Memory bound.
 */
#include "rotary.h"

#define TGI_ROWS "../rotary/rows.h"
#include "../native/each_set.h"

void tgi_rotate_token(float *x, const float *cos, const float *signed_sin, int64_t heads,
                      int64_t half) {
    ON_SET(rotate_token)(x, cos, signed_sin, heads, half);
}

/* x: [tokens, heads, 2 * half], tokens token_stride apart; cos, signed_sin: [tokens, 2 * half]. */
void tgi_rotate(float *x, int64_t token_stride, const float *cos, const float *signed_sin,
                int64_t tokens, int64_t heads, int64_t half) {
    for (int64_t t = 0; t < tokens; t++)
        tgi_rotate_token(x + t * token_stride, cos + t * 2 * half, signed_sin + t * 2 * half, heads,
                         half);
}
