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
 * the sum of the weights sixteen apart, then the weighted values of each block, key by key, added
 * to what is there. Masked keys have weight 0; a block that lies wholly after a row is left out for
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

/* A row's state between chunks. */
typedef struct {
    float highest, total; /* score so far; sum of weights relative to it */
} Softmax;

typedef uint16_t halves __attribute__((vector_size(32)));

#define TGI_ROWS "../paged_attention/rows.h"
#include "../native/each_set.h"

/* How many tokens a tile has: as many as MAX_ROWS allows, but enough tiles to share out. */
TGI_INLINE int64_t tile_tokens(const Attention *at) {
    const int64_t tokens = MAX_ROWS / (at->num_heads / at->cache->num_kv_heads);
    return tokens < 32 ? tokens : 32;
}

/* A tile of queries with one key head. */
typedef struct {
    const int64_t *span;
    int64_t first_token, num_tokens, kv_head;
    int64_t first_position, last_position; /* of its tokens */
} Unit;

static int64_t tiles_of(const Attention *at, const int64_t *span) {
    return (span[1] - span[0] + tile_tokens(at) - 1) / tile_tokens(at);
}

static Unit unit_at(const Attention *at, int64_t number) {
    const int64_t *span = at->spans;
    int64_t tile = number / at->cache->num_kv_heads;
    for (; tile >= tiles_of(at, span); span += 4) tile -= tiles_of(at, span);
    Unit unit = {.span = span,
                 .first_token = tile * tile_tokens(at),
                 .kv_head = number % at->cache->num_kv_heads};
    unit.num_tokens = span[1] - span[0] - unit.first_token;
    if (unit.num_tokens > tile_tokens(at)) unit.num_tokens = tile_tokens(at);
    unit.first_position = span[2] - (span[1] - span[0]) + unit.first_token;
    unit.last_position = unit.first_position + unit.num_tokens - 1;
    return unit;
}

/* Where the keys begin that the unit sees. */
static int64_t first_chunk(const Attention *at, const Unit *unit) {
    if (!at->sliding_window || unit->first_position < at->sliding_window) return 0;
    return (unit->first_position - at->sliding_window + 1) / CHUNK * CHUNK;
}

/* A chunk's blocks of one key head; a block's values come after its keys. */
typedef struct {
    int64_t count;
    const char *keys[CHUNK_BLOCKS];
} Blocks;

static Blocks blocks_at(const Attention *at, const Unit *unit, int64_t chunk) {
    const KvCache *cache = at->cache;
    const int64_t *table = at->block_tables + unit->span[3] * at->table_stride;
    Blocks blocks = {0};
    for (; blocks.count < CHUNK_BLOCKS; blocks.count++) {
        const int64_t position = chunk + blocks.count * BLOCK_TOKENS;
        if (position > unit->last_position) break;
        const int64_t block = table[position / BLOCK_TOKENS];
        blocks.keys[blocks.count] =
            (const char *)cache->data +
            (block * cache->num_kv_heads + unit->kv_head) * head_bytes(cache);
    }
    return blocks;
}

/* One unit. While a chunk is worked on, the next one is fetched: at the end `after`, the first one
 * of the next unit. */
static void attend_tile(const Attention *at, const Unit *unit, Blocks after) {
    static _Thread_local float queries[MAX_ROWS * MAX_HEAD_DIM] __attribute__((aligned(64)));
    static _Thread_local float acc[MAX_ROWS * MAX_HEAD_DIM] __attribute__((aligned(64)));
    static _Thread_local float scores[MAX_ROWS * CHUNK] __attribute__((aligned(64)));
    Softmax rows[MAX_ROWS];
    const KvCache *cache = at->cache;
    const Kernel kernel = (Kernel)cache->kernel;
    const int64_t head_dim = cache->head_dim, width = padded(head_dim);
    const int64_t group = at->num_heads / cache->num_kv_heads;
    const int64_t num_tokens = unit->num_tokens, num_rows = num_tokens * group;
    const int64_t first_token = unit->span[0] + unit->first_token;
    const int64_t first_position = unit->first_position, last_position = unit->last_position;
    const int64_t size = value_bytes(cache), key_bytes = head_dim * BLOCK_TOKENS * size;

    for (int64_t r = 0; r < num_rows; r++) {
        const int64_t token = first_token + r / group, head = unit->kv_head * group + r % group;
        ON_SET(scale_row)(queries + r * head_dim, at->q + token * at->q_stride + head * head_dim,
                          at->scale, head_dim);
        rows[r] = (Softmax){-INFINITY, 0.0f};
        memset(acc + r * width, 0, width * sizeof(float));
    }
    int64_t chunk = first_chunk(at, unit);
    Blocks blocks = blocks_at(at, unit, chunk), next;
    for (; chunk <= last_position; chunk += CHUNK, blocks = next) {
        next = chunk + CHUNK <= last_position ? blocks_at(at, unit, chunk + CHUNK) : after;
        const char *const *keys = blocks.keys;
        /* Rows are in order of position: those that see something of the chunk are neighbours. */
        int64_t begin = 0, end = num_rows;
        if (chunk > first_position) begin = (chunk - first_position) * group;
        if (at->sliding_window) {
            const int64_t tokens = chunk + CHUNK + at->sliding_window - 1 - first_position;
            if (tokens < num_tokens) end = tokens * group;
        }
        int64_t from[CHUNK_BLOCKS]; /* the first row that sees the block */
        for (int64_t b = 0; b < blocks.count; b++) {
            const int64_t position = chunk + b * BLOCK_TOKENS;
            from[b] = position > first_position ? (position - first_position) * group : 0;
        }
        const Tile score = {.x = queries + begin * head_dim,
                            .x_stride = head_dim,
                            .k = head_dim,
                            .w = keys[0],
                            .panel_bytes = blocks.count > 1 ? keys[1] - keys[0] : 0,
                            .ahead = next.count ? next.keys[0] - keys[0] : 0,
                            .ahead_stride = next.count > 1 ? next.keys[1] - next.keys[0] : 0,
                            .out = scores + begin * CHUNK,
                            .stride = CHUNK};
        tgi_tiles(kernel, &score, end - begin, blocks.count);
        ON_SET(softmax_rows)(at, first_position - chunk, begin, end, scores, acc, width, rows);
        for (int64_t b = 0; b < blocks.count; b++) {
            const int64_t row = from[b] > begin ? from[b] : begin;
            const Tile weighted = {.x = scores + row * CHUNK + b * BLOCK_TOKENS,
                                   .x_stride = CHUNK,
                                   .k = BLOCK_TOKENS,
                                   .w = keys[b] + key_bytes,
                                   .panel_bytes = BLOCK_TOKENS * PANEL * size,
                                   .ahead = b < next.count ? next.keys[b] - keys[b] : 0,
                                   .ahead_stride = BLOCK_TOKENS * PANEL * size,
                                   .adds = 1,
                                   .out = acc + row * width,
                                   .stride = width};
            if (row < end) tgi_tiles(kernel, &weighted, end - row, width / PANEL);
        }
    }
    for (int64_t r = 0; r < num_rows; r++) {
        const int64_t token = first_token + r / group, head = unit->kv_head * group + r % group;
        ON_SET(scale_row)(at->out + token * at->out_stride + head * head_dim,
                          acc + r * width, 1.0f / rows[r].total, head_dim);
    }
}

static int64_t count_units(const Attention *at) {
    int64_t num_tiles = 0;
    for (int64_t s = 0; s < at->num_spans; s++) num_tiles += tiles_of(at, at->spans + 4 * s);
    return num_tiles * at->cache->num_kv_heads;
}

static void attend_units(const void *argument, int64_t begin, int64_t end) {
    const Attention *at = argument;
    const int64_t num_units = count_units(at);
    Unit unit = unit_at(at, begin), next = unit;
    for (int64_t number = begin; number < end; number++, unit = next) {
        Blocks after = {0};
        if (number + 1 < num_units) {
            next = unit_at(at, number + 1);
            after = blocks_at(at, &next, first_chunk(at, &next));
        }
        attend_tile(at, &unit, after);
    }
}

TgiWork tgi_attention_work(const Attention *at) {
    return (TgiWork){count_units(at), attend_units, at};
}

static void run_attention(void *attention) { tgi_team_share(tgi_attention_work(attention)); }

/* Attend every query of the step, by all threads. */
void tgi_paged_attention(const Attention *attention) {
    tgi_team_run(run_attention, (void *)attention);
}

/* A key is a column of its block, a value a line of each of its panels. */
#define STORE_HEAD(number, k, v)                                                          \
    {                                                                                     \
        number *key = (number *)keys + token, *value = (number *)values + token * PANEL;  \
        for (int64_t d = 0; d < head_dim; d++) key[d * BLOCK_TOKENS] = (k)[d];            \
        for (int64_t d = 0; d < head_dim; d += PANEL)                                     \
            memcpy(value + d * BLOCK_TOKENS, (v) + d,                                     \
                   (head_dim - d < PANEL ? head_dim - d : PANEL) * sizeof(number));       \
    }

void tgi_kv_store_token(const KvCache *cache, const float *kv, int64_t slot) {
    const int64_t head_dim = cache->head_dim, token = slot % BLOCK_TOKENS;
    for (int64_t head = 0; head < cache->num_kv_heads; head++) {
        char *keys = (char *)cache->data +
                     (slot / BLOCK_TOKENS * cache->num_kv_heads + head) * head_bytes(cache);
        char *values = keys + head_dim * BLOCK_TOKENS * value_bytes(cache);
        const float *k = kv + head * head_dim, *v = k + cache->num_kv_heads * head_dim;
        if (cache->kernel == F32) STORE_HEAD(float, k, v)
        else {
            uint16_t k_halves[MAX_HEAD_DIM], v_halves[MAX_HEAD_DIM];
            ON_SET(to_halves)(k, k_halves, head_dim, cache->kernel);
            ON_SET(to_halves)(v, v_halves, head_dim, cache->kernel);
            STORE_HEAD(uint16_t, k_halves, v_halves)
        }
    }
}

/* kv: [tokens, 2, Hkv, D], tokens token_stride apart. */
void tgi_kv_store(const KvCache *cache, const float *kv, int64_t token_stride, const int64_t *slots,
                  int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++)
        tgi_kv_store_token(cache, kv + t * token_stride, slots[t]);
}
