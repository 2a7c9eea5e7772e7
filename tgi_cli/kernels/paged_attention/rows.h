/* For each_set.h: rows of scores, of queries or values, and of what the cache keeps. */

/* One row's scores of a chunk become weights, in place; those outside first .. last - 1 become 0.
 * Returns the factor by which earlier weights shrink. */
TGI_INLINE float ISA(softmax_row)(float *scores, float first, float last, float soft_cap,
                                  Softmax *row) {
    const v16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 s[CHUNK / 16], highest = v16_all(-INFINITY), sum = v16_all(0.0f);
    for (int i = 0; i < CHUNK / 16; i++) {
        s[i] = v16_load(scores + 16 * i);
        if (soft_cap > 0.0f) {
            /* tanh(x) = 1 - 2 / (exp(2x) + 1), with x kept where exp doesn't overflow */
            v16 x = s[i] * v16_all(2.0f / soft_cap);
            x = v16_select(x > v16_all(40.0f), v16_all(40.0f), x);
            const v16 tanh = v16_all(1.0f) - v16_all(2.0f) / (v16_exp(x) + v16_all(1.0f));
            s[i] = tanh * v16_all(soft_cap);
        }
        s[i] = v16_select(lanes < v16_all(last - 16 * i), s[i], v16_all(-INFINITY));
        s[i] = v16_select(lanes < v16_all(first - 16 * i), v16_all(-INFINITY), s[i]);
        highest = v16_select(s[i] > highest, s[i], highest);
    }
    float top = v16_max(highest), decay = 0.0f;
    if (row->highest > top) top = row->highest;
    if (row->highest == top) decay = 1.0f;
    else if (row->highest > -INFINITY) decay = v16_exp(v16_all(row->highest - top))[0];
    for (int i = 0; i < CHUNK / 16; i++) {
        const v16 weight = v16_exp(s[i] - v16_all(top));
        sum += weight;
        v16_store(scores + 16 * i, weight);
    }
    *row = (Softmax){top, row->total * decay + v16_sum(sum)};
    return decay;
}

static void ISA(scale_row)(float *y, const float *x, float factor, int64_t size) {
    int64_t i = 0;
    for (; i + 16 <= size; i += 16) v16_store(y + i, v16_load(x + i) * v16_all(factor));
    for (; i < size; i++) y[i] = x[i] * factor;
}

/* What the rows begin .. end - 1 of a tile see of a chunk: scores become weights, and sums of
 * earlier values shrink accordingly. `position` is that of row 0, from the chunk's first key. */
static void ISA(softmax_rows)(const Attention *at, int64_t position, int64_t begin, int64_t end,
                              float *scores, float *acc, int64_t width, Softmax *rows) {
    const int64_t group = at->num_heads / at->cache->num_kv_heads;
    for (int64_t r = begin; r < end; r++) {
        int64_t last = position + r / group + 1, first = 0;
        if (at->sliding_window && last > at->sliding_window) first = last - at->sliding_window;
        if (last > CHUNK) last = CHUNK;
        const float decay =
            ISA(softmax_row)(scores + r * CHUNK, first, last, at->soft_cap, rows + r);
        if (decay != 1.0f)
            for (int64_t i = 0; i < width; i += 16)
                v16_store(acc + r * width + i, v16_load(acc + r * width + i) * v16_all(decay));
    }
}

/* Round to nearest, ties to even. NaN stays NaN. */
TGI_INLINE v16i ISA(to_bf16)(v16i bits) {
    const v16i rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const v16i is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return (is_nan & (bits >> 16 | 0x40)) | (~is_nan & rounded);
}

/* The same; finite numbers beyond the largest fp16 become it. */
TGI_INLINE v16i ISA(to_f16)(v16i bits) {
    const v16i magnitude = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
    const v16i normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
    /* Subnormal in fp16: the last bits of the sum are the rounded ones. */
    const v16i subnormal = (v16i)((v16)magnitude + v16_all(0.5f)) - 0x3f000000;
    const v16i is_small = magnitude < 0x38800000;
    const v16i is_large = magnitude >= 0x477ff000; /* 65520 would round up */
    const v16i is_infinite = magnitude >= 0x7f800000, is_nan = magnitude > 0x7f800000;
    v16i half = (is_small & subnormal) | (~is_small & normal);
    half = (is_large & 0x7bff) | (~is_large & half);
    half = (is_infinite & 0x7c00) | (~is_infinite & half);
    half = (is_nan & 0x7e00) | (~is_nan & half);
    return half | sign;
}

static void ISA(to_halves)(const float *x, uint16_t *y, int64_t size, int64_t kernel) {
    for (int64_t i = 0; i < size; i += 16) {
        const int64_t count = size - i < 16 ? size - i : 16;
        v16i bits = {0};
        memcpy(&bits, x + i, count * sizeof(float));
        bits = kernel == F16 ? ISA(to_f16)(bits) : ISA(to_bf16)(bits);
        const halves narrow = __builtin_convertvector(bits, halves);
        memcpy(y + i, &narrow, count * sizeof *y);
    }
}
