/* Causal attention over the paged KV cache: paged_attention/__init__.py has the formula.
 *
 * Cache: [num_blocks, Hkv] heads of a block, each its keys [D][BLOCK_TOKENS], then its values
 * [panels][BLOCK_TOKENS][PANEL], D filled up with zeros to whole panels: both are weights of a
 * product with tiles, queries times keys and weights times values.
 */
#ifndef TGI_PAGED_ATTENTION_H
#define TGI_PAGED_ATTENTION_H

#include "../native/team.h"
#include "../native/tiles.h"

enum { BLOCK_TOKENS = PANEL };

typedef struct {
    void *data;
    int64_t kernel; /* F32, F16 or BF16 */
    int64_t num_kv_heads, head_dim;
} KvCache;

typedef struct {
    const float *q; /* [T, H, D], tokens q_stride apart */
    const KvCache *cache;
    float *out; /* [T, H, D], tokens out_stride apart */
    const int64_t *block_tables; /* [rows, table_stride] */
    const int64_t *spans; /* [num_spans, 4]: start, end, context_len, row */
    int64_t q_stride, out_stride, table_stride, num_spans, num_heads;
    int64_t sliding_window; /* 0: none */
    float scale, soft_cap;  /* cap: scores become cap * tanh(score / cap); 0: none */
} Attention;

/* A unit is a tile of queries with one key head. `attention` must outlive the work. head_dim is at
 * most 256, num_heads / num_kv_heads at most 16. */
TgiWork tgi_attention_work(const Attention *attention);

/* Store keys and values [2, Hkv, D] of one token, rounded to the cache's type. */
void tgi_kv_store_token(const KvCache *cache, const float *kv, int64_t slot);

/* Bytes of one block of all heads. */
int64_t tgi_kv_block_bytes(const KvCache *cache);

#endif
