/* Small matrix products whose sums stay in registers: what every product here is made of.
 *
 *     out[r][c] = [out[r][c] +] sum over k of x[r][k] * weight[k][c]
 *
 * Each element is one chain of fused multiply-adds, k by k: its bits depend neither on the number
 * of rows or columns nor on the instruction set (but for portable vectors on processors whose
 * compiler doesn't fuse, where they round twice). tile.h has the arithmetic.
 */
#ifndef TGI_TILES_H
#define TGI_TILES_H

#include <stdint.h>

enum { PANEL = 32 }; /* columns that lie together: a panel is [k][PANEL] */

/* Types of weights; of codes with that of their scales. FP8 is e4m3, its NaNs left out; its scales
 * are 2**120 times what they are worth, because codes are read as fp32 numbers of the same bits. */
typedef enum {
    F32, F16, BF16, INT8_F32, INT4_F32, INT8_F16, INT4_F16, FP8_F32, TABLE4_F32, NUM_KERNELS
} Kernel;

typedef struct {
    const float *x; /* [rows, k], rows x_stride apart */
    int64_t x_stride, k;
    const char *w;                /* the first panel's codes */
    int64_t panel_bytes;          /* from one panel's codes to the next one's */
    const char *scales, *offsets; /* the first panel's, of the group of the first k */
    const float *table;           /* TABLE4: [16], what each code stands for */
    int64_t panel_scales;         /* bytes from one panel's scales to the next one's */
    int64_t group_size;
    int64_t first_k; /* where the weight's groups count this tile's first k */
    int adds;        /* to `out`; else it is overwritten */
    float *out;      /* [rows][stride] */
    int64_t stride;
} Tile;

/* `panels` panels for `rows` rows, in as few tiles of equal height as can be. */
void tgi_tiles(Kernel kernel, const Tile *tile, int64_t rows, int64_t panels);

/* How many rows a tile may have, and how many panels side by side make one of so many rows. */
int tgi_tile_rows(Kernel kernel);
int tgi_tile_panels(Kernel kernel, int64_t rows);

/* A panel's codes as floats [k][PANEL]. Not for plain weights. */
void tgi_widen(Kernel kernel, const Tile *tile, float *out);

#endif
