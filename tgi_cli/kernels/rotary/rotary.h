/* Rotary embedding in place: rotary/__init__.py has the formula. */
#ifndef TGI_ROTARY_H
#define TGI_ROTARY_H

#include <stdint.h>

/* x: [heads, 2 * half] of one token; cos, signed_sin: [2 * half]. */
void tgi_rotate_token(float *x, const float *cos, const float *signed_sin, int64_t heads,
                      int64_t half);

#endif
