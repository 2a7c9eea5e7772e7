/* Causal attention over the paged KV cache, prefill and decode alike: paged_attention.h has the
 * layout.
 *
 * Flash attention in one pass (Dao et al., arXiv:2205.14135; online softmax: Milakov and
 * Gimelshein, arXiv:1805.02867). A unit of work is a tile of queries of one sequence with one key
 * head; its rows are some tokens times the G query heads that share the key head, so a key is read
 * once for all of them. Units are handed out dynamically; who runs one doesn't matter to its
 * arithmetic.
 *
 * Order of every reduction, for each row alone: keys in chunks of CHUNK counted from position 0,
 * whatever is cached, chunked or batched. In a chunk: each score one chain over D, the maximum,
 * the sum of the weights eight apart, then the weighted values of each block, key by key, added to
 * what is there. Masked keys have weight 0; a block that lies wholly after a row is left out for
 * that row. Memory bound for decodes: each context is read once.
 */
#include "paged_attention.h"

#include <math.h>

#include "../native/simd.h"

enum { CHUNK = 64, CHUNK_BLOCKS = CHUNK / BLOCK_TOKENS, MAX_GROUP = 16, MAX_HEAD_DIM = 256 };
enum { MAX_ROWS = 128 };

TGI_INLINE int64_t padded(int64_t head_dim) { return (head_dim + PANEL - 1) / PANEL * PANEL; }

TGI_INLINE int64_t value_bytes(const KvCache *cache) { return cache->kernel == F32 ? 4 : 2; }

TGI_INLINE int64_t head_bytes(const KvCache *cache) {
    return BLOCK_TOKENS * (cache->head_dim + padded(cache->head_dim)) * value_bytes(cache);
}

int64_t tgi_kv_block_bytes(const KvCache *cache) { return cache->num_kv_heads * head_bytes(cache); }

/* What a chunk adds to a row: the highest score so far, what it makes of the earlier sum, its own. */
typedef struct {
    float top, decay, sum;
} Softmax;

/* scores -> weights, in place; those outside first .. last - 1 become 0. */
TGI_DISPATCH static Softmax softmax_chunk(float *scores, int64_t first, int64_t last, float highest,
                                          float soft_cap) {
    if (soft_cap > 0.0f)
        for (int j = 0; j < CHUNK; j += 8) {
            /* tanh(x) = 1 - 2 / (exp(2x) + 1), with x kept where exp doesn't overflow */
            v8 x = v8_load(scores + j) * v8_all(2.0f / soft_cap);
            x = v8_select(x > v8_all(40.0f), v8_all(40.0f), x);
            v8 tanh = v8_all(1.0f) - v8_all(2.0f) / (v8_exp(x) + v8_all(1.0f));
            v8_store(scores + j, tanh * v8_all(soft_cap));
        }
    for (int64_t j = 0; j < first; j++) scores[j] = -INFINITY;
    for (int64_t j = last; j < CHUNK; j++) scores[j] = -INFINITY;
    v8 maxima = v8_load(scores);
    for (int j = 8; j < CHUNK; j += 8) {
        v8 s = v8_load(scores + j);
        maxima = v8_select(s > maxima, s, maxima);
    }
    Softmax result = {.top = v8_max(maxima)};
    if (highest > result.top) result.top = highest;
    if (highest > -INFINITY) result.decay = v8_exp(v8_all(highest - result.top))[0];
    v8 sums = v8_all(0.0f);
    for (int j = 0; j < CHUNK; j += 8) {
        v8 weight = v8_exp(v8_load(scores + j) - v8_all(result.top));
        sums += weight;
        v8_store(scores + j, weight);
    }
    result.sum = v8_sum(sums);
    return result;
}

TGI_DISPATCH static void scale_row(float *y, const float *x, float factor, int64_t size) {
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) v8_store(y + i, v8_load(x + i) * v8_all(factor));
    for (; i < size; i++) y[i] = x[i] * factor;
}

/* How many tokens a tile has: as many as MAX_ROWS allows, but enough tiles to share out. */
TGI_INLINE int64_t tile_tokens(const Attention *at) {
    const int64_t tokens = MAX_ROWS / (at->num_heads / at->cache->num_kv_heads);
    return tokens < 32 ? tokens : 32;
}

/* One tile: queries first_token .. first_token + num_tokens of a span, one key head. */
static void attend_tile(const Attention *at, const int64_t *span, int64_t first_token,
                        int64_t num_tokens, int64_t kv_head) {
    static _Thread_local float queries[MAX_ROWS * MAX_HEAD_DIM] __attribute__((aligned(64)));
    static _Thread_local float acc[MAX_ROWS * MAX_HEAD_DIM] __attribute__((aligned(64)));
    static _Thread_local float scores[MAX_ROWS * CHUNK] __attribute__((aligned(64)));
    float highest[MAX_ROWS], total[MAX_ROWS];
    const KvCache *cache = at->cache;
    const Kernel kernel = (Kernel)cache->kernel;
    const int64_t head_dim = cache->head_dim, width = padded(head_dim);
    const int64_t group = at->num_heads / cache->num_kv_heads, num_rows = num_tokens * group;
    const int64_t first_position = span[2] - (span[1] - span[0]) + first_token;
    const int64_t last_position = first_position + num_tokens - 1;
    const int64_t *table = at->block_tables + span[3] * at->table_stride;
    const int64_t size = value_bytes(cache);

    for (int64_t r = 0; r < num_rows; r++) {
        const int64_t token = span[0] + first_token + r / group, head = kv_head * group + r % group;
        scale_row(queries + r * head_dim, at->q + token * at->q_stride + head * head_dim, at->scale,
                  head_dim);
        highest[r] = -INFINITY;
        total[r] = 0.0f;
        memset(acc + r * width, 0, width * sizeof(float));
    }
    int64_t chunk = 0;
    if (at->sliding_window && first_position >= at->sliding_window)
        chunk = (first_position - at->sliding_window + 1) / CHUNK * CHUNK;
    for (; chunk <= last_position; chunk += CHUNK) {
        /* Rows are in order of position: those that see something of the chunk are neighbours. */
        int64_t begin = 0, end = num_rows;
        if (chunk > first_position) begin = (chunk - first_position) * group;
        if (at->sliding_window) {
            const int64_t tokens = chunk + CHUNK + at->sliding_window - 1 - first_position;
            if (tokens < num_tokens) end = tokens * group;
        }
        const char *keys[CHUNK_BLOCKS], *values[CHUNK_BLOCKS];
        int64_t num_blocks = 0, from[CHUNK_BLOCKS]; /* the first row that sees the block */
        for (; num_blocks < CHUNK_BLOCKS; num_blocks++) {
            const int64_t position = chunk + num_blocks * BLOCK_TOKENS;
            if (position > last_position) break;
            const int64_t block = table[position / BLOCK_TOKENS];
            keys[num_blocks] = (const char *)cache->data +
                               (block * cache->num_kv_heads + kv_head) * head_bytes(cache);
            values[num_blocks] = keys[num_blocks] + head_dim * BLOCK_TOKENS * size;
            from[num_blocks] = position > first_position ? (position - first_position) * group : 0;
        }
        const Tile score = {.x = queries + begin * head_dim,
                            .x_stride = head_dim,
                            .k = head_dim,
                            .w = keys[0],
                            .panel_bytes = num_blocks > 1 ? keys[1] - keys[0] : 0,
                            .out = scores + begin * CHUNK,
                            .stride = CHUNK};
        tgi_tiles(kernel, &score, end - begin, num_blocks);
        for (int64_t r = begin; r < end; r++) {
            const int64_t position = first_position + r / group;
            int64_t last = position - chunk + 1, first = 0;
            if (last > CHUNK) last = CHUNK;
            if (at->sliding_window) first = position - at->sliding_window + 1 - chunk;
            if (first < 0) first = 0;
            const Softmax softmax =
                softmax_chunk(scores + r * CHUNK, first, last, highest[r], at->soft_cap);
            highest[r] = softmax.top;
            total[r] = total[r] * softmax.decay + softmax.sum;
            if (softmax.decay != 1.0f)
                scale_row(acc + r * width, acc + r * width, softmax.decay, width);
        }
        for (int64_t b = 0; b < num_blocks; b++) {
            const int64_t row = from[b] > begin ? from[b] : begin;
            const Tile weighted = {.x = scores + row * CHUNK + b * BLOCK_TOKENS,
                                   .x_stride = CHUNK,
                                   .k = BLOCK_TOKENS,
                                   .w = values[b],
                                   .panel_bytes = BLOCK_TOKENS * PANEL * size,
                                   .adds = 1,
                                   .out = acc + row * width,
                                   .stride = width};
            if (row < end) tgi_tiles(kernel, &weighted, end - row, width / PANEL);
        }
    }
    for (int64_t r = 0; r < num_rows; r++) {
        const int64_t token = span[0] + first_token + r / group, head = kv_head * group + r % group;
        scale_row(at->out + token * at->out_stride + head * head_dim, acc + r * width,
                  1.0f / total[r], head_dim);
    }
}

static int64_t tiles_of(const Attention *at, const int64_t *span) {
    return (span[1] - span[0] + tile_tokens(at) - 1) / tile_tokens(at);
}

static void attend_units(const void *argument, int64_t begin, int64_t end) {
    const Attention *at = argument;
    const int64_t num_kv_heads = at->cache->num_kv_heads;
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t *span = at->spans;
        int64_t tile = unit / num_kv_heads;
        for (; tile >= tiles_of(at, span); span += 4) tile -= tiles_of(at, span);
        const int64_t first_token = tile * tile_tokens(at);
        int64_t num_tokens = span[1] - span[0] - first_token;
        if (num_tokens > tile_tokens(at)) num_tokens = tile_tokens(at);
        attend_tile(at, span, first_token, num_tokens, unit % num_kv_heads);
    }
}

TgiWork tgi_attention_work(const Attention *at) {
    int64_t num_tiles = 0;
    for (int64_t s = 0; s < at->num_spans; s++) num_tiles += tiles_of(at, at->spans + 4 * s);
    return (TgiWork){num_tiles * at->cache->num_kv_heads, attend_units, at};
}

static void run_attention(void *attention) { tgi_team_share(tgi_attention_work(attention)); }

/* Attend every query of the step, by all threads. */
void tgi_paged_attention(const Attention *attention) {
    tgi_team_run(run_attention, (void *)attention);
}

/* Round to nearest, ties to even. NaN stays NaN. */
TGI_INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The same; finite numbers beyond the largest fp16 become it. */
TGI_INLINE uint16_t to_f16(float x) {
    uint32_t bits, magnitude;
    memcpy(&bits, &x, sizeof bits);
    magnitude = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude >= 0x7f800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    if (magnitude >= 0x477ff000) return sign | 0x7bff; /* 65520 would round up */
    if (magnitude < 0x38800000) { /* subnormal in fp16: the sum's last bits are the rounded ones */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&magnitude, &shifted, sizeof magnitude);
        return sign | (uint16_t)(magnitude - 0x3f000000);
    }
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

TGI_INLINE void put(void *cache, int64_t kernel, int64_t at, float x) {
    if (kernel == F32) ((float *)cache)[at] = x;
    else ((uint16_t *)cache)[at] = kernel == F16 ? to_f16(x) : to_bf16(x);
}

void tgi_kv_store_token(const KvCache *cache, const float *kv, int64_t slot) {
    const int64_t head_dim = cache->head_dim, token = slot % BLOCK_TOKENS;
    for (int64_t head = 0; head < cache->num_kv_heads; head++) {
        char *keys = (char *)cache->data +
                     (slot / BLOCK_TOKENS * cache->num_kv_heads + head) * head_bytes(cache);
        char *values = keys + head_dim * BLOCK_TOKENS * value_bytes(cache);
        const float *k = kv + head * head_dim, *v = k + cache->num_kv_heads * head_dim;
        for (int64_t d = 0; d < head_dim; d++) {
            const int64_t panel = d / PANEL * BLOCK_TOKENS * PANEL;
            put(keys, cache->kernel, d * BLOCK_TOKENS + token, k[d]);
            put(values, cache->kernel, panel + token * PANEL + d % PANEL, v[d]);
        }
    }
}

/* kv: [tokens, 2, Hkv, D], tokens token_stride apart. */
void tgi_kv_store(const KvCache *cache, const float *kv, int64_t token_stride, const int64_t *slots,
                  int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++)
        tgi_kv_store_token(cache, kv + t * token_stride, slots[t]);
}
