/* Products with packed weights: linear.h has the layout, native/tile.h the arithmetic.
 *
 * A unit of work is one panel, or a few side by side, and up to BLOCK_ROWS rows. k runs in blocks
 * of BLOCK_K, whose sums are added up in order: a block of the panel and a tile's rows stay in the
 * first-level cache, and the error of a long sum grows with the number of blocks, not of k. Weights
 * are widened in registers on their way through; with many rows, codes are widened once for all
 * tiles.
 */
#include "linear.h"

enum { BLOCK_ROWS = 128, GROUP_PANELS = 8, MAX_SUMS = 1 << 16 };

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#define TGI_ROWS "../linear/rows.h"
#include "../native/each_set.h"

/* More than two tiles of them. */
static int has_many_rows(const Product *product) {
    return product->rows > 2 * tgi_tile_rows((Kernel)product->weight->kernel);
}

static int64_t row_blocks(const Product *product) { return ceil_div(product->rows, BLOCK_ROWS); }

/* The sums of x over all parts, of the rows that this thread works on: made when they are first
 * wanted, since many panels want the same. */
typedef struct {
    int64_t row; /* the first one that they are of; -1: of none */
    int64_t stride;
    float sums[MAX_SUMS];
} RowSums;

static _Thread_local RowSums row_sums = {.row = -1};

/* In how many parts groups and blocks cut `size` of k. */
static int64_t count_parts(const Linear *weight, int64_t first_k, int64_t size) {
    const Tile tile = {.k = size, .group_size = weight->group_size, .first_k = first_k};
    int64_t count = 0;
    for (int64_t k = 0; k < size; k = tgi_part_end(&tile, k)) count++;
    return count;
}

/* Make them, if they fit; rows are `stride` apart. */
static int has_row_sums(const Product *product, int64_t row, int64_t rows) {
    const Linear *weight = product->weight;
    if (row_sums.row == row) return 1;
    const int64_t stride = count_parts(weight, 0, weight->k);
    if (stride * rows > MAX_SUMS) return 0;
    for (int64_t i = 0; i < rows; i++)
        ON_SET(sum_parts)(weight, product->x + (row + i) * product->x_stride, 0, weight->k,
                          row_sums.sums + i * stride);
    row_sums.row = row;
    row_sums.stride = stride;
    return 1;
}

/* `rows` rows from `row`, `panels` panels from `panel`. */
static void run_block(const Product *product, int64_t panel, int64_t panels, int64_t row,
                      int64_t rows) {
    static _Thread_local float sums[BLOCK_ROWS * PANEL * GROUP_PANELS] __attribute__((aligned(64)));
    static _Thread_local float widened[BLOCK_K * PANEL * GROUP_PANELS] __attribute__((aligned(64)));
    static _Thread_local float block_sums[BLOCK_ROWS * BLOCK_K];
    static const int64_t code_bits[NUM_KERNELS] = {32, 16, 16, 32, 8, 8, 4, 4};
    const Linear *weight = product->weight;
    const Kernel kernel = (Kernel)weight->kernel;
    const int64_t line = PANEL * code_bits[kernel]; /* bits of one k */
    const int64_t lines = code_bits[kernel] == 4 ? ceil_div(weight->k, 8) * 8 : weight->k;
    const int64_t groups = weight->scales ? ceil_div(weight->k, weight->group_size) : 0;
    const int64_t group_bytes = PANEL * weight->scale_size;
    Tile tile = {.x = product->x + row * product->x_stride,
                 .x_stride = product->x_stride,
                 .panel_bytes = lines * line / 8,
                 .ahead_stride = lines * line / 8,
                 .panel_scales = groups * group_bytes,
                 .scale_size = weight->scale_size,
                 .group_size = weight->group_size,
                 .table = weight->table,
                 .out = sums,
                 .stride = panels * PANEL};
    const int64_t panel_bytes = tile.panel_bytes;
    const char *w = (const char *)weight->data + panel * panel_bytes;
    const char *scales = (const char *)weight->scales + panel * tile.panel_scales;
    const char *offsets = (const char *)weight->offsets + panel * tile.panel_scales;
    const int has_sums = weight->offsets && has_row_sums(product, row, rows);
    int64_t part = 0;

    /* With few rows it is cheaper to widen in registers twice than to memory and back. */
    const int is_widened = weight->scales && has_many_rows(product);
    const int is_whole = !has_many_rows(product) && (!weight->offsets || has_sums);
    const int64_t at_once = is_whole ? weight->k : BLOCK_K;
    for (int64_t k = 0; k < weight->k; k += at_once) {
        tile.k = weight->k - k < at_once ? weight->k - k : at_once;
        tile.first_k = k;
        tile.w = w + k * line / 8;
        if (weight->scales) tile.scales = scales + k / weight->group_size * group_bytes;
        if (weight->offsets) {
            tile.offsets = offsets + k / weight->group_size * group_bytes;
            if (has_sums) {
                tile.x_sums = row_sums.sums + part;
                tile.x_sums_stride = row_sums.stride;
                part += count_parts(weight, k, tile.k);
            } else {
                tile.x_sums = block_sums;
                tile.x_sums_stride = BLOCK_K;
                for (int64_t i = 0; i < rows; i++)
                    ON_SET(sum_parts)(weight, tile.x + i * tile.x_stride, k, tile.k,
                              block_sums + i * BLOCK_K);
            }
        }
        if (is_widened) {
            for (int64_t p = 0; p < panels; p++) {
                tgi_widen(kernel, &tile, widened + p * BLOCK_K * PANEL);
                tile.w += panel_bytes;
            }
            tile.w = (const char *)widened;
            tile.panel_bytes = tile.ahead_stride = BLOCK_K * PANEL * sizeof(float);
        } else {
            /* A whole panel is followed by those after the tile's; a block by the next panel's, and
             * the last panel's by the first one's next. */
            const int is_last = k + tile.k == weight->k;
            const int64_t bytes = is_whole ? panel_bytes : tile.k * line / 8;
            tile.end = (uintptr_t)tile.w + bytes;
            tile.skip = panel_bytes - bytes;
            tile.last_skip = is_whole  ? (panels - 1) * panel_bytes
                             : is_last ? 0
                                       : (1 - panels) * panel_bytes;
        }
        tgi_tiles(is_widened ? WIDENED : kernel, &tile, rows, panels);
        tile.x += at_once;
        tile.adds = 1;
    }
    ON_SET(finish_block)(product, panel, panels, row, rows, sums);
}

/* How many panels make a unit: as many as a tile takes side by side, since with few rows a lone panel
 * has too few chains to keep the processor busy. */
static int64_t unit_panels(const Product *product) {
    return tgi_tile_panels((Kernel)product->weight->kernel, product->rows);
}

/* Units go through all panels for one block of rows, then for the next. With few rows a unit's
 * panels are read from end to end; with many, a group of panels goes through the same rows, which
 * so come from memory once for all of them. */
static void run_units(const void *argument, int64_t begin, int64_t end) {
    const Product *product = argument;
    const int64_t blocks = row_blocks(product), at_once = unit_panels(product);
    const int64_t panels = ceil_div(product->weight->n, PANEL), units = ceil_div(panels, at_once);
    const int is_many = has_many_rows(product);
    const int64_t group = is_many ? GROUP_PANELS : at_once;
    for (int64_t block = begin / units; block * units < end; block++) {
        const int64_t row = product->rows * block / blocks;
        const int64_t rows = product->rows * (block + 1) / blocks - row;
        int64_t panel = block * units < begin ? (begin - block * units) * at_once : 0;
        int64_t stop = (end - block * units) * at_once;
        if (stop > panels) stop = panels;
        while (panel < stop) {
            const int64_t left = stop - panel;
            const int64_t next = left >= group ? group : is_many ? left : left >= 2 ? 2 : 1;
            run_block(product, panel, next, row, rows);
            panel += next;
        }
    }
}

TgiWork tgi_linear_work(const Product *product) {
    const int64_t panels = ceil_div(product->weight->n, PANEL);
    const int64_t units = ceil_div(panels, unit_panels(product)) * row_blocks(product);
    row_sums.row = -1; /* those are another product's */
    return (TgiWork){units, run_units, product};
}

static void run_product(void *product) { tgi_team_share(tgi_linear_work(product)); }

/* One product, by all threads. */
void tgi_linear(const Linear *weight, const float *x, int64_t x_stride, int64_t rows, float *y,
                int64_t y_stride, int64_t epilogue) {
    Product product = {weight, x, y, rows, x_stride, y_stride, epilogue};
    if (rows > 0) tgi_team_run(run_product, &product);
}
