/* Functions that work on rows, sixteen floats at a time, compiled once for each instruction set.
 *
 * An operation has them in its rows.h, as `ISA(name)`, and its cpu.c names that file before it
 * includes each_set.h:
 *
 *     #define TGI_ROWS "../rms_norm/rows.h"
 *     #include "../native/each_set.h"
 *     ...
 *     ON_SET(norm_row)(x, ...);
 *
 * The text has to be compiled under each set's own options. A compiler that first sees it without
 * them, as with `target_clones`, takes sixteen floats apart before it knows better.
 */
#ifndef TGI_SIMD_H
#define TGI_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define TGI_INLINE static inline __attribute__((always_inline))

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

/* What vectors.h has, of the set that is being compiled. */
#define v16_load ISA(v16_load)
#define v16_store ISA(v16_store)
#define v16_all ISA(v16_all)
#define v16_select ISA(v16_select)
#define v16_half ISA(v16_half)
#define v8_half ISA(v8_half)
#define v16_sum ISA(v16_sum)
#define v16_max ISA(v16_max)
#define v16_exp ISA(v16_exp)
#define v16_silu ISA(v16_silu)

/* The set in use, from portable vectors up: tiles.c chooses. */
extern int tgi_set;

/* Clang has other pragmas: there the portable text serves all. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TGI_HAS_SETS 1
#define ON_SET(name) (tgi_set == 2 ? name##_avx512 : tgi_set == 1 ? name##_avx2 : name##_portable)
#else
#define TGI_HAS_SETS 0
#define ON_SET(name) name##_portable
#endif

#endif
