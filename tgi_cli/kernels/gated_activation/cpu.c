/* silu(gate) * up in one pass over a row: gated_activation/__init__.py has the formula.
 *
 * Every element is a chain of its own. Memory bound.
 */
#include "../native/simd.h"

TGI_DISPATCH static void gate_row(const float *gate, const float *up, float *y, int64_t size) {
    const v8 one = v8_all(1.0f);
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
        v8 g = v8_load(gate + i);
        /* exp overflows above 88, where the gate is closed: g * 2**-126 is 0 for all that matters. */
        v8 exponent = v8_select(-g > v8_all(87.0f), v8_all(87.0f), -g);
        v8_store(y + i, g / (one + v8_exp(exponent)) * v8_load(up + i));
    }
    if (i < size) {
        float last[3][8] = {{0}};
        memcpy(last[0], gate + i, (size - i) * sizeof(float));
        memcpy(last[1], up + i, (size - i) * sizeof(float));
        v8 g = v8_load(last[0]);
        v8 exponent = v8_select(-g > v8_all(87.0f), v8_all(87.0f), -g);
        v8_store(last[2], g / (one + v8_exp(exponent)) * v8_load(last[1]));
        memcpy(y + i, last[2], (size - i) * sizeof(float));
    }
}

/* gate_up: [rows, 2 * size], gates first; y: [rows, size]. */
void tgi_silu_and_mul(const float *gate_up, float *y, int64_t rows, int64_t size) {
#pragma omp parallel for if (rows * size > 16384)
    for (int64_t r = 0; r < rows; r++)
        gate_row(gate_up + r * 2 * size, gate_up + r * 2 * size + size, y + r * size, size);
}
