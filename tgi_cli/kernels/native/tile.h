/* The tiles of a product for one instruction set. tiles.c includes this once for each, having
 * defined
 *
 *     ISA(name), NAME     the name with the set's suffix; the set's name
 *     TARGET              the attribute that lets the compiler use the set
 *     LANES, ISA(vec)     floats in a vector, and its type
 *     EACH_TILE(T, ...)   T(rows, vectors, ...) for each number of rows that a tile may have, from 1 up;
 *     EACH_SCALED_TILE    the same for weights whose scales need registers too
 *
 * and ISA(all), which makes a vector of one number, the loads
 * ISA(load_f32|f16|bf16|int8|int4|fp8), ISA(table), a table of 16 floats, and
 * ISA(load_table|look_up). A tile is `rows` rows times `vectors` vectors of columns:
 * several panels, one, or a part of one. Its sums stay in registers while k runs: one chain of
 * fused multiply-adds for each output element, from the first k to the last, whatever the tile,
 * put or added to what is there. So a row's bits don't depend on its company, nor on the
 * instruction set.
 *
 * `rows` and `vectors` are constants wherever a tile is inlined, and each loop over them is
 * unrolled; otherwise the compiler keeps the sums in memory, which costs a factor of three.
 */

#define VEC ISA(vec)
#define PER_PANEL (PANEL / LANES)
#define EACH_ROW(i) _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
#define EACH_VECTOR(j) _Pragma("GCC unroll 16") for (int j = 0; j < vectors; j++)

/* Where vector j of a tile stands among its columns. The codes of INT4 lie in pairs 16 columns apart. */
#define PLAIN_COLUMN(j) ((first + (j)) * LANES)
#define INT4_PAIR(j) (first + (j) / 2 % (PER_PANEL / 2))
#define INT4_PANEL(j) ((j) / PER_PANEL)
#define INT4_COLUMN(j) (INT4_PANEL(j) * PANEL + INT4_PAIR(j) * LANES + (j) % 2 * 16)

#define NO_SUMS               \
    VEC sums[MAX_TILE_ROWS][8]; \
    EACH_ROW(i) EACH_VECTOR(j) sums[i][j] = (VEC){0};
#define PUT_SUMS(COLUMN)                                               \
    EACH_ROW(i) EACH_VECTOR(j) {                                       \
        float *to = t->out + i * t->stride + COLUMN(j);                \
        if (t->adds) {                                                 \
            VEC before;                                                \
            memcpy(&before, to, sizeof before);                        \
            sums[i][j] = before + sums[i][j];                          \
        }                                                              \
        memcpy(to, &sums[i][j], sizeof(VEC));                          \
    }
#define ADD_PRODUCTS                                      \
    EACH_ROW(i) {                                         \
        const VEC a = ISA(all)(x[i * x_stride + k]);      \
        EACH_VECTOR(j) sums[i][j] += a * b[j];            \
    }

/* The codes that this k is AHEAD of. The hardware's own prefetching ends at each page. */
#define PREFETCH(bytes)                                                                \
    for (int p = 0; p < (vectors > PER_PANEL ? vectors / PER_PANEL : 1); p++)          \
        for (int line = 0; line < (bytes); line += 64)                                 \
            __builtin_prefetch(w + p * panel_bytes + line + AHEAD);

#define UNPACK_TILE                        \
    const float *x = t->x;                 \
    const int64_t x_stride = t->x_stride;  \
    const char *w = t->w;                  \
    const int64_t panel_bytes = t->panel_bytes;

#define PLAIN_TILE(format, size)                                                                \
    TARGET TGI_INLINE void ISA(tile_##format)(const Tile *t, const int rows,               \
                                              const int vectors, const int first) {             \
        UNPACK_TILE                                                                             \
        NO_SUMS                                                                 \
        w += first * LANES * size;                                                              \
        for (int64_t k = 0; k < t->k; k++) {                                                    \
            VEC b[8];                                                                           \
            PREFETCH(PANEL * size)                                                              \
            EACH_VECTOR(j)                                                                      \
            b[j] = ISA(load_##format)(w + j / PER_PANEL * panel_bytes +                         \
                                      j % PER_PANEL * LANES * size);                            \
            ADD_PRODUCTS                                                                        \
            w += PANEL * size;                                                                  \
        }                                                                                       \
        PUT_SUMS(PLAIN_COLUMN)                                                                \
    }

/* INT8 and FP8: weight = code * scale; a group's scales stay in registers. */
#define BYTE_TILE(code, scale_format, scale_size)                                               \
    TARGET TGI_INLINE void ISA(tile_##code##_##scale_format)(const Tile *t, const int rows,     \
                                                         const int vectors, const int first) {  \
        UNPACK_TILE                                                                             \
        const char *group = t->scales + first * LANES * scale_size;                             \
        NO_SUMS                                                                                 \
        w += first * LANES;                                                                     \
        for (int64_t begin = 0, end; begin < t->k; begin = end) {                               \
            end = begin + t->group_size - (t->first_k + begin) % t->group_size;                 \
            if (end > t->k) end = t->k;                                                         \
            VEC scales[8];                                                                      \
            EACH_VECTOR(j)                                                                      \
            scales[j] = ISA(load_##scale_format)(group + j / PER_PANEL * t->panel_scales +      \
                                                 j % PER_PANEL * LANES * scale_size);           \
            for (int64_t k = begin; k < end; k++) {                                             \
                VEC b[8];                                                                       \
                PREFETCH(PANEL)                                                                 \
                EACH_VECTOR(j)                                                                  \
                b[j] = scales[j] * ISA(load_##code)(w + j / PER_PANEL * panel_bytes +           \
                                                  j % PER_PANEL * LANES);                       \
                ADD_PRODUCTS                                                                    \
                w += PANEL;                                                                     \
            }                                                                                   \
            group += PANEL * scale_size;                                                        \
        }                                                                                       \
        PUT_SUMS(PLAIN_COLUMN)                                                                  \
    }

/* INT4: weight = code * scale + offset, rounded once. */
#define INT4_TILE(scale_format, scale_size)                                                     \
    TARGET TGI_INLINE void ISA(tile_int4_##scale_format)(const Tile *t, const int rows,    \
                                                         const int vectors, const int first) {  \
        UNPACK_TILE                                                                             \
        const char *scale = t->scales, *offset = t->offsets;                                    \
        NO_SUMS                                                                  \
        for (int64_t begin = 0, end; begin < t->k; begin = end) {                               \
            end = begin + t->group_size - (t->first_k + begin) % t->group_size;                 \
            if (end > t->k) end = t->k;                                                         \
            VEC scales[8], offsets[8];                                                          \
            EACH_VECTOR(j) {                                                                    \
                const int64_t at = INT4_PANEL(j) * t->panel_scales +                            \
                                   (INT4_COLUMN(j) - INT4_PANEL(j) * PANEL) * scale_size;       \
                scales[j] = ISA(load_##scale_format)(scale + at);                               \
                offsets[j] = ISA(load_##scale_format)(offset + at);                             \
            }                                                                                   \
            for (int64_t k = begin; k < end; k++) {                                             \
                VEC b[8];                                                                       \
                PREFETCH(PANEL / 2)                                                             \
                _Pragma("GCC unroll 16") for (int j = 0; j < vectors; j += 2) {                 \
                    VEC codes[2];                                                               \
                    ISA(load_int4)(w + INT4_PANEL(j) * panel_bytes + INT4_PAIR(j) * LANES,      \
                                   codes);                                                      \
                    b[j] = codes[0] * scales[j] + offsets[j];                                   \
                    b[j + 1] = codes[1] * scales[j + 1] + offsets[j + 1];                       \
                }                                                                               \
                ADD_PRODUCTS                                                                    \
                w += PANEL / 2;                                                                 \
            }                                                                                   \
            scale += PANEL * scale_size;                                                        \
            offset += PANEL * scale_size;                                                       \
        }                                                                                       \
        PUT_SUMS(INT4_COLUMN)                                                                 \
    }

/* TABLE4: weight = table[code] * scale. */
#define TABLE4_TILE(scale_format, scale_size)                                                   \
    TARGET TGI_INLINE void ISA(tile_table4_##scale_format)(const Tile *t, const int rows,       \
                                                           const int vectors, const int first) {\
        UNPACK_TILE                                                                             \
        const char *scale = t->scales;                                                          \
        const ISA(table) table = ISA(load_table)(t->table);                                     \
        NO_SUMS                                                                                 \
        for (int64_t begin = 0, end; begin < t->k; begin = end) {                               \
            end = begin + t->group_size - (t->first_k + begin) % t->group_size;                 \
            if (end > t->k) end = t->k;                                                         \
            VEC scales[8];                                                                      \
            EACH_VECTOR(j) {                                                                    \
                const int64_t at = INT4_PANEL(j) * t->panel_scales +                            \
                                   (INT4_COLUMN(j) - INT4_PANEL(j) * PANEL) * scale_size;       \
                scales[j] = ISA(load_##scale_format)(scale + at);                               \
            }                                                                                   \
            for (int64_t k = begin; k < end; k++) {                                             \
                VEC b[8];                                                                       \
                PREFETCH(PANEL / 2)                                                             \
                _Pragma("GCC unroll 16") for (int j = 0; j < vectors; j += 2) {                 \
                    VEC values[2];                                                              \
                    ISA(look_up)(w + INT4_PANEL(j) * panel_bytes + INT4_PAIR(j) * LANES,        \
                                 table, values);                                                \
                    b[j] = values[0] * scales[j];                                               \
                    b[j + 1] = values[1] * scales[j + 1];                                       \
                }                                                                               \
                ADD_PRODUCTS                                                                    \
                w += PANEL / 2;                                                                 \
            }                                                                                   \
            scale += PANEL * scale_size;                                                        \
        }                                                                                       \
        PUT_SUMS(INT4_COLUMN)                                                                   \
    }

PLAIN_TILE(f32, 4)
PLAIN_TILE(f16, 2)
PLAIN_TILE(bf16, 2)
BYTE_TILE(int8, f32, 4)
BYTE_TILE(int8, f16, 2)
BYTE_TILE(fp8, f32, 4)
INT4_TILE(f32, 4)
INT4_TILE(f16, 2)
TABLE4_TILE(f32, 4)

/* `rows` rows of `panels` panels: in one tile where they fill it, else panel by panel, and a panel
 * in as many tiles as it needs. UNIT is the number of vectors that `first` counts: those of a pair
 * for INT4 and TABLE4. */
#define ROWS_CASE(number, vectors, tile, UNIT)                                                  \
    case number:                                                                                \
        if (vectors > PER_PANEL && panels * PER_PANEL == vectors) {                             \
            tile(&t, number, vectors, 0);                                                       \
            break;                                                                              \
        }                                                                                       \
        if (vectors > 2 * PER_PANEL && panels == 2) {                                           \
            tile(&t, number, 2 * PER_PANEL, 0);                                                 \
            break;                                                                              \
        }                                                                                       \
        for (int p = 0; p < panels; p++) {                                                      \
            enum { PART = vectors < PER_PANEL ? vectors : PER_PANEL };                          \
            for (int first = 0; first < PER_PANEL / UNIT; first += PART / UNIT)                 \
                tile(&t, number, PART, first);                                                  \
            t.w += t.panel_bytes;                                                               \
            t.scales += t.panel_scales;                                                         \
            t.offsets += t.panel_scales;                                                        \
            t.out += PANEL;                                                                     \
        }                                                                                       \
        break;

#define ROWS_FUNCTION(format, EACH, UNIT)                                                       \
    TARGET static void ISA(rows_##format)(Tile t, int rows, int panels) {                       \
        switch (rows) { EACH(ROWS_CASE, ISA(tile_##format), UNIT) }                             \
    }

ROWS_FUNCTION(f32, EACH_TILE, 1)
ROWS_FUNCTION(f16, EACH_TILE, 1)
ROWS_FUNCTION(bf16, EACH_TILE, 1)
ROWS_FUNCTION(int8_f32, EACH_SCALED_TILE, 1)
ROWS_FUNCTION(int8_f16, EACH_SCALED_TILE, 1)
ROWS_FUNCTION(int4_f32, EACH_SCALED_TILE, 2)
ROWS_FUNCTION(int4_f16, EACH_SCALED_TILE, 2)
ROWS_FUNCTION(fp8_f32, EACH_SCALED_TILE, 1)
ROWS_FUNCTION(table4_f32, EACH_SCALED_TILE, 2)

/* Codes to floats, one panel: out [k][PANEL]. */
#define BYTE_WIDEN(code, scale_format, scale_size)                                              \
    TARGET static void ISA(widen_##code##_##scale_format)(const Tile *t, float *out) {          \
        const char *w = t->w, *group = t->scales;                                               \
        for (int64_t k = 0, end; k < t->k; group += PANEL * scale_size) {                       \
            VEC scales[PER_PANEL];                                                              \
            for (int j = 0; j < PER_PANEL; j++)                                                 \
                scales[j] = ISA(load_##scale_format)(group + j * LANES * scale_size);           \
            end = k + t->group_size - (t->first_k + k) % t->group_size;                         \
            for (; k < end && k < t->k; k++, w += PANEL)                                        \
                for (int j = 0; j < PER_PANEL; j++, out += LANES) {                             \
                    VEC value = scales[j] * ISA(load_##code)(w + j * LANES);                    \
                    memcpy(out, &value, sizeof value);                                          \
                }                                                                               \
        }                                                                                       \
    }

#define INT4_WIDEN(scale_format, scale_size)                                                    \
    TARGET static void ISA(widen_int4_##scale_format)(const Tile *t, float *out) {              \
        const char *w = t->w, *scale = t->scales, *offset = t->offsets;                         \
        for (int64_t k = 0, end; k < t->k;                                                      \
             scale += PANEL * scale_size, offset += PANEL * scale_size) {                       \
            VEC scales[PER_PANEL], offsets[PER_PANEL];                                          \
            for (int j = 0; j < PER_PANEL; j++) {                                               \
                scales[j] = ISA(load_##scale_format)(scale + j * LANES * scale_size);           \
                offsets[j] = ISA(load_##scale_format)(offset + j * LANES * scale_size);         \
            }                                                                                   \
            end = k + t->group_size - (t->first_k + k) % t->group_size;                         \
            for (; k < end && k < t->k; k++, w += PANEL / 2, out += PANEL)                      \
                for (int low = 0; low < PER_PANEL / 2; low++) {                                 \
                    const int high = low + PER_PANEL / 2;                                       \
                    VEC codes[2];                                                               \
                    ISA(load_int4)(w + low * LANES, codes);                                     \
                    VEC value = codes[0] * scales[low] + offsets[low];                          \
                    memcpy(out + low * LANES, &value, sizeof value);                            \
                    value = codes[1] * scales[high] + offsets[high];                            \
                    memcpy(out + high * LANES, &value, sizeof value);                           \
                }                                                                               \
        }                                                                                       \
    }

#define TABLE4_WIDEN(scale_format, scale_size)                                                  \
    TARGET static void ISA(widen_table4_##scale_format)(const Tile *t, float *out) {            \
        const char *w = t->w, *scale = t->scales;                                               \
        const ISA(table) table = ISA(load_table)(t->table);                                     \
        for (int64_t k = 0, end; k < t->k; scale += PANEL * scale_size) {                       \
            VEC scales[PER_PANEL];                                                              \
            for (int j = 0; j < PER_PANEL; j++)                                                 \
                scales[j] = ISA(load_##scale_format)(scale + j * LANES * scale_size);           \
            end = k + t->group_size - (t->first_k + k) % t->group_size;                         \
            for (; k < end && k < t->k; k++, w += PANEL / 2, out += PANEL)                      \
                for (int low = 0; low < PER_PANEL / 2; low++) {                                 \
                    const int high = low + PER_PANEL / 2;                                       \
                    VEC values[2];                                                              \
                    ISA(look_up)(w + low * LANES, table, values);                               \
                    values[0] = values[0] * scales[low];                                        \
                    memcpy(out + low * LANES, &values[0], sizeof values[0]);                    \
                    values[1] = values[1] * scales[high];                                       \
                    memcpy(out + high * LANES, &values[1], sizeof values[1]);                   \
                }                                                                               \
        }                                                                                       \
    }

BYTE_WIDEN(int8, f32, 4)
BYTE_WIDEN(int8, f16, 2)
BYTE_WIDEN(fp8, f32, 4)
INT4_WIDEN(f32, 4)
INT4_WIDEN(f16, 2)
TABLE4_WIDEN(f32, 4)

#define COUNT_TILE(number, vectors, ...) +1
#define PANELS_TILE(number, vectors, ...) vectors > PER_PANEL ? vectors / PER_PANEL : 1,

static const InstructionSet ISA(set) = {
    .name = NAME,
    .max_rows = {0 EACH_TILE(COUNT_TILE), 0 EACH_SCALED_TILE(COUNT_TILE)},
    .panels = {{1, EACH_TILE(PANELS_TILE)}, {1, EACH_SCALED_TILE(PANELS_TILE)}},
    .rows = {ISA(rows_f32), ISA(rows_f16), ISA(rows_bf16), ISA(rows_int8_f32), ISA(rows_int4_f32),
             ISA(rows_int8_f16), ISA(rows_int4_f16), ISA(rows_fp8_f32), ISA(rows_table4_f32)},
    .widen = {0, 0, 0, ISA(widen_int8_f32), ISA(widen_int4_f32), ISA(widen_int8_f16),
              ISA(widen_int4_f16), ISA(widen_fp8_f32), ISA(widen_table4_f32)},
};

#undef ISA
#undef NAME
#undef TARGET
#undef LANES
#undef EACH_TILE
#undef EACH_SCALED_TILE
#undef VEC
#undef PER_PANEL
#undef EACH_ROW
#undef EACH_VECTOR
#undef PLAIN_COLUMN
#undef INT4_PAIR
#undef INT4_PANEL
#undef INT4_COLUMN
#undef NO_SUMS
#undef PUT_SUMS
#undef ADD_PRODUCTS
#undef UNPACK_TILE
#undef PREFETCH
#undef PLAIN_TILE
#undef BYTE_TILE
#undef INT4_TILE
#undef TABLE4_TILE
#undef ROWS_CASE
#undef ROWS_FUNCTION
#undef BYTE_WIDEN
#undef INT4_WIDEN
#undef TABLE4_WIDEN
#undef COUNT_TILE
#undef PANELS_TILE
