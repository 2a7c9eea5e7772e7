/* The tiles of every instruction set, and which set this machine uses: tiles.h. */
#include "tiles.h"

#include <string.h>

#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { AHEAD = 8192 }; /* bytes to prefetch: tried with 2048 to 32768 on a Zen 5 */
enum { MAX_TILE_ROWS = 14 };

/* The bits of an fp8 number, moved to where an fp32 number has them, mean that much less: exponents
 * have another bias. Subnormals come out right too. */
#define FP8_UNIT 0x1p120f

typedef struct {
    const char *name;
    int max_rows[2]; /* of a tile: of floats, of codes */
    int panels[2][MAX_TILE_ROWS + 1]; /* that a tile of so many rows can take at once */
    void (*rows[NUM_KERNELS])(Tile tile, int rows, int panels);
    void (*widen[NUM_KERNELS])(const Tile *tile, float *out); /* of codes */
} InstructionSet;

/* Without any set: GCC's vectors of four, which SSE, NEON and others have. */
typedef float vec_portable __attribute__((vector_size(16)));
typedef uint32_t vec_portable_bits __attribute__((vector_size(16)));

TGI_INLINE vec_portable all_portable(float x) { return (vec_portable){x, x, x, x}; }

TGI_INLINE vec_portable load_f32_portable(const char *p) {
    vec_portable x;
    memcpy(&x, p, sizeof x);
    return x;
}

TGI_INLINE vec_portable_bits load_16_portable(const char *p) {
    uint16_t x[4];
    memcpy(x, p, sizeof x);
    return (vec_portable_bits){x[0], x[1], x[2], x[3]};
}

TGI_INLINE vec_portable load_bf16_portable(const char *p) {
    return (vec_portable)(load_16_portable(p) << 16);
}

TGI_INLINE vec_portable load_f16_portable(const char *p) {
    const vec_portable_bits bits = load_16_portable(p);
    const vec_portable_bits magnitude = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
    /* The exponent's bias is 112 less: a product, so that subnormals come out normal. */
    const vec_portable scaled = (vec_portable)magnitude * 0x1p112f;
    const vec_portable_bits is_huge = (vec_portable_bits)(magnitude >= (0x7c00u << 13));
    const vec_portable_bits huge = magnitude | 0x7f800000u; /* infinity and NaN */
    return (vec_portable)(((is_huge & huge) | (~is_huge & (vec_portable_bits)scaled)) | sign);
}

TGI_INLINE vec_portable load_int8_portable(const char *p) {
    int8_t x[4];
    memcpy(x, p, sizeof x);
    return (vec_portable){x[0], x[1], x[2], x[3]};
}

TGI_INLINE vec_portable load_fp8_portable(const char *p) {
    uint8_t x[4];
    memcpy(x, p, sizeof x);
    const vec_portable_bits bits = {x[0], x[1], x[2], x[3]};
    return (vec_portable)((bits & 0x7f) << 20 | (bits & 0x80) << 24) * FP8_UNIT;
}

typedef vec_portable_bits words_portable;
typedef const float *table_portable;

TGI_INLINE words_portable load_words_portable(const char *p) {
    words_portable x;
    memcpy(&x, p, sizeof x);
    return x;
}

TGI_INLINE words_portable shift_words_portable(words_portable x, int bits) { return x >> bits; }

TGI_INLINE vec_portable int4_values_portable(words_portable x, int n, int unused) {
    (void)unused;
    typedef int32_t integers __attribute__((vector_size(16)));
    return __builtin_convertvector((integers)(x >> (4 * n) & 15), vec_portable);
}

TGI_INLINE table_portable load_table_portable(const float *table) { return table; }

TGI_INLINE vec_portable table4_values_portable(words_portable x, int n, table_portable table) {
    const words_portable i = x >> (4 * n) & 15;
    return (vec_portable){table[i[0]], table[i[1]], table[i[2]], table[i[3]]};
}

#define ISA(name) name##_portable
#define NAME "portable vectors"
#define TARGET
#define LANES 4
#define EACH_TILE(T, ...) T(1, 4, __VA_ARGS__) T(2, 4, __VA_ARGS__) T(3, 2, __VA_ARGS__) T(4, 2, __VA_ARGS__)
#define EACH_CODES_TILE(T, ...) T(1, 4, __VA_ARGS__) T(2, 2, __VA_ARGS__)
#include "tile.h"

#if defined(__x86_64__)

typedef float vec_avx2 __attribute__((vector_size(32)));
#define AVX2 __attribute__((target("avx2,fma,f16c")))

AVX2 TGI_INLINE vec_avx2 all_avx2(float x) { return _mm256_set1_ps(x); }

AVX2 TGI_INLINE vec_avx2 load_f32_avx2(const char *p) { return _mm256_loadu_ps((const float *)p); }

AVX2 TGI_INLINE vec_avx2 load_f16_avx2(const char *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

AVX2 TGI_INLINE vec_avx2 load_bf16_avx2(const char *p) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

AVX2 TGI_INLINE vec_avx2 load_int8_avx2(const char *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

AVX2 TGI_INLINE vec_avx2 load_fp8_avx2(const char *p) {
    const __m256i codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
    const __m256i mask = _mm256_set1_epi32((int)0x87f00000);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(codes, 20), mask)) * FP8_UNIT;
}

typedef __m256i words_avx2;

AVX2 TGI_INLINE words_avx2 load_words_avx2(const char *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

AVX2 TGI_INLINE words_avx2 shift_words_avx2(words_avx2 x, int bits) {
    return _mm256_srl_epi32(x, _mm_cvtsi32_si128(bits));
}

AVX2 TGI_INLINE vec_avx2 int4_values_avx2(words_avx2 x, int n, int unused) {
    (void)unused;
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, 4 * n), _mm256_set1_epi32(15)));
}

typedef struct {
    __m256 low, high;
} table_avx2;

AVX2 TGI_INLINE table_avx2 load_table_avx2(const float *table) {
    return (table_avx2){_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8)};
}

/* A permutation reads the lowest three bits of an index, a blend the highest of all: the fourth. */
AVX2 TGI_INLINE vec_avx2 table4_values_avx2(words_avx2 x, int n, table_avx2 table) {
    const __m256i codes = _mm256_srli_epi32(x, 4 * n);
    const __m256i fourth = n < 7 ? _mm256_slli_epi32(x, 28 - 4 * n) : x;
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, codes),
                            _mm256_permutevar8x32_ps(table.high, codes),
                            _mm256_castsi256_ps(fourth));
}

#define ISA(name) name##_avx2
#define NAME "AVX2"
#define TARGET AVX2
#define LANES 8
#define EACH_TILE(T, ...)                                                              \
    T(1, 8, __VA_ARGS__) T(2, 4, __VA_ARGS__) T(3, 2, __VA_ARGS__) T(4, 2, __VA_ARGS__) \
    T(5, 2, __VA_ARGS__) T(6, 2, __VA_ARGS__)
#define EACH_CODES_TILE(T, ...)                                                        \
    T(1, 4, __VA_ARGS__) T(2, 4, __VA_ARGS__) T(3, 2, __VA_ARGS__) T(4, 2, __VA_ARGS__) \
    T(5, 2, __VA_ARGS__)
#include "tile.h"

typedef float vec_avx512 __attribute__((vector_size(64)));
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

AVX512 TGI_INLINE vec_avx512 all_avx512(float x) { return _mm512_set1_ps(x); }

AVX512 TGI_INLINE vec_avx512 load_f32_avx512(const char *p) { return _mm512_loadu_ps(p); }

AVX512 TGI_INLINE vec_avx512 load_f16_avx512(const char *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

AVX512 TGI_INLINE vec_avx512 load_bf16_avx512(const char *p) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

AVX512 TGI_INLINE vec_avx512 load_int8_avx512(const char *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

AVX512 TGI_INLINE vec_avx512 load_fp8_avx512(const char *p) {
    const __m512i codes = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
    const __m512i mask = _mm512_set1_epi32((int)0x87f00000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_slli_epi32(codes, 20), mask)) * FP8_UNIT;
}

typedef __m512i words_avx512;
typedef __m512 table_avx512;

AVX512 TGI_INLINE words_avx512 load_words_avx512(const char *p) { return _mm512_loadu_si512(p); }

AVX512 TGI_INLINE words_avx512 shift_words_avx512(words_avx512 x, int bits) {
    return _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits));
}

AVX512 TGI_INLINE table_avx512 load_table_avx512(const float *table) {
    return _mm512_loadu_ps(table);
}

/* A permutation of 16 floats is a table of 16; it reads the lowest four bits of each index. */
AVX512 TGI_INLINE vec_avx512 table4_values_avx512(words_avx512 x, int n, table_avx512 table) {
    return _mm512_permutexvar_ps(n ? _mm512_srli_epi32(x, 4 * n) : x, table);
}

AVX512 TGI_INLINE vec_avx512 int4_values_avx512(words_avx512 x, int n, int unused) {
    (void)unused;
    const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return table4_values_avx512(x, n, table);
}

#define ISA(name) name##_avx512
#define NAME "AVX-512"
#define TARGET AVX512
#define LANES 16
#define EACH_TILE(T, ...)                                                                 \
    T(1, 8, __VA_ARGS__) T(2, 4, __VA_ARGS__) T(3, 4, __VA_ARGS__) T(4, 4, __VA_ARGS__)   \
    T(5, 4, __VA_ARGS__) T(6, 4, __VA_ARGS__) T(7, 2, __VA_ARGS__) T(8, 2, __VA_ARGS__)   \
    T(9, 2, __VA_ARGS__) T(10, 2, __VA_ARGS__) T(11, 2, __VA_ARGS__) T(12, 2, __VA_ARGS__) \
    T(13, 2, __VA_ARGS__) T(14, 2, __VA_ARGS__)
#define EACH_CODES_TILE(T, ...)                                                           \
    T(1, 8, __VA_ARGS__) T(2, 4, __VA_ARGS__) T(3, 4, __VA_ARGS__) T(4, 4, __VA_ARGS__)   \
    T(5, 4, __VA_ARGS__) T(6, 2, __VA_ARGS__) T(7, 2, __VA_ARGS__) T(8, 2, __VA_ARGS__)   \
    T(9, 2, __VA_ARGS__) T(10, 2, __VA_ARGS__) T(11, 2, __VA_ARGS__) T(12, 2, __VA_ARGS__)
#include "tile.h"

#endif

static const InstructionSet *const all_sets[] = {
    &set_portable,
#if defined(__x86_64__)
    &set_avx2,
    &set_avx512,
#endif
};

static int is_supported(int index) {
    switch (index) {
        case 0: return 1;
#if defined(__x86_64__)
        case 1: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("f16c");
        case 2: return is_supported(1) && __builtin_cpu_supports("avx512f") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512dq");
#endif
        default: return 0;
    }
}

static const InstructionSet *chosen = &set_portable;
int tgi_set; /* its number */

/* Use the best set up to number `best`, counted from the portable one; return its name. */
const char *tgi_choose_instruction_set(int best) {
    for (int index = 0; index <= best; index++)
        if (is_supported(index)) tgi_set = index;
    chosen = all_sets[tgi_set];
    return chosen->name;
}

const char *tgi_instruction_set(void) { return chosen->name; }

__attribute__((constructor)) static void choose_the_best(void) { tgi_choose_instruction_set(2); }

static int is_code(Kernel kernel) { return kernel > WIDENED; }

int tgi_tile_rows(Kernel kernel) { return chosen->max_rows[is_code(kernel)]; }

int tgi_tile_panels(Kernel kernel, int64_t rows) {
    return rows <= tgi_tile_rows(kernel) ? chosen->panels[is_code(kernel)][rows] : 1;
}

void tgi_tiles(Kernel kernel, const Tile *tile, int64_t rows, int64_t panels) {
    const int64_t max_rows = tgi_tile_rows(kernel), tiles = (rows + max_rows - 1) / max_rows;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
        Tile part = *tile;
        part.x += begin * tile->x_stride;
        part.out += begin * tile->stride;
        if (tile->x_sums) part.x_sums += begin * tile->x_sums_stride;
        chosen->rows[kernel](part, (int)(end - begin), (int)panels);
    }
}

void tgi_widen(Kernel kernel, const Tile *tile, float *out) { chosen->widen[kernel](tile, out); }
