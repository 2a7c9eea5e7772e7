/* All layers of a decoder for one step, in one parallel region: __init__.py says what they
 * compute.
 *
 * A layer is eight pieces of work, each shared by the team, with a meeting after it. For a few
 * rows the norms and the rotation are done by the thread that finishes the piece before, and there
 * are five meetings, and one more for each product whose weight has its inputs in an order of its
 * own. The pieces are the operations' own, with their bits.
 */
#include "../linear/linear.h"
#include "../paged_attention/paged_attention.h"
#include "../rms_norm/rms_norm.h"
#include "../rotary/rotary.h"

typedef struct {
    const Linear *qkv, *out, *gate_up, *down;
    const int64_t *qkv_order, *out_order, *gate_up_order, *down_order; /* [k] of each, or null */
    const float *input_norm, *feed_forward_norm; /* [hidden] */
    const float *q_norm, *k_norm;                /* [head_dim] or null */
    const KvCache *cache;
    int64_t is_windowed;
} Layer;

typedef struct {
    const Layer *layers;
    const float *final_norm; /* [hidden] */
    int64_t num_layers, hidden, num_heads, num_kv_heads, head_dim, sliding_window;
    float eps, scale;
} Decoder;

/* What a step works in, all with room for its rows. Rows are a stride apart that the caches like. */
typedef struct {
    float *normed, *qkv, *attended, *gated;
    float *ordered; /* a product's input in the order of its weight; null if all are in order */
    int64_t normed_stride, qkv_stride, attended_stride, gated_stride, ordered_stride;
} Workspace;

typedef struct {
    float *residual; /* [T, hidden]: embeddings in, sums out */
    float *hidden;   /* [num_wanted, hidden]: the normalised rows that are wanted */
    const float *cos, *signed_sin;                      /* [T, D] */
    const int64_t *slots;                               /* [T] */
    const int64_t *block_tables, *spans;                /* as Attention has them */
    const int64_t *wanted;                              /* [num_wanted], of T */
    int64_t num_tokens, num_spans, table_stride, num_wanted;
} Step;

typedef struct {
    const Decoder *decoder;
    const Workspace *workspace;
    const Step *step;
} Run;

typedef struct {
    const Run *run;
    const Layer *layer;
} RunLayer;

/* Queries and keys normalised, where the layer does so, and rotated; keys and values stored. */
static void place_tokens(const void *argument, int64_t begin, int64_t end) {
    const RunLayer *at = argument;
    const Decoder *decoder = at->run->decoder;
    const Step *step = at->run->step;
    const Workspace *work = at->run->workspace;
    const Layer *layer = at->layer;
    const int64_t head_dim = decoder->head_dim, q_size = decoder->num_heads * head_dim;
    for (int64_t t = begin; t < end; t++) {
        float *q = work->qkv + t * work->qkv_stride, *k = q + q_size;
        if (layer->q_norm) {
            const Norm q_norm = {q, 0, layer->q_norm, q, 0, decoder->num_heads,
                                 head_dim, head_dim, head_dim, decoder->eps};
            const Norm k_norm = {k, 0, layer->k_norm, k, 0, decoder->num_kv_heads,
                                 head_dim, head_dim, head_dim, decoder->eps};
            tgi_norm_work(&q_norm).run(&q_norm, 0, q_norm.rows);
            tgi_norm_work(&k_norm).run(&k_norm, 0, k_norm.rows);
        }
        tgi_rotate_token(q, step->cos + t * head_dim, step->signed_sin + t * head_dim,
                         decoder->num_heads + decoder->num_kv_heads, head_dim / 2);
        tgi_kv_store_token(layer->cache, k, step->slots[t]);
    }
}

typedef struct {
    const float *x;
    float *y;
    const int64_t *order; /* [k]: y[i] = x[order[i]] */
    int64_t k, x_stride, y_stride;
} Gather;

static void gather_rows(const void *argument, int64_t begin, int64_t end) {
    const Gather *gather = argument;
    for (int64_t row = begin; row < end; row++) {
        const float *x = gather->x + row * gather->x_stride;
        float *y = gather->y + row * gather->y_stride;
        for (int64_t i = 0; i < gather->k; i++) y[i] = x[gather->order[i]];
    }
}

/* Bring a product's input into the order of its weight, if that has one of its own. */
static void put_in_order(const Run *run, const int64_t *order, Product *product) {
    if (!order) return;
    const Workspace *work = run->workspace;
    const Gather gather = {product->x, work->ordered, order,
                           product->weight->k, product->x_stride, work->ordered_stride};
    tgi_team_share((TgiWork){product->rows, gather_rows, &gather});
    product->x = work->ordered;
    product->x_stride = work->ordered_stride;
}

static Norm norm_of(const Run *run, const float *weight) {
    const Decoder *decoder = run->decoder;
    return (Norm){run->step->residual, 0, weight, run->workspace->normed, 0,
                  run->step->num_tokens, decoder->hidden, decoder->hidden,
                  run->workspace->normed_stride, decoder->eps};
}

static void run_layers(void *argument) {
    const Run *run = argument;
    const Decoder *decoder = run->decoder;
    const Workspace *work = run->workspace;
    const Step *step = run->step;
    const int64_t rows = step->num_tokens, hidden = decoder->hidden;

    const Norm first = norm_of(run, decoder->layers[0].input_norm);
    tgi_team_share(tgi_norm_work(&first));
    for (int64_t i = 0; i < decoder->num_layers; i++) {
        const Layer *layer = decoder->layers + i;
        const int is_last = i + 1 == decoder->num_layers;
        const RunLayer place = {run, layer};
        Product qkv = {layer->qkv, work->normed, work->qkv, rows,
                             work->normed_stride, work->qkv_stride, STORE};
        const Attention attention = {
            .q = work->qkv,
            .cache = layer->cache,
            .out = work->attended,
            .block_tables = step->block_tables,
            .spans = step->spans,
            .q_stride = work->qkv_stride,
            .out_stride = work->attended_stride,
            .table_stride = step->table_stride,
            .num_spans = step->num_spans,
            .num_heads = decoder->num_heads,
            .sliding_window = layer->is_windowed ? decoder->sliding_window : 0,
            .scale = decoder->scale,
        };
        Product out = {layer->out, work->attended, step->residual, rows,
                             work->attended_stride, hidden, ADD};
        const Norm feed_forward = norm_of(run, layer->feed_forward_norm);
        Product gate_up = {layer->gate_up, work->normed, work->gated, rows,
                                 work->normed_stride, work->gated_stride, GATE};
        Product down = {layer->down, work->gated, step->residual, rows,
                              work->gated_stride, hidden, ADD};
        Norm next = norm_of(run, is_last ? decoder->final_norm : layer[1].input_norm);
        if (is_last) {
            next.indices = step->wanted;
            next.rows = step->num_wanted;
            next.y = step->hidden;
            next.y_stride = hidden;
        }
        put_in_order(run, layer->qkv_order, &qkv);
        tgi_team_share_both(tgi_linear_work(&qkv), (TgiWork){rows, place_tokens, &place});
        tgi_team_share(tgi_attention_work(&attention));
        put_in_order(run, layer->out_order, &out);
        tgi_team_share_both(tgi_linear_work(&out), tgi_norm_work(&feed_forward));
        put_in_order(run, layer->gate_up_order, &gate_up);
        tgi_team_share(tgi_linear_work(&gate_up));
        put_in_order(run, layer->down_order, &down);
        tgi_team_share_both(tgi_linear_work(&down), tgi_norm_work(&next));
    }
}

void tgi_decoder_run(const Decoder *decoder, const Workspace *workspace, const Step *step) {
    Run run = {decoder, workspace, step};
    if (step->num_tokens > 0) tgi_team_run(run_layers, &run);
}
