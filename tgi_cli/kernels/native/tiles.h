/* Small matrix products whose sums stay in registers: what every product here is made of.
 *
 *     out[r][c] = [out[r][c] +] sum over k of x[r][k] * weight[k][c]
 *
 * Of plain numbers each element is one chain of fused multiply-adds, k by k. Of codes it is one such
 * chain for each part of k with one scale, over what the codes stand for, and then
 *
 *     out += scale * sum + offset * (sum over the part of x)
 *
 * which for a single row takes a third less work than to make each weight first. An element's bits
 * depend neither on the number of rows or columns nor on the instruction set (but for portable
 * vectors on processors whose compiler doesn't fuse, where they round twice). tile.h has the
 * arithmetic.
 */
#ifndef TGI_TILES_H
#define TGI_TILES_H

#include <stdint.h>

enum { PANEL = 32 }; /* columns that lie together: a panel is [k][PANEL] */

/* Types of weights. FP8 is e4m3, its NaNs left out. WIDENED are codes as floats: tgi_widen. */
typedef enum { F32, F16, BF16, WIDENED, INT8, FP8, INT4, TABLE4, NUM_KERNELS } Kernel;

typedef struct {
    const float *x; /* [rows, k], rows x_stride apart */
    int64_t x_stride, k;
    const char *w;       /* the first panel's numbers or codes */
    int64_t panel_bytes; /* from one panel's to the next one's */
    /* Of codes only: */
    const char *scales, *offsets; /* the first panel's, of the group of the first k; offsets or null */
    int64_t scale_size;           /* bytes of one: 2 or 4 */
    int64_t panel_scales;         /* bytes from one panel's scales to the next one's */
    int64_t group_size;
    int64_t first_k;     /* where the weight's groups count this tile's first k; of a multiple of 8 */
    const float *x_sums; /* with offsets: [rows, parts], rows x_sums_stride apart */
    int64_t x_sums_stride;
    const float *table; /* TABLE4: [16], what each code stands for */

    int adds;   /* to `out`; else it is overwritten */
    float *out; /* [rows][stride] */
    int64_t stride;
} Tile;

/* Where the part of a group ends that begins at `k` of the tile. */
static inline int64_t tgi_part_end(const Tile *tile, int64_t k) {
    const int64_t end = k + tile->group_size - (tile->first_k + k) % tile->group_size;
    return end < tile->k ? end : tile->k;
}

/* `panels` panels for `rows` rows, in as few tiles of equal height as can be. */
void tgi_tiles(Kernel kernel, const Tile *tile, int64_t rows, int64_t panels);

/* How many rows a tile may have, and how many panels side by side make one of so many rows. */
int tgi_tile_rows(Kernel kernel);
int tgi_tile_panels(Kernel kernel, int64_t rows);

/* What a panel's codes stand for, as WIDENED: out [k][PANEL], k filled up to a multiple of 8. */
void tgi_widen(Kernel kernel, const Tile *tile, float *out);

#endif
