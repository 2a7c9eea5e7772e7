/* Causal attention over the paged KV cache, prefill and decode alike: __init__.py has the formula.
 *
 * Flash attention in one pass (Dao et al., arXiv:2205.14135; online softmax: Milakov and Gimelshein,
 * arXiv:1805.02867). A unit of work is a tile of up to TILE_TOKENS queries of one sequence with one key
 * head; its rows are those tokens times the G query heads that share the key head, so a key is read once
 * for all of them. Units are handed out dynamically; who runs one doesn't matter to its arithmetic.
 *
 * Order of every reduction, for each row alone: keys in chunks of CHUNK counted from position 0, whatever is
 * cached, chunked or batched. In a chunk: scores by eight running sums over the head size, the maximum, the
 * sum of the weights eight apart, then the weighted values key by key. Keys that a row doesn't see have
 * weight 0 and change no bit. Memory bound for decodes: each context is read once.
 */
#include "paged_attention.h"

#include <math.h>

#include "../native/simd.h"

enum { CHUNK = 64, TILE_TOKENS = 8, MAX_GROUP = 16, MAX_ROWS = TILE_TOKENS * MAX_GROUP };
enum { MAX_HEAD_DIM = 256 };

TGI_INLINE void prefetch_row(const float *row, int64_t head_dim) {
    for (int64_t i = 0; i < head_dim; i += 16) __builtin_prefetch(row + i);
}

/* scores[j] = scale * q . keys[j], four keys at a time. */
TGI_INLINE void score_chunk(const float *q, const float *const *keys, int64_t head_dim, float scale,
                            float *scores) {
    for (int j = 0; j < CHUNK; j += 4) {
        v8 a = v8_all(0.0f), b = a, c = a, d = a;
        for (int64_t i = 0; i < head_dim; i += 8) {
            v8 x = v8_load(q + i);
            a += x * v8_load(keys[j] + i);
            b += x * v8_load(keys[j + 1] + i);
            c += x * v8_load(keys[j + 2] + i);
            d += x * v8_load(keys[j + 3] + i);
        }
        v4 sums = v8_sum4(a, b, c, d) * (v4){scale, scale, scale, scale};
        memcpy(scores + j, &sums, sizeof sums);
    }
}

/* acc = acc * decay + sum_j weights[j] * values[j], WIDTH * 8 columns at once. */
#define ADD_VALUES(WIDTH)                                                                   \
    do {                                                                                    \
        v8 sums[WIDTH];                                                                     \
        _Pragma("GCC unroll 8") for (int w = 0; w < WIDTH; w++)                             \
            sums[w] = v8_load(acc + column + 8 * w) * v8_all(decay);                        \
        for (int j = first; j < last; j++) {                                                \
            v8 weight = v8_all(weights[j]);                                                 \
            _Pragma("GCC unroll 8") for (int w = 0; w < WIDTH; w++)                         \
                sums[w] += weight * v8_load(values[j] + column + 8 * w);                    \
        }                                                                                   \
        _Pragma("GCC unroll 8") for (int w = 0; w < WIDTH; w++)                             \
            v8_store(acc + column + 8 * w, sums[w]);                                        \
        column += 8 * WIDTH;                                                                \
    } while (0)

TGI_INLINE void add_values(const float *weights, const float *const *values, int first, int last,
                           int64_t head_dim, float decay, float *acc) {
    int64_t column = 0;
    while (column + 64 <= head_dim) ADD_VALUES(8);
    while (column + 8 <= head_dim) ADD_VALUES(1);
}

/* One tile: queries first_token .. first_token + num_tokens of a span, one key head. */
TGI_DISPATCH static void attend_tile(const Attention *at, const int64_t *span, int64_t first_token,
                                     int64_t num_tokens, int64_t kv_head) {
    const int64_t head_dim = at->head_dim, group = at->num_heads / at->num_kv_heads;
    const int64_t first_position = span[2] - (span[1] - span[0]) + first_token;
    const int64_t last_position = first_position + num_tokens - 1;
    const int64_t block_floats = at->block_size * head_dim; /* one head's keys of one block */
    const int64_t *table = at->block_tables + span[3] * at->table_stride;
    const int64_t num_rows = num_tokens * group;
    static _Thread_local float acc[MAX_ROWS][MAX_HEAD_DIM] __attribute__((aligned(64)));
    float highest[MAX_ROWS], total[MAX_ROWS];

    for (int64_t r = 0; r < num_rows; r++) {
        highest[r] = -INFINITY;
        total[r] = 0.0f;
        memset(acc[r], 0, head_dim * sizeof(float));
    }
    int64_t chunk = 0;
    if (at->sliding_window && first_position >= at->sliding_window)
        chunk = (first_position - at->sliding_window + 1) / CHUNK * CHUNK;
    for (; chunk <= last_position; chunk += CHUNK) {
        const float *keys[CHUNK], *values[CHUNK];
        int64_t block = chunk / at->block_size, offset = chunk % at->block_size;
        for (int j = 0; j < CHUNK; j++) {
            if (chunk + j <= last_position) {
                int64_t head_block = table[block] * 2 * at->num_kv_heads + kv_head;
                keys[j] = at->cache + head_block * block_floats + offset * head_dim;
                values[j] = keys[j] + at->num_kv_heads * block_floats;
                prefetch_row(values[j], head_dim); /* the scores give them time to arrive */
                if (++offset == at->block_size) block++, offset = 0;
            } else { /* past the context stands the last key again: it gets weight 0 */
                keys[j] = keys[j - 1];
                values[j] = values[j - 1];
            }
        }
        for (int64_t r = 0; r < num_rows; r++) {
            const int64_t token = r / group, position = first_position + token;
            const int64_t head = kv_head * group + r % group;
            int64_t last = position - chunk + 1, first = 0;
            if (last > CHUNK) last = CHUNK;
            if (at->sliding_window) first = position - at->sliding_window + 1 - chunk;
            if (first < 0) first = 0;
            if (first >= last) continue; /* the row sees nothing of this chunk */

            float scores[CHUNK] __attribute__((aligned(64)));
            const float *q = at->q + (span[0] + first_token + token) * at->q_stride + head * head_dim;
            score_chunk(q, keys, head_dim, at->scale, scores);
            for (int64_t j = 0; j < first; j++) scores[j] = -INFINITY;
            for (int64_t j = last; j < CHUNK; j++) scores[j] = -INFINITY;

            v8 maxima = v8_load(scores);
            for (int j = 8; j < CHUNK; j += 8) {
                v8 s = v8_load(scores + j);
                maxima = v8_select(s > maxima, s, maxima);
            }
            float top = v8_max(maxima);
            if (highest[r] > top) top = highest[r];
            float decay = 0.0f;
            if (highest[r] > -INFINITY) decay = v8_exp(v8_all(highest[r] - top))[0];
            v8 sums = v8_all(0.0f);
            for (int j = 0; j < CHUNK; j += 8) {
                v8 weight = v8_exp(v8_load(scores + j) - v8_all(top));
                sums += weight;
                v8_store(scores + j, weight);
            }
            highest[r] = top;
            total[r] = total[r] * decay + v8_sum(sums);
            add_values(scores, values, (int)first, (int)last, head_dim, decay, acc[r]);
        }
    }
    for (int64_t r = 0; r < num_rows; r++) {
        const int64_t token = span[0] + first_token + r / group;
        const int64_t head = kv_head * group + r % group;
        float *out = at->out + token * at->out_stride + head * head_dim;
        const v8 share = v8_all(1.0f / total[r]);
        for (int64_t i = 0; i < head_dim; i += 8) v8_store(out + i, v8_load(acc[r] + i) * share);
    }
}

static int64_t tiles_of(const int64_t *span) {
    return (span[1] - span[0] + TILE_TOKENS - 1) / TILE_TOKENS;
}

static void attend_units(const void *argument, int64_t begin, int64_t end) {
    const Attention *at = argument;
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t *span = at->spans;
        int64_t tile = unit / at->num_kv_heads;
        for (; tile >= tiles_of(span); span += 4) tile -= tiles_of(span);
        int64_t first_token = tile * TILE_TOKENS, num_tokens = span[1] - span[0] - first_token;
        if (num_tokens > TILE_TOKENS) num_tokens = TILE_TOKENS;
        attend_tile(at, span, first_token, num_tokens, unit % at->num_kv_heads);
    }
}

TgiWork tgi_attention_work(const Attention *at) {
    int64_t num_tiles = 0;
    for (int64_t s = 0; s < at->num_spans; s++) num_tiles += tiles_of(at->spans + 4 * s);
    return (TgiWork){num_tiles * at->num_kv_heads, attend_units, at};
}

static void run_attention(void *attention) { tgi_team_share(tgi_attention_work(attention)); }

/* Attend every query of the step, by all threads. */
void tgi_paged_attention(const float *q, int64_t q_stride, const float *cache, float *out,
                         const int64_t *block_tables, int64_t table_stride, const int64_t *spans,
                         int64_t num_spans, int64_t num_heads, int64_t num_kv_heads,
                         int64_t head_dim, int64_t block_size, int64_t sliding_window,
                         float scale) {
    Attention attention = {q,         cache,     out,          block_tables, spans,      q_stride,
                           num_heads * head_dim, table_stride, num_spans, num_heads, num_kv_heads,
                           head_dim, block_size, sliding_window, scale};
    tgi_team_run(run_attention, &attention);
}
