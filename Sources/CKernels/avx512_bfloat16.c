// The AVX-512 bfloat16 kernels: 6 rows × 64 columns of float32 sums are 24 of the 32 registers.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)

#include "exp_table.h"

#define TABLE_LOOKUP(n)                                                                               \
  (i16)_mm512_permutex2var_epi32(_mm512_load_si512(exp_table), (__m512i)(n), _mm512_load_si512(exp_table + 16))
#define PAIR_PRODUCT(sum, a, b) (v16)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(a), (__m512bh)(b))
#define ROUND_SIXTEEN(x) __builtin_bit_cast(h16, _mm512_cvtneps_pbh((__m512)(x)))
#define ROUND_TWO(first, second) (i16)_mm512_cvtne2ps_pbh((__m512)(second), (__m512)(first))

#define ANNULUS_SET avx512
#define PANEL_VECTORS 4
#define ROWS_1 14
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#define ACCUMULATORS 24
#include "bfloat16_generic.h"

#pragma clang attribute pop
#endif
