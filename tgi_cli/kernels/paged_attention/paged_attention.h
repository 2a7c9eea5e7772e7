/* Causal attention over the paged KV cache: paged_attention/__init__.py has the formula. */
#ifndef TGI_PAGED_ATTENTION_H
#define TGI_PAGED_ATTENTION_H

#include "../native/team.h"

typedef struct {
    const float *q; /* [T, H, D], tokens q_stride apart */
    const float *cache; /* [num_blocks, 2, Hkv, block_size, D] */
    float *out; /* [T, H, D], tokens out_stride apart */
    const int64_t *block_tables; /* [rows, table_stride] */
    const int64_t *spans; /* [num_spans, 4]: start, end, context_len, row */
    int64_t q_stride, out_stride, table_stride, num_spans, num_heads, num_kv_heads, head_dim, block_size;
    int64_t sliding_window; /* 0: none */
    float scale;
} Attention;

/* A unit is a tile of queries with one key head. `attention` must outlive the work. head_dim is a multiple of
 * 8 and at most 256, num_heads / num_kv_heads at most 16. */
TgiWork tgi_attention_work(const Attention *attention);

#endif
