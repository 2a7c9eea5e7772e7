/* For a rows.h. `scores` has PANEL numbers, minus infinity after the row's end. */
TGI_INLINE Peak ISA(peak_of)(const float *scores) {
    v16 s[PANEL / 16], highest = v16_all(-INFINITY), sum = v16_all(0.0f);
    for (int i = 0; i < PANEL / 16; i++) {
        s[i] = v16_load(scores + 16 * i);
        highest = v16_select(s[i] > highest, s[i], highest);
    }
    const float top = v16_max(highest);
    const v16 shift = v16_all(top > -INFINITY ? top : 0.0f); /* infinity less itself is no number */
    for (int i = 0; i < PANEL / 16; i++) sum += v16_exp(s[i] - shift);
    return (Peak){top, v16_sum(sum)};
}
