/* What the CPU kernels share: eight floats at a time, and an exponential.
 *
 * GCC's and clang's vector extensions, so the same text serves AVX2, AVX-512 and machines without
 * either. TGI_DISPATCH compiles a function once per instruction set and picks at load time. A
 * reduction adds in one fixed order, so output bits depend on the input alone.
 */
#ifndef TGI_SIMD_H
#define TGI_SIMD_H

#include <stdint.h>
#include <string.h>

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

#define TGI_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define TGI_DISPATCH __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TGI_DISPATCH
#endif

TGI_INLINE v8 v8_load(const float *p) {
    v8 x;
    memcpy(&x, p, sizeof x);
    return x;
}

TGI_INLINE void v8_store(float *p, v8 x) { memcpy(p, &x, sizeof x); }

TGI_INLINE v8 v8_all(float x) { return (v8){x, x, x, x, x, x, x, x}; }

/* Where mask is all ones take a, else b. */
TGI_INLINE v8 v8_select(v8i mask, v8 a, v8 b) {
    return (v8)(((v8i)a & mask) | ((v8i)b & ~mask));
}

/* The lower half plus the upper half. */
TGI_INLINE v4 v8_fold(v8 x) {
    return __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
}

TGI_INLINE float v8_sum(v8 x) {
    v4 a = v8_fold(x);
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* The sums of four vectors, each added in the order of v8_sum. */
TGI_INLINE v4 v8_sum4(v8 a, v8 b, v8 c, v8 d) {
    v4 w = v8_fold(a), x = v8_fold(b), y = v8_fold(c), z = v8_fold(d);
    v4 wx = __builtin_shufflevector(w, x, 0, 4, 1, 5) + __builtin_shufflevector(w, x, 2, 6, 3, 7);
    v4 yz = __builtin_shufflevector(y, z, 0, 4, 1, 5) + __builtin_shufflevector(y, z, 2, 6, 3, 7);
    return __builtin_shufflevector(wx, yz, 0, 1, 4, 5) + __builtin_shufflevector(wx, yz, 2, 3, 6, 7);
}

TGI_INLINE float v8_max(v8 x) {
    float m = x[0];
    for (int i = 1; i < 8; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* e**x for x <= 88, to about 1 unit in the last place; 0 below -87. exp(n ln 2 + r) = 2**n exp(r),
 * |r| <= ln(2) / 2, exp(r) by its Taylor series up to r**7. NaN gives NaN. */
TGI_INLINE v8 v8_exp(v8 x) {
    const v8 round = v8_all(12582912.0f); /* 1.5 * 2**23: adding it rounds to an integer */
    v8i is_small = x < v8_all(-87.0f);
    v8 clamped = v8_select(is_small, v8_all(-87.0f), x);
    v8 shifted = clamped * v8_all(1.44269504088896341f) + round;
    v8i n = (v8i)shifted - (v8i)round;
    v8 whole = shifted - round;
    /* ln 2 in two parts, so that the product with n is exact. */
    v8 r = clamped - whole * v8_all(0.693359375f) - whole * v8_all(-2.12194440e-4f);
    v8 p = v8_all(1.0f / 5040);
    p = p * r + v8_all(1.0f / 720);
    p = p * r + v8_all(1.0f / 120);
    p = p * r + v8_all(1.0f / 24);
    p = p * r + v8_all(1.0f / 6);
    p = p * r + v8_all(0.5f);
    p = p * r + v8_all(1.0f);
    p = p * r + v8_all(1.0f);
    v8 result = (v8)((v8i)p + (n << 23));
    return v8_select(is_small, v8_all(0.0f), result);
}

/* x * sigmoid(x). exp overflows above 88, where the result is 0 for all that matters. */
TGI_INLINE v8 v8_silu(v8 x) {
    v8 exponent = v8_select(-x > v8_all(87.0f), v8_all(87.0f), -x);
    return x / (v8_all(1.0f) + v8_exp(exponent));
}

#endif
