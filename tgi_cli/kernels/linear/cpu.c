/* Products with packed weights: linear.h has the layout, native/tile.h the arithmetic.
 *
 * A unit of work is one panel and up to BLOCK_ROWS rows. k runs in blocks of BLOCK_K, whose sums
 * are added up in order: a block of the panel and a tile's rows stay in the first-level cache, and
 * the error of a long sum grows with the number of blocks, not of k. Weights are widened in
 * registers on their way through; with many rows, codes with scales are widened once for all
 * tiles.
 */
#include "linear.h"

#include "../native/simd.h"

enum { BLOCK_ROWS = 128, BLOCK_K = 256 };

TGI_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
}

/* `rows` rows from `row`, `panels` panels from `panel`. */
static void run_block(const Product *product, int64_t panel, int64_t panels, int64_t row,
                      int64_t rows) {
    static _Thread_local float sums[BLOCK_ROWS * PANEL] __attribute__((aligned(64)));
    static _Thread_local float widened[BLOCK_K * PANEL] __attribute__((aligned(64)));
    static const int64_t code_bits[NUM_KERNELS] = {32, 16, 16, 8, 4, 8, 4, 8, 4};
    const Linear *weight = product->weight;
    const Kernel kernel = (Kernel)weight->kernel;
    const int is_scaled = weight->group_size > 0;
    const int64_t groups = is_scaled ? ceil_div(weight->k, weight->group_size) : 0;
    const int64_t scale_size = kernel == INT8_F16 || kernel == INT4_F16 ? 2 : 4;
    const int64_t bytes_per_k = PANEL * code_bits[kernel] / 8;
    Tile tile = {.x = product->x + row * product->x_stride,
                 .x_stride = product->x_stride,
                 .k = weight->k,
                 .panel_bytes = weight->k * bytes_per_k,
                 .panel_scales = groups * PANEL * scale_size,
                 .group_size = weight->group_size,
                 .table = weight->table,
                 .out = sums,
                 .stride = panels * PANEL};
    tile.w = (const char *)weight->data + panel * tile.panel_bytes;
    tile.scales = (const char *)weight->scales + panel * tile.panel_scales;
    tile.offsets = (const char *)weight->offsets + panel * tile.panel_scales;

    /* With few rows it is cheaper to widen in registers twice than to memory and back. */
    const int is_widened = is_scaled && rows > 2 * tgi_tile_rows(kernel);
    for (int64_t k = 0; k < weight->k; k += BLOCK_K) {
        const int64_t group = is_scaled ? k / weight->group_size * PANEL * scale_size : 0;
        Tile part = tile;
        part.k = weight->k - k < BLOCK_K ? weight->k - k : BLOCK_K;
        part.first_k = k;
        part.x += k;
        part.w += k * bytes_per_k;
        part.scales += group;
        part.offsets += group;
        part.adds = k > 0;
        if (is_widened) {
            tgi_widen(kernel, &part, widened);
            part.w = (const char *)widened;
        }
        tgi_tiles(is_widened ? F32 : kernel, &part, rows, panels);
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < panels; p++)
            finish_row(product, panel + p, row + i, sums + i * tile.stride + p * PANEL);
}

static void run_units(const void *argument, int64_t begin, int64_t end) {
    const Product *product = argument;
    const int64_t blocks = row_blocks(product);
    if (blocks == 1) {
        const int64_t at_once = tgi_tile_panels((Kernel)product->weight->kernel, product->rows);
        while (begin < end) {
            const int64_t panels = end - begin >= at_once ? at_once : 1;
            run_block(product, begin, panels, 0, product->rows);
            begin += panels;
        }
        return;
    }
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t row = unit % blocks * BLOCK_ROWS;
        const int64_t rows = product->rows - row < BLOCK_ROWS ? product->rows - row : BLOCK_ROWS;
        run_block(product, unit / blocks, 1, row, rows);
    }
}

TgiWork tgi_linear_work(const Product *product) {
    const int64_t units = ceil_div(product->weight->n, PANEL) * row_blocks(product);
    return (TgiWork){units, run_units, product};
}

static void run_product(void *product) { tgi_team_share(tgi_linear_work(product)); }

/* One product, by all threads. */
void tgi_linear(const Linear *weight, const float *x, int64_t x_stride, int64_t rows, float *y,
                int64_t y_stride, int64_t epilogue) {
    Product product = {weight, x, y, rows, x_stride, y_stride, epilogue};
    if (rows > 0) tgi_team_run(run_product, &product);
}
