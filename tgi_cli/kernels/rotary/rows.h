/* For each_set.h: the heads of one token. */
TGI_INLINE void ISA(rotate_head)(float *x, const float *cos, const float *signed_sin,
                                 int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[half + i];
        x[i] = first * cos[i] + second * signed_sin[i];
        x[half + i] = second * cos[half + i] + first * signed_sin[half + i];
    }
}

static void ISA(rotate_token)(float *x, const float *cos, const float *signed_sin, int64_t heads,
                              int64_t half) {
    for (int64_t h = 0; h < heads; h++) ISA(rotate_head)(x + h * 2 * half, cos, signed_sin, half);
}
