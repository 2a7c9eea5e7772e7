/* Sixteen floats at a time, and an exponential: for rows.h, by each_set.h.
 *
 * GCC's and clang's vector extensions, so the same text serves every set. A reduction adds in one
 * fixed order, so output bits depend on the input alone.
 */
TGI_INLINE v16 v16_load(const float *p) {
    v16 x;
    memcpy(&x, p, sizeof x);
    return x;
}

TGI_INLINE void v16_store(float *p, v16 x) { memcpy(p, &x, sizeof x); }

TGI_INLINE v16 v16_all(float x) { return (v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

/* Where mask is all ones take a, else b. */
TGI_INLINE v16 v16_select(v16i mask, v16 a, v16 b) {
    return (v16)(((v16i)a & mask) | ((v16i)b & ~mask));
}

TGI_INLINE v8 v16_half(v16 x, const int is_upper) {
    v8 half[2];
    memcpy(half, &x, sizeof half);
    return half[is_upper];
}

TGI_INLINE v4 v8_half(v8 x, const int is_upper) {
    v4 half[2];
    memcpy(half, &x, sizeof half);
    return half[is_upper];
}

TGI_INLINE float v16_sum(v16 x) {
    const v8 a = v16_half(x, 0) + v16_half(x, 1);
    const v4 b = v8_half(a, 0) + v8_half(a, 1);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

TGI_INLINE float v16_max(v16 x) {
    const v8 low = v16_half(x, 0), high = v16_half(x, 1);
    const v8i is_higher = high > low;
    const v8 a = (v8)(((v8i)high & is_higher) | ((v8i)low & ~is_higher));
    const v4 b = v8_half(a, 0), c = v8_half(a, 1);
    float m[4];
    for (int i = 0; i < 4; i++) m[i] = c[i] > b[i] ? c[i] : b[i];
    const float first = m[1] > m[0] ? m[1] : m[0], second = m[3] > m[2] ? m[3] : m[2];
    return second > first ? second : first;
}

/* e**x for x <= 88, to about 1 unit in the last place; 0 below -87. exp(n ln 2 + r) = 2**n exp(r),
 * |r| <= ln(2) / 2, exp(r) by its Taylor series up to r**7. NaN gives NaN. */
TGI_INLINE v16 v16_exp(v16 x) {
    const v16 round = v16_all(12582912.0f); /* 1.5 * 2**23: adding it rounds to an integer */
    v16i is_small = x < v16_all(-87.0f);
    v16 clamped = v16_select(is_small, v16_all(-87.0f), x);
    v16 shifted = clamped * v16_all(1.44269504088896341f) + round;
    v16i n = (v16i)shifted - (v16i)round;
    v16 whole = shifted - round;
    /* ln 2 in two parts, so that the product with n is exact. */
    v16 r = clamped - whole * v16_all(0.693359375f) - whole * v16_all(-2.12194440e-4f);
    v16 p = v16_all(1.0f / 5040);
    p = p * r + v16_all(1.0f / 720);
    p = p * r + v16_all(1.0f / 120);
    p = p * r + v16_all(1.0f / 24);
    p = p * r + v16_all(1.0f / 6);
    p = p * r + v16_all(0.5f);
    p = p * r + v16_all(1.0f);
    p = p * r + v16_all(1.0f);
    v16 result = (v16)((v16i)p + (n << 23));
    return v16_select(is_small, v16_all(0.0f), result);
}

/* x * sigmoid(x). exp overflows above 88, where the result is 0 for all that matters. */
TGI_INLINE v16 v16_silu(v16 x) {
    v16 exponent = v16_select(-x > v16_all(87.0f), v16_all(87.0f), -x);
    return x / (v16_all(1.0f) + v16_exp(exponent));
}
