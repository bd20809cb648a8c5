// The AVX-512 bfloat16 kernels, where the processor has instructions for them.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include "avx512_blocks.h"

#pragma clang attribute push(__attribute__((target("avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)

#define PAIR_PRODUCT(sum, a, b) (v16)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(a), (__m512bh)(b))
#define ROUND_SIXTEEN(x) __builtin_bit_cast(h16, _mm512_cvtneps_pbh((__m512)(x)))
#define ROUND_TWO(first, second) (i16)_mm512_cvtne2ps_pbh((__m512)(second), (__m512)(first))

#define ANNULUS_SET avx512
#include "bfloat16_generic.h"

#pragma clang attribute pop
#endif
