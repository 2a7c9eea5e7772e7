/* Products with packed weights: what the other operations need to know of them.
 *
 *     y = epilogue(x @ weight.T + bias)
 *
 * A weight [n, k] is packed in panels of PANEL output features: [panel][k][PANEL], the last one
 * filled up with zeros, so that a product reads its weights once and in order. native/tiles.h has
 * their types.
 */
#ifndef TGI_LINEAR_H
#define TGI_LINEAR_H

#include <stdint.h>

#include "../best_token/best_token.h"
#include "../native/team.h"
#include "../native/tiles.h"

typedef enum {
    STORE, /* y = product */
    ADD,   /* y += product: onto a residual stream */
    GATE,  /* y = silu(gate) * up: a panel holds 16 gates, then their 16 ups; y has n / 2 columns */
} Epilogue;

typedef struct {
    int64_t kernel, n, k;
    int64_t group_size; /* of k: features that share a scale; 0 where there are none */
    int64_t scale_size; /* bytes of one: 2 (fp16) or 4 */
    /* [panels][k][PANEL]; INT4, TABLE4: [panels][ceil(k / 8)][PANEL] words of eight codes */
    const void *data;
    const void *scales;  /* [panels][groups][PANEL] */
    const void *offsets; /* the same, or null: weight = value of the code * scale + offset */
    const float *bias;   /* [panels * PANEL], in the order of the panels, or null */
    const float *table;  /* [16], TABLE4 only: the values of the codes */
} Linear;

typedef struct {
    const Linear *weight;
    const float *x; /* [rows, k], rows x_stride apart */
    float *y;
    int64_t rows, x_stride, y_stride;
    int64_t epilogue;
    Peak *peaks; /* [rows][panels] of y, or null: where a search for its best goes on */
} Product;

/* Any thread may run any unit of it: a unit's bits are its own. `product` must outlive the work. */
TgiWork tgi_linear_work(const Product *product);

#endif
