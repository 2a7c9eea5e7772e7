/* Keys and values of a step into the paged cache: kv_store/__init__.py has the layout. Memory bound. */
#include "kv_store.h"

#include <string.h>

void tgi_kv_store_token(const float *kv, float *cache, int64_t slot, int64_t kv_heads,
                        int64_t block_size, int64_t head_dim) {
    const int64_t block = slot / block_size, offset = slot % block_size;
    for (int64_t part = 0; part < 2 * kv_heads; part++)
        memcpy(cache + ((block * 2 * kv_heads + part) * block_size + offset) * head_dim,
               kv + part * head_dim, head_dim * sizeof(float));
}

/* kv: [tokens, 2, kv_heads, head_dim], tokens token_stride apart. */
void tgi_kv_store(const float *kv, int64_t token_stride, float *cache, const int64_t *slots,
                  int64_t tokens, int64_t kv_heads, int64_t block_size, int64_t head_dim) {
    for (int64_t t = 0; t < tokens; t++)
        tgi_kv_store_token(kv + t * token_stride, cache, slots[t], kv_heads, block_size, head_dim);
}
