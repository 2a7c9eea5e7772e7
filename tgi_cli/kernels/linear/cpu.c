/* Products with packed weights: linear.h has the layout, native/tile.h the arithmetic.
 *
 * A unit of work is one panel, or a few side by side, and up to BLOCK_ROWS rows. k runs in blocks
 * of BLOCK_K, whose sums are added up in order: a block of the panel and a tile's rows stay in the
 * first-level cache, and the error of a long sum grows with the number of blocks, not of k. Weights
 * are widened in registers on their way through; with many rows, codes are widened once for all
 * tiles.
 */
#include "linear.h"

#include "../native/simd.h"

enum { BLOCK_ROWS = 128, BLOCK_K = 256, MAX_SUMS = 1 << 16 };

TGI_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* How many k the block from `k` has. */
static int64_t block_size(const Linear *weight, int64_t k) {
    return weight->k - k < BLOCK_K ? weight->k - k : BLOCK_K;
}

static int64_t row_blocks(const Product *product) { return ceil_div(product->rows, BLOCK_ROWS); }

/* One row of one panel from its sums to y. */
TGI_DISPATCH static void finish_row(const Product *product, int64_t panel, int64_t row,
                                    const float *sums) {
    const Linear *weight = product->weight;
    const int64_t column = panel * PANEL;
    const int64_t columns = weight->n - column < PANEL ? weight->n - column : PANEL;
    float values[PANEL];
    memcpy(values, sums, sizeof values);
    if (weight->bias)
        for (int64_t j = 0; j < PANEL; j++) values[j] += weight->bias[column + j];
    if (product->epilogue == GATE) {
        float *y = product->y + row * product->y_stride + column / 2;
        for (int64_t j = 0; j < columns / 2; j += 8) {
            float gated[8];
            v8_store(gated, v8_silu(v8_load(values + j)) * v8_load(values + 16 + j));
            memcpy(y + j, gated, (columns / 2 - j < 8 ? columns / 2 - j : 8) * sizeof(float));
        }
        return;
    }
    float *y = product->y + row * product->y_stride + column;
    if (product->epilogue == ADD)
        for (int64_t j = 0; j < columns; j++) y[j] += values[j];
    else
        memcpy(y, values, columns * sizeof(float));
    if (product->peaks) {
        for (int64_t j = columns; j < PANEL; j++) values[j] = -INFINITY;
        product->peaks[row * ceil_div(weight->n, PANEL) + panel] = tgi_peak(values);
    }
}

/* The sum of x over each part of k that has one scale, as tiles want it; returns how many there
 * are. A part's sum is eight columns apart, then across: its bits depend on nothing else. */
TGI_DISPATCH static int64_t sum_parts(const Linear *weight, const float *x, int64_t first_k,
                                      int64_t size, float *sums) {
    const Tile tile = {.k = size, .group_size = weight->group_size, .first_k = first_k};
    int64_t num_parts = 0;
    for (int64_t k = 0, end; k < size; k = end) {
        end = tgi_part_end(&tile, k);
        v8 sum = v8_all(0.0f);
        int64_t i = k;
        for (; i + 8 <= end; i += 8) sum += v8_load(x + i);
        if (i < end) {
            v8 rest = v8_all(0.0f);
            memcpy(&rest, x + i, (end - i) * sizeof(float));
            sum += rest;
        }
        sums[num_parts++] = v8_sum(sum);
    }
    return num_parts;
}

/* The sums of x over all parts, of the rows that this thread works on: made when they are first
 * wanted, since many panels want the same. */
typedef struct {
    int64_t row; /* the first one that they are of; -1: of none */
    int64_t stride;
    float sums[MAX_SUMS];
} RowSums;

static _Thread_local RowSums row_sums = {.row = -1};

/* In how many parts the groups cut `size` of k. */
static int64_t parts_of_block(const Linear *weight, int64_t k, int64_t size) {
    return (k + size - 1) / weight->group_size - k / weight->group_size + 1;
}

static int64_t count_parts(const Linear *weight) {
    int64_t count = 0;
    for (int64_t k = 0; k < weight->k; k += BLOCK_K)
        count += parts_of_block(weight, k, block_size(weight, k));
    return count;
}

/* Make them, if they fit; rows are `stride` apart. */
static int has_row_sums(const Product *product, int64_t row, int64_t rows) {
    const Linear *weight = product->weight;
    if (row_sums.row == row) return 1;
    const int64_t stride = count_parts(weight);
    if (stride * rows > MAX_SUMS) return 0;
    for (int64_t i = 0; i < rows; i++) {
        float *sums = row_sums.sums + i * stride;
        const float *x = product->x + (row + i) * product->x_stride;
        for (int64_t k = 0; k < weight->k; k += BLOCK_K)
            sums += sum_parts(weight, x + k, k, block_size(weight, k), sums);
    }
    row_sums.row = row;
    row_sums.stride = stride;
    return 1;
}

/* `rows` rows from `row`, `panels` panels from `panel`. */
static void run_block(const Product *product, int64_t panel, int64_t panels, int64_t row,
                      int64_t rows) {
    static _Thread_local float sums[BLOCK_ROWS * PANEL] __attribute__((aligned(64)));
    static _Thread_local float widened[BLOCK_K * PANEL] __attribute__((aligned(64)));
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
                 .panel_scales = groups * group_bytes,
                 .scale_size = weight->scale_size,
                 .group_size = weight->group_size,
                 .table = weight->table,
                 .out = sums,
                 .stride = panels * PANEL};
    const char *w = (const char *)weight->data + panel * tile.panel_bytes;
    const char *scales = (const char *)weight->scales + panel * tile.panel_scales;
    const char *offsets = (const char *)weight->offsets + panel * tile.panel_scales;
    const int has_sums = weight->offsets && has_row_sums(product, row, rows);
    int64_t part = 0;

    /* With few rows it is cheaper to widen in registers twice than to memory and back. */
    const int is_widened = weight->scales && rows > 2 * tgi_tile_rows(kernel);
    for (int64_t k = 0; k < weight->k; k += BLOCK_K) {
        tile.k = block_size(weight, k);
        tile.first_k = k;
        tile.w = w + k * line / 8;
        if (weight->scales) tile.scales = scales + k / weight->group_size * group_bytes;
        if (weight->offsets) {
            tile.offsets = offsets + k / weight->group_size * group_bytes;
            if (has_sums) {
                tile.x_sums = row_sums.sums + part;
                tile.x_sums_stride = row_sums.stride;
                part += parts_of_block(weight, k, tile.k);
            } else {
                tile.x_sums = block_sums;
                tile.x_sums_stride = BLOCK_K;
                for (int64_t i = 0; i < rows; i++)
                    sum_parts(weight, tile.x + i * tile.x_stride, k, tile.k,
                              block_sums + i * BLOCK_K);
            }
        }
        if (is_widened) {
            tgi_widen(kernel, &tile, widened);
            tile.w = (const char *)widened;
        }
        tgi_tiles(is_widened ? WIDENED : kernel, &tile, rows, panels);
        tile.x += BLOCK_K;
        tile.adds = 1;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < panels; p++)
            finish_row(product, panel + p, row + i, sums + i * tile.stride + p * PANEL);
}

/* How many panels make a unit: with few rows as many as a tile takes side by side, since a lone panel
 * has too few chains to keep the processor busy. */
static int64_t unit_panels(const Product *product) {
    if (row_blocks(product) > 1) return 1;
    return tgi_tile_panels((Kernel)product->weight->kernel, product->rows);
}

static void run_units(const void *argument, int64_t begin, int64_t end) {
    const Product *product = argument;
    const int64_t blocks = row_blocks(product);
    if (blocks == 1) {
        const int64_t at_once = unit_panels(product);
        int64_t panel = begin * at_once, stop = ceil_div(product->weight->n, PANEL);
        if (end * at_once < stop) stop = end * at_once;
        while (panel < stop) {
            const int64_t left = stop - panel;
            const int64_t panels = left >= at_once ? at_once : left >= 2 ? 2 : 1;
            run_block(product, panel, panels, 0, product->rows);
            panel += panels;
        }
        return;
    }
    /* Plain panels stay in the cache from one block of rows to the next. Codes are small, and the
     * sums of x that offsets need are better kept. */
    const int64_t panels = ceil_div(product->weight->n, PANEL);
    const int is_by_row = product->weight->offsets != 0;
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t block = is_by_row ? unit / panels : unit % blocks;
        const int64_t row = block * BLOCK_ROWS;
        const int64_t rows = product->rows - row < BLOCK_ROWS ? product->rows - row : BLOCK_ROWS;
        run_block(product, is_by_row ? unit % panels : unit / blocks, 1, row, rows);
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
