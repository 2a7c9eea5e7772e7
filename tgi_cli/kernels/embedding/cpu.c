/* Rows of a packed weight: __init__.py has the formula, linear/linear.h the layout.
 *
 * A row is a column of its panel: one value in each of k lines, read in order. A few rows a step, so
 * the caller's thread does it alone.
 */
#include <math.h>

#include "../linear/linear.h"
#include "../native/simd.h"

TGI_INLINE float half_to_float(const void *p) {
#if defined(__FLT16_MAX__)
    _Float16 x;
    memcpy(&x, p, sizeof x);
    return x;
#else
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    const uint32_t magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
    const uint32_t is_huge = magnitude >= 0x7c00u << 13; /* infinity and NaN */
    float x;
    memcpy(&x, &magnitude, sizeof x);
    x *= 0x1p112f; /* the exponent's bias is 112 less; subnormals come out normal */
    uint32_t whole;
    memcpy(&whole, &x, sizeof whole);
    whole = (is_huge ? magnitude | 0x7f800000u : whole) | sign;
    memcpy(&x, &whole, sizeof x);
    return x;
#endif
}

TGI_INLINE float bfloat_to_float(const void *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    const uint32_t whole = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &whole, sizeof x);
    return x;
}

/* As native/tile.h reads it: an fp32 number of the same bits. */
TGI_INLINE float fp8_to_float(uint8_t code) {
    const uint32_t bits = (uint32_t)(code & 0x7f) << 20 | (uint32_t)(code & 0x80) << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

TGI_INLINE float scale_at(const void *scales, int64_t i, int is_half) {
    return is_half ? half_to_float((const uint16_t *)scales + i) : ((const float *)scales)[i];
}

/* One row of codes: weight = value * scale (+ offset), rounded once. */
TGI_DISPATCH static void read_codes(const Linear *weight, int64_t panel, int64_t column, float *y) {
    const Kernel kernel = (Kernel)weight->kernel;
    const int64_t groups = (weight->k + weight->group_size - 1) / weight->group_size;
    const int is_half = kernel == INT8_F16 || kernel == INT4_F16;
    const int has_pairs = weight->offsets || weight->table;
    const uint8_t *codes = (const uint8_t *)weight->data +
                           panel * weight->k * (has_pairs ? PANEL / 2 : PANEL);
    for (int64_t k = 0; k < weight->k; k++) {
        const int64_t group = (panel * groups + k / weight->group_size) * PANEL + column;
        const float scale = scale_at(weight->scales, group, is_half);
        if (has_pairs) {
            const uint8_t pair = codes[k * (PANEL / 2) + column % (PANEL / 2)];
            const uint8_t code = column < PANEL / 2 ? pair & 15 : pair >> 4;
            y[k] = weight->table ? weight->table[code] * scale
                                 : fmaf(code, scale, scale_at(weight->offsets, group, is_half));
        } else {
            const uint8_t code = codes[k * PANEL + column];
            y[k] = (kernel == FP8_F32 ? fp8_to_float(code) : (int8_t)code) * scale;
        }
    }
}

TGI_DISPATCH static void read_row(const Linear *weight, int64_t id, float *y) {
    const int64_t panel = id / PANEL, column = id % PANEL;
    const int64_t first = panel * weight->k * PANEL + column;
    switch ((Kernel)weight->kernel) {
        case F32:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = ((const float *)weight->data)[first + k * PANEL];
            break;
        case F16:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = half_to_float((const uint16_t *)weight->data + first + k * PANEL);
            break;
        case BF16:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = bfloat_to_float((const uint16_t *)weight->data + first + k * PANEL);
            break;
        default: read_codes(weight, panel, column, y);
    }
}

/* Rows `ids` into y [rows, k]; returns how many were read before an id that there is not. */
int64_t tgi_embedding(const Linear *weight, const int64_t *ids, int64_t rows, float *y) {
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0 || ids[i] >= weight->n) return i;
        read_row(weight, ids[i], y + i * weight->k);
    }
    return rows;
}
