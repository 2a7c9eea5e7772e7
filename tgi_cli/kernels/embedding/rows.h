/* For each_set.h: one row of a weight, a value from each of its lines. */
TGI_INLINE float ISA(half_to_float)(const void *p) {
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

TGI_INLINE float ISA(bfloat_to_float)(const void *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    const uint32_t whole = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &whole, sizeof x);
    return x;
}

TGI_INLINE float ISA(scale_at)(const Linear *weight, const void *scales, int64_t i) {
    return weight->scale_size == 2 ? ISA(half_to_float)((const uint16_t *)scales + i)
                                   : ((const float *)scales)[i];
}

TGI_INLINE float ISA(fp8_to_float)(uint8_t code) {
    const uint32_t bits = (code & 0x7fu) << 20 | (code & 0x80u) << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x * 0x1p120f; /* the exponent's bias is 120 less; subnormals come out normal */
}

/* What the code at `k` of a panel's column stands for. */
TGI_INLINE float ISA(value_at)(const Linear *weight, int64_t panel, int64_t column, int64_t k) {
    const int64_t byte = (panel * weight->k + k) * PANEL + column;
    const int64_t word = (panel * ((weight->k + 7) / 8) + k / 8) * PANEL + column;
    if (weight->kernel == INT8) return ((const int8_t *)weight->data)[byte];
    if (weight->kernel == FP8) return ISA(fp8_to_float)(((const uint8_t *)weight->data)[byte]);
    const uint32_t code = ((const uint32_t *)weight->data)[word] >> k % 8 * 4 & 15;
    return weight->kernel == TABLE4 ? weight->table[code] : code;
}

/* One row of codes: weight = value * scale (+ offset), rounded once. */
static void ISA(read_codes)(const Linear *weight, int64_t panel, int64_t column, float *y) {
    const int64_t groups = (weight->k + weight->group_size - 1) / weight->group_size;
    for (int64_t k = 0; k < weight->k; k++) {
        const int64_t group = (panel * groups + k / weight->group_size) * PANEL + column;
        const float offset = weight->offsets ? ISA(scale_at)(weight, weight->offsets, group) : 0.0f;
        const float scale = ISA(scale_at)(weight, weight->scales, group);
        y[k] = fmaf(ISA(value_at)(weight, panel, column, k), scale, offset);
    }
}

static void ISA(read_row)(const Linear *weight, int64_t id, float *y) {
    const int64_t panel = id / PANEL, column = id % PANEL;
    const int64_t first = panel * weight->k * PANEL + column;
    switch ((Kernel)weight->kernel) {
        case F32:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = ((const float *)weight->data)[first + k * PANEL];
            break;
        case F16:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = ISA(half_to_float)((const uint16_t *)weight->data + first + k * PANEL);
            break;
        case BF16:
            for (int64_t k = 0; k < weight->k; k++)
                y[k] = ISA(bfloat_to_float)((const uint16_t *)weight->data + first + k * PANEL);
            break;
        default: ISA(read_codes)(weight, panel, column, y);
    }
}
