/* Keys and values into the paged cache: kv_store/__init__.py has the layout. */
#ifndef TGI_KV_STORE_H
#define TGI_KV_STORE_H

#include <stdint.h>

/* kv: [2, kv_heads, head_dim] of one token; cache: [num_blocks, 2, kv_heads, block_size, head_dim]. */
void tgi_kv_store_token(const float *kv, float *cache, int64_t slot, int64_t kv_heads,
                        int64_t block_size, int64_t head_dim);

#endif
