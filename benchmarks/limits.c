/* What this machine can do at most, on one thread: multiply-adds in registers, and bytes read. */
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef float vec __attribute__((vector_size(64)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Floating-point operations per second of 12 independent chains of fused multiply-adds. */
double peak_flops(void) {
    vec a[12], b, c;
    for (int i = 0; i < 16; i++) b[i] = 1.0000001f, c[i] = 1e-9f;
    for (int j = 0; j < 12; j++)
        for (int i = 0; i < 16; i++) a[j][i] = j;
    const int64_t n = 10000000;
    const double start = now();
    for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) a[j] = a[j] * b + c;
    }
    const double seconds = now() - start;
    volatile float sink = 0;
    for (int j = 0; j < 12; j++) sink += a[j][0];
    return n * 12.0 * 16 * 2 / seconds;
}

/* The sum of `bytes` at `p`, so that every one of them is read. */
uint64_t read_all(const uint64_t *p, size_t bytes) {
    typedef uint64_t wide __attribute__((vector_size(64)));
    wide sums[8] = {{0}};
    const wide *w = (const wide *)p;
    for (size_t i = 0; i + 8 <= bytes / 64; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += w[i + j];
    uint64_t total = 0;
    for (int j = 0; j < 8; j++) total += sums[j][0] + sums[j][7];
    return total;
}
