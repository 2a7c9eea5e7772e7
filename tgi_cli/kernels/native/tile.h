/* The tiles of a product for one instruction set. tiles.c includes this once for each, having
 * defined
 *
 *     ISA(name), NAME     the name with the set's suffix; the set's name
 *     TARGET              the attribute that lets the compiler use the set
 *     LANES, ISA(vec)     floats in a vector, and its type
 *     EACH_TILE(T, ...)   T(rows, vectors, ...) for each number of rows that a tile may have, from 1 up;
 *     EACH_CODES_TILE     the same for codes, which need registers too
 *
 * and ISA(all), which makes a vector of one number, the loads ISA(load_f32|f16|bf16|int8|fp8),
 * ISA(words) with ISA(load_words|shift_words), and what four bits of each word stand for:
 * ISA(int4_values|table4_values), the latter by an ISA(table) of 16 floats from ISA(load_table).
 *
 * A tile is `rows` rows times `vectors` vectors of columns: several panels, one, or a part of one.
 * Its sums stay in registers while a block of k runs, one chain of fused multiply-adds for each
 * output element from the first k to the last, whatever the tile; then they are put or added to
 * what is there. So a row's bits don't depend on its company, nor on the instruction set.
 *
 * `rows` and `vectors` are constants wherever a tile is inlined, and each loop over them is
 * unrolled; otherwise the compiler keeps the sums in memory, which costs a factor of three.
 */

#define VEC ISA(vec)
#define PER_PANEL (PANEL / LANES)
#define EACH_ROW(i) _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
#define EACH_VECTOR(j) _Pragma("GCC unroll 16") for (int j = 0; j < vectors; j++)

/* Where vector j of a tile stands: its panel from the tile's first one, and its columns there. */
#define PANEL_OF(j) ((first + (j)) / PER_PANEL)
#define COLUMN_OF(j) ((first + (j)) % PER_PANEL * LANES)

#define NO_SUMS               \
    VEC sums[MAX_TILE_ROWS][8]; \
    EACH_ROW(i) EACH_VECTOR(j) sums[i][j] = (VEC){0};
#define PUT_SUMS(adds)                                                 \
    EACH_ROW(i) EACH_VECTOR(j) {                                       \
        float *to = t->out + i * t->stride + (first + j) * LANES;      \
        if (adds) {                                                    \
            VEC before;                                                \
            memcpy(&before, to, sizeof before);                        \
            sums[i][j] = before + sums[i][j];                          \
        }                                                              \
        memcpy(to, &sums[i][j], sizeof(VEC));                          \
    }
#define ADD_PRODUCTS(k)                                   \
    EACH_ROW(i) {                                         \
        const VEC a = ISA(all)(x[i * x_stride + k]);      \
        EACH_VECTOR(j) sums[i][j] += a * b[j];            \
    }

/* What comes after these numbers, as the tile says; the hardware's own prefetching ends at each
 * page. Panels of a tile are read side by side, so each is fetched so much less ahead. */
#define TILE_PANELS (vectors > PER_PANEL ? vectors / PER_PANEL : 1)
#define PREFETCH(from, bytes)                                                          \
    {                                                                                  \
        const char *ahead = (from) + ahead_bytes;                                      \
        if ((uintptr_t)ahead >= t->end) ahead += t->skip;                              \
        for (int p = 0; p < TILE_PANELS; p++)                                          \
            for (int line = 0; line < (bytes); line += 64)                             \
                __builtin_prefetch(ahead + p * t->ahead_stride + line);                \
    }

#define UNPACK_TILE                             \
    const float *x = t->x;                      \
    const int64_t x_stride = t->x_stride;       \
    const char *w = t->w;                       \
    const int64_t panel_bytes = t->panel_bytes; \
    const int64_t ahead_bytes = t->ahead ? t->ahead : AHEAD / TILE_PANELS;

/* One k of plain numbers or of codes of whole bytes. */
#define ADD_LINE(format, size)                                                                  \
    {                                                                                           \
        VEC b[8];                                                                               \
        PREFETCH(w, PANEL * size)                                                               \
        EACH_VECTOR(j)                                                                          \
        b[j] = ISA(load_##format)(w + PANEL_OF(j) * panel_bytes + COLUMN_OF(j) * size);         \
        ADD_PRODUCTS(k)                                                                         \
        w += PANEL * size;                                                                      \
    }

#define PLAIN_TILE(format, size)                                                                \
    TARGET TGI_INLINE void ISA(tile_##format)(const Tile *t, const int rows, const int vectors, \
                                              const int first) {                                \
        UNPACK_TILE                                                                             \
        for (int64_t k = 0; k < t->k;) {                                                        \
            const int adds = t->adds || k;                                                      \
            const int64_t end = tgi_block_end(t, k);                                            \
            NO_SUMS                                                                             \
            for (; k < end; k++) ADD_LINE(format, size)                                         \
            PUT_SUMS(adds)                                                                      \
        }                                                                                       \
    }

/* Sums over a part of a group, scaled: total += scale * sum + offset * sum of x. The totals of a
 * small tile stay in registers too, those of a large one in memory. */
#define KEEPS_TOTALS (rows * vectors <= 8)
#define LOAD_TOTAL(i, j) \
    memcpy(&totals[i][j], t->out + (i) * t->stride + (first + (j)) * LANES, sizeof(VEC));
#define STORE_TOTAL(i, j) \
    memcpy(t->out + (i) * t->stride + (first + (j)) * LANES, &totals[i][j], sizeof(VEC));
#define ADD_SCALED_SUMS                                                                         \
    EACH_VECTOR(j) {                                                                            \
        const int64_t at = PANEL_OF(j) * t->panel_scales + COLUMN_OF(j) * t->scale_size;        \
        const int64_t next = at + TILE_PANELS * t->panel_scales; /* of the next tile */         \
        const VEC scales = ISA(load_scales)(scale + at, t->scale_size);                         \
        VEC offsets = {0};                                                                      \
        __builtin_prefetch(scale + next);                                                       \
        if (offset) {                                                                           \
            offsets = ISA(load_scales)(offset + at, t->scale_size);                             \
            __builtin_prefetch(offset + next);                                                  \
        }                                                                                       \
        EACH_ROW(i) {                                                                           \
            if (!KEEPS_TOTALS) {                                                                \
                totals[i][j] = (VEC){0};                                                        \
                if (t->adds || part) LOAD_TOTAL(i, j)                                           \
            }                                                                                   \
            totals[i][j] += scales * sums[i][j];                                                \
            if (offset)                                                                         \
                totals[i][j] += offsets * ISA(all)(t->x_sums[i * t->x_sums_stride + part]);     \
            if (!KEEPS_TOTALS) STORE_TOTAL(i, j)                                                \
        }                                                                                       \
    }

#define CODES_TILE(code, ADD)                                                                   \
    TARGET TGI_INLINE void ISA(tile_##code)(const Tile *t, const int rows, const int vectors,   \
                                            const int first) {                                  \
        UNPACK_TILE                                                                             \
        const char *scale = t->scales, *offset = t->offsets;                                    \
        VEC totals[MAX_TILE_ROWS][8];                                                           \
        if (KEEPS_TOTALS) EACH_ROW(i) EACH_VECTOR(j) {                                          \
            totals[i][j] = (VEC){0};                                                            \
            if (t->adds) LOAD_TOTAL(i, j)                                                       \
        }                                                                                       \
        for (int64_t k = 0, part = 0; k < t->k; part++) {                                       \
            const int64_t end = tgi_part_end(t, k);                                             \
            NO_SUMS                                                                             \
            ADD                                                                                 \
            ADD_SCALED_SUMS                                                                     \
            if ((k % BLOCK_K && k < t->k) || (t->first_k + k) % t->group_size == 0) {            \
                scale += PANEL * t->scale_size;                                                 \
                if (offset) offset += PANEL * t->scale_size;                                    \
            }                                                                                   \
        }                                                                                       \
        if (KEEPS_TOTALS) EACH_ROW(i) EACH_VECTOR(j) STORE_TOTAL(i, j)                          \
    }

#define ADD_BYTES(code, size) for (; k < end; k++) ADD_LINE(code, size)

/* Four bits: a column's eight codes of eight k make a word, the first in its lowest bits. */
#define ADD_WORDS(values, table)                                                                \
    while (k < end) {                                                                           \
        ISA(words) words[8];                                                                    \
        VEC b[8];                                                                               \
        const char *line = w + k / 8 * (PANEL * 4);                                             \
        EACH_VECTOR(j)                                                                          \
        words[j] = ISA(load_words)(line + PANEL_OF(j) * panel_bytes + COLUMN_OF(j) * 4);        \
        if (k % 8 || k + 8 > end) {                                                             \
            EACH_VECTOR(j) b[j] = values(ISA(shift_words)(words[j], k % 8 * 4), 0, table);      \
            ADD_PRODUCTS(k)                                                                     \
            k++;                                                                                \
            continue;                                                                           \
        }                                                                                       \
        PREFETCH(line, PANEL * 4)                                                               \
        _Pragma("GCC unroll 8") for (int n = 0; n < 8; n++) {                                   \
            EACH_VECTOR(j) b[j] = values(words[j], n, table);                                   \
            ADD_PRODUCTS(k + n)                                                                 \
        }                                                                                       \
        k += 8;                                                                                 \
    }

TARGET TGI_INLINE VEC ISA(load_scales)(const char *p, int64_t size) {
    return size == 2 ? ISA(load_f16)(p) : ISA(load_f32)(p);
}

PLAIN_TILE(f32, 4)
PLAIN_TILE(f16, 2)
PLAIN_TILE(bf16, 2)
CODES_TILE(widened, ADD_BYTES(f32, 4))
CODES_TILE(int8, ADD_BYTES(int8, 1))
CODES_TILE(fp8, ADD_BYTES(fp8, 1))
CODES_TILE(int4, ADD_WORDS(ISA(int4_values), 0))
CODES_TILE(table4, const ISA(table) table = ISA(load_table)(t->table);
           ADD_WORDS(ISA(table4_values), table))

/* `rows` rows of `panels` panels: in one tile where they fill it, else panel by panel, and a panel
 * in as many tiles as it needs. */
#define ROWS_CASE(number, vectors, tile)                                                        \
    case number:                                                                                \
        if (vectors > PER_PANEL && panels * PER_PANEL == vectors) {                             \
            t.skip = t.last_skip;                                                               \
            tile(&t, number, vectors, 0);                                                       \
            break;                                                                              \
        }                                                                                       \
        if (vectors > 2 * PER_PANEL && panels == 2) {                                           \
            t.skip = t.last_skip;                                                               \
            tile(&t, number, 2 * PER_PANEL, 0);                                                 \
            break;                                                                              \
        }                                                                                       \
        for (int p = 0; p < panels; p++) {                                                      \
            if (p + 1 == panels) t.skip = t.last_skip;                                          \
            enum { PART = vectors < PER_PANEL ? vectors : PER_PANEL };                          \
            for (int first = 0; first < PER_PANEL; first += PART) tile(&t, number, PART, first);\
            t.w += t.panel_bytes;                                                               \
            t.end += t.panel_bytes;                                                             \
            t.scales += t.panel_scales;                                                         \
            if (t.offsets) t.offsets += t.panel_scales;                                         \
            t.out += PANEL;                                                                     \
        }                                                                                       \
        break;

#define ROWS_FUNCTION(format, EACH)                                                             \
    TARGET static void ISA(rows_##format)(Tile t, int rows, int panels) {                       \
        switch (rows) { EACH(ROWS_CASE, ISA(tile_##format)) }                                   \
    }

ROWS_FUNCTION(f32, EACH_TILE)
ROWS_FUNCTION(f16, EACH_TILE)
ROWS_FUNCTION(bf16, EACH_TILE)
ROWS_FUNCTION(widened, EACH_TILE)
ROWS_FUNCTION(int8, EACH_CODES_TILE)
ROWS_FUNCTION(fp8, EACH_CODES_TILE)
ROWS_FUNCTION(int4, EACH_CODES_TILE)
ROWS_FUNCTION(table4, EACH_CODES_TILE)

/* What one panel's codes stand for, without their scales: out [k][PANEL]. */
#define WIDEN_BYTES(code)                                                                       \
    TARGET static void ISA(widen_##code)(const Tile *t, float *out) {                           \
        for (int64_t i = 0; i < t->k * PANEL; i += LANES) {                                     \
            const VEC value = ISA(load_##code)(t->w + i);                                       \
            memcpy(out + i, &value, sizeof value);                                              \
        }                                                                                       \
    }
#define WIDEN_WORDS(code, TABLE)                                                                \
    TARGET static void ISA(widen_##code)(const Tile *t, float *out) {                           \
        TABLE                                                                                   \
        for (int64_t k = 0; k < t->k; k += 8)                                                   \
            for (int64_t column = 0; column < PANEL; column += LANES) {                         \
                const ISA(words) words = ISA(load_words)(t->w + (k * PANEL / 8 + column) * 4);  \
                _Pragma("GCC unroll 8") for (int n = 0; n < 8; n++) {                           \
                    const VEC value = ISA(code##_values)(words, n, table);                      \
                    memcpy(out + (k + n) * PANEL + column, &value, sizeof value);               \
                }                                                                               \
            }                                                                                   \
    }

WIDEN_BYTES(int8)
WIDEN_BYTES(fp8)
WIDEN_WORDS(int4, const int table = 0;)
WIDEN_WORDS(table4, const ISA(table) table = ISA(load_table)(t->table);)

#define COUNT_TILE(number, vectors, ...) +1
#define PANELS_TILE(number, vectors, ...) vectors > PER_PANEL ? vectors / PER_PANEL : 1,

static const InstructionSet ISA(set) = {
    .name = NAME,
    .max_rows = {0 EACH_TILE(COUNT_TILE), 0 EACH_CODES_TILE(COUNT_TILE)},
    .panels = {{1, EACH_TILE(PANELS_TILE)}, {1, EACH_CODES_TILE(PANELS_TILE)}},
    .rows = {ISA(rows_f32), ISA(rows_f16), ISA(rows_bf16), ISA(rows_widened), ISA(rows_int8),
             ISA(rows_fp8), ISA(rows_int4), ISA(rows_table4)},
    .widen = {0, 0, 0, 0, ISA(widen_int8), ISA(widen_fp8), ISA(widen_int4), ISA(widen_table4)},
};

#undef ISA
#undef NAME
#undef TARGET
#undef LANES
#undef EACH_TILE
#undef EACH_CODES_TILE
#undef VEC
#undef PER_PANEL
#undef EACH_ROW
#undef EACH_VECTOR
#undef PANEL_OF
#undef COLUMN_OF
#undef NO_SUMS
#undef PUT_SUMS
#undef ADD_PRODUCTS
#undef UNPACK_TILE
#undef TILE_PANELS
#undef PREFETCH
#undef ADD_LINE
#undef PLAIN_TILE
#undef KEEPS_TOTALS
#undef LOAD_TOTAL
#undef STORE_TOTAL
#undef ADD_SCALED_SUMS
#undef CODES_TILE
#undef ADD_BYTES
#undef ADD_WORDS
#undef ROWS_CASE
#undef ROWS_FUNCTION
#undef WIDEN_BYTES
#undef WIDEN_WORDS
#undef COUNT_TILE
#undef PANELS_TILE
