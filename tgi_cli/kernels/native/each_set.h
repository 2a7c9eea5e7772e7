/* Compile TGI_ROWS for each instruction set: simd.h. */
#include "simd.h"

#define ISA(name) name##_portable
#include "vectors.h"
#include TGI_ROWS
#undef ISA

#if TGI_HAS_SETS

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define ISA(name) name##_avx2
#include "vectors.h"
#include TGI_ROWS
#undef ISA
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define ISA(name) name##_avx512
#include "vectors.h"
#include TGI_ROWS
#undef ISA
#pragma GCC pop_options

#endif

#undef TGI_ROWS
