// The AVX2 + FMA kernels: 6 rows × 16 columns are 12 of the 16 registers.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)

#include "exp_table.h"

// Four permutations of eight entries each and three blends: a gather costs several times as much.
static inline __attribute__((always_inline)) __m256i lookup_eight(__m256i n) {
  const __m256i *table = (const __m256i *)exp_table;
  const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(n, 28)), bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(n, 27));
  __m256 part[4];
  for (int i = 0; i < 4; i++)
    part[i] = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(_mm256_load_si256(table + i), n));
  const __m256 low = _mm256_blendv_ps(part[0], part[1], bit3), high = _mm256_blendv_ps(part[2], part[3], bit3);
  return _mm256_castps_si256(_mm256_blendv_ps(low, high, bit4));
}
#define TABLE_LOOKUP(n)                                                  \
  __builtin_shufflevector((i8)lookup_eight((__m256i)(n).lo), (i8)lookup_eight((__m256i)(n).hi), \
                          0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

#define ANNULUS_SET avx2
#define PANEL_VECTORS 1
#define ROWS_1 6
#define ACCUMULATORS 6
#define TILE_ROWS 24
#define OWN_BLOCKS "avx2_blocks.h"
#include "kernels_generic.h"

#include "gradients_generic.h"

#include "flushing.h"

#include "bfloat16_generic.h"

#pragma clang attribute pop
#endif
