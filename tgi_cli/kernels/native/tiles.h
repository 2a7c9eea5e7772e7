/* Small matrix products whose sums stay in registers: what every product here is made of.
 *
 *     out[r][c] = [out[r][c] +] sum over k of x[r][k] * weight[k][c]
 *
 * Of plain numbers each element is one chain of fused multiply-adds for each block of k, added up
 * in order. Of codes it is one such chain for each part of a block with one scale, over what the codes
 * stand for, and then
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

enum {
    PANEL = 32,    /* columns that lie together: a panel is [k][PANEL] */
    BLOCK_K = 256, /* k that make one sum: the sums of blocks are added up in order */
};

/* Types of weights. FP8 is e4m3, its NaNs left out. WIDENED are codes as floats: tgi_widen. */
typedef enum { F32, F16, BF16, WIDENED, INT8, FP8, INT4, TABLE4, NUM_KERNELS } Kernel;

typedef struct {
    const float *x; /* [rows, k], rows x_stride apart */
    int64_t x_stride, k;
    const char *w;       /* the first panel's numbers or codes */
    int64_t panel_bytes; /* from one panel's to the next one's */
    /* What is fetched: numbers that are `ahead` of those that are read, or by a distance that suits
     * most machines if it's 0; those of a tile's next panel `ahead_stride` further. Where they lie
     * after `end`, of the first panel's, they are `skip` further, or `last_skip` at the last. */
    int64_t ahead, ahead_stride;
    uintptr_t end;
    int64_t skip, last_skip;
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

/* Where the block ends that has `k` of the tile; tiles begin with a block. */
static inline int64_t tgi_block_end(const Tile *tile, int64_t k) {
    const int64_t end = (k / BLOCK_K + 1) * BLOCK_K;
    return end < tile->k ? end : tile->k;
}

/* Where the part of a group and of a block ends that begins at `k` of the tile. */
static inline int64_t tgi_part_end(const Tile *tile, int64_t k) {
    const int64_t end = k + tile->group_size - (tile->first_k + k) % tile->group_size;
    const int64_t block_end = tgi_block_end(tile, k);
    return end < block_end ? end : block_end;
}

/* `panels` panels for `rows` rows, in as few tiles of equal height as can be. */
void tgi_tiles(Kernel kernel, const Tile *tile, int64_t rows, int64_t panels);

/* How many rows a tile may have, and how many panels side by side make one of so many rows. */
int tgi_tile_rows(Kernel kernel);
int tgi_tile_panels(Kernel kernel, int64_t rows);

/* What a panel's codes stand for, as WIDENED: out [k][PANEL], k filled up to a multiple of 8. */
void tgi_widen(Kernel kernel, const Tile *tile, float *out);

#endif
