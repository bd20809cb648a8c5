// The bfloat16 kernels of processors that have AVX-512 without its bfloat16 instructions: 6 rows × 64 columns are 24 of the 32
// registers.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)

#include "exp_table.h"

#define TABLE_LOOKUP(n)                                                                               \
  (i16)_mm512_permutex2var_epi32(_mm512_load_si512(exp_table), (__m512i)(n), _mm512_load_si512(exp_table + 16))
#include "flushing.h"

#define ANNULUS_SET avx512_widened
#define PANEL_VECTORS 4
#define ROWS_1 14
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#define ACCUMULATORS 24
#include "bfloat16_generic.h"

#pragma clang attribute pop
#endif
