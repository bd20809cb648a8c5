// The terms of a register block of 6 rows × 16 columns in NEON's own words, four at a time.
//
// Of each row one load brings four terms, and multiply-adds take its lanes as they are: a broadcast from memory would cost a vector
// operation beside the load. 24 sums and 6 rows leave two registers, for 8 columns of the panel, or 4 columns and a mask. The
// compiler would load more at once and spill sums: the empty assembly, which names what it must finish first, keeps it from that.
#ifndef ANNULUS_NEON_TERMS_H
#define ANNULUS_NEON_TERMS_H

#include <arm_neon.h>

#include "vectors.h"

typedef int32_t pair_of_terms __attribute__((may_alias));

// Part `p` of a vector of 16, four lanes.
#define PART(x, p) ((float32x4_t *)&(x) + (p))
#define FINISH(x) __asm__ volatile("" : "+w"(x) : : "memory")

// sum[r] += a[r][term] · panel[term][0..16) for the terms 0, 1, 2, 3.
INLINE void four_terms(const int rows, v16 *sum, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t width) {
  float32x4_t x[6];
  UNROLL for (int r = 0; r < rows; r++) x[r] = vld1q_f32(a + r * a_stride);
#define TERM(term)                                                                                            \
  UNROLL for (int p = 0; p < 4; p += 2) {                                                                     \
    const float *at = panel + term * width + 4 * p;                                                           \
    const float32x4_t b[2] = {vld1q_f32(at), vld1q_f32(at + 4)};                                              \
    UNROLL for (int r = 0; r < rows; r++)                                                                     \
      UNROLL for (int i = 0; i < 2; i++)                                                                      \
        *PART(sum[r], p + i) = vfmaq_laneq_f32(*PART(sum[r], p + i), b[i], x[r], term);                       \
    UNROLL for (int r = 0; r < rows; r++) {                                                                   \
      FINISH(*PART(sum[r], p));                                                                               \
      FINISH(*PART(sum[r], p + 1));                                                                           \
    }                                                                                                         \
  }
  TERM(0) TERM(1) TERM(2) TERM(3)
#undef TERM
}

// The same for two pairs of bfloat16 a column of the panel, whose second terms come first: the terms 1, 0, 3, 2.
INLINE void two_pairs(const int rows, v16 *sum, const float *a, ptrdiff_t a_stride, const pair_of_terms *panel, ptrdiff_t width) {
  float32x4_t x[6];
  UNROLL for (int r = 0; r < rows; r++) x[r] = vld1q_f32(a + r * a_stride);
#define TERM(term)                                                                                            \
  UNROLL for (int p = 0; p < 4; p++) {                                                                        \
    const int32x4_t of_two = vld1q_s32(panel + term / 2 * width + 4 * p);                                     \
    const int32x4_t wide = term % 2 ? vandq_s32(of_two, vdupq_n_s32((int32_t)0xffff0000)) : vshlq_n_s32(of_two, 16); \
    UNROLL for (int r = 0; r < rows; r++)                                                                     \
      *PART(sum[r], p) = vfmaq_laneq_f32(*PART(sum[r], p), vreinterpretq_f32_s32(wide), x[r], term);          \
    UNROLL for (int r = 0; r < rows; r++) FINISH(*PART(sum[r], p));                                           \
  }
  TERM(1) TERM(0) TERM(3) TERM(2)
#undef TERM
}

#define FOUR_TERMS four_terms
#define TWO_PAIRS two_pairs

#endif
