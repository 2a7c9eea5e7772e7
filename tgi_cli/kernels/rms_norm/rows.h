/* For each_set.h: one row. */
static void ISA(norm_row)(const float *x, float *residual, const float *weight, float *y,
                          int64_t hidden, float eps) {
    v16 sums = v16_all(0.0f);
    float tail = 0.0f;
    int64_t i = 0;
    const float *h = x;
    if (residual) {
        for (; i + 16 <= hidden; i += 16)
            v16_store(residual + i, v16_load(residual + i) + v16_load(x + i));
        for (; i < hidden; i++) residual[i] += x[i];
        h = residual;
    }
    for (i = 0; i + 16 <= hidden; i += 16) {
        v16 v = v16_load(h + i);
        sums += v * v;
    }
    for (; i < hidden; i++) tail += h[i] * h[i];
    float mean = (v16_sum(sums) + tail) / (float)hidden;
    float scale = 1.0f / __builtin_sqrtf(mean + eps);
    for (i = 0; i + 16 <= hidden; i += 16)
        v16_store(y + i, v16_load(h + i) * v16_all(scale) * v16_load(weight + i));
    for (; i < hidden; i++) y[i] = h[i] * scale * weight[i];
}
