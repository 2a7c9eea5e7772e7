/* For each_set.h: what comes before and after the tiles of a product. */
#include "../best_token/peak.h"

/* `count` of sixteen numbers. */
TGI_INLINE void ISA(store_some)(float *y, v16 x, int64_t count) {
    if (count >= 16) v16_store(y, x);
    else if (count > 0) memcpy(y, &x, count * sizeof(float));
}

TGI_INLINE v16 ISA(load_some)(const float *y, int64_t count) {
    if (count >= 16) return v16_load(y);
    v16 x = v16_all(0.0f);
    if (count > 0) memcpy(&x, y, count * sizeof(float));
    return x;
}

/* One row of one panel, of which y has `columns` columns, from its sums to y. */
TGI_INLINE void ISA(finish_row)(const Product *product, int64_t panel, int64_t row,
                                int64_t columns, const float *sums, const int epilogue) {
    const float *bias = product->weight->bias;
    v16 low = v16_load(sums), high = v16_load(sums + 16);
    if (bias) {
        low += v16_load(bias + panel * PANEL);
        high += v16_load(bias + panel * PANEL + 16);
    }
    if (epilogue == GATE) {
        float *y = product->y + row * product->y_stride + panel * (PANEL / 2);
        ISA(store_some)(y, v16_silu(low) * high, columns / 2);
        return;
    }
    float *y = product->y + row * product->y_stride + panel * PANEL;
    if (epilogue == ADD) {
        low += ISA(load_some)(y, columns);
        high += ISA(load_some)(y + 16, columns - 16);
    }
    ISA(store_some)(y, low, columns);
    ISA(store_some)(y + 16, high, columns - 16);
    if (product->peaks) {
        float values[PANEL];
        v16_store(values, low);
        v16_store(values + 16, high);
        for (int64_t j = columns; j < PANEL; j++) values[j] = -INFINITY;
        product->peaks[row * ceil_div(product->weight->n, PANEL) + panel] = ISA(peak_of)(values);
    }
}

#define FINISH_ROWS(epilogue)                                                         \
    for (int64_t i = 0; i < rows; i++)                                                \
        for (int64_t p = 0; p < panels; p++) {                                        \
            const int64_t left = product->weight->n - (panel + p) * PANEL;            \
            ISA(finish_row)(product, panel + p, row + i, left < PANEL ? left : PANEL, \
                            sums + (i * panels + p) * PANEL, epilogue);               \
        }

/* The sums of `rows` rows from `row` and `panels` panels from `panel`. */
static void ISA(finish_block)(const Product *product, int64_t panel, int64_t panels, int64_t row,
                              int64_t rows, const float *sums) {
    if (product->epilogue == GATE) FINISH_ROWS(GATE)
    else if (product->epilogue == ADD) FINISH_ROWS(ADD)
    else FINISH_ROWS(STORE)
}

/* The sum of x over each part of k that has one scale, as tiles want it. A part's sum is sixteen
 * columns apart, then across: its bits depend on nothing else. */
static void ISA(sum_parts)(const Linear *weight, const float *x, int64_t first_k, int64_t size,
                           float *sums) {
    const Tile tile = {.k = size, .group_size = weight->group_size, .first_k = first_k};
    for (int64_t k = 0, end; k < size; k = end) {
        end = tgi_part_end(&tile, k);
        v16 sum = v16_all(0.0f);
        for (int64_t i = k; i < end; i += 16) sum += ISA(load_some)(x + i, end - i);
        *sums++ = v16_sum(sum);
    }
}

#undef FINISH_ROWS
