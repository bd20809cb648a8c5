// Register blocks in NEON's own words, with the bits of the generic ones.
//
// Multiply-adds take a lane of a register as it is, so that rows are loaded two or four terms at once: a broadcast from memory would
// cost a vector operation beside the load. The compiler would load more ahead than there are registers, and spill sums: the empty
// assembly, which names what it must finish first, keeps it from that. scripts/checks/neon-cycles says what the loops take.
#ifndef ANNULUS_NEON_TERMS_H
#define ANNULUS_NEON_TERMS_H

#include <arm_neon.h>

#include "vectors.h"

typedef int32_t pair_of_terms __attribute__((may_alias));

// Part `p` of a vector of 16, four lanes.
#define PART(x, p) ((float32x4_t *)&(x) + (p))
#define FINISH(x) __asm__ volatile("" : "+w"(x) : : "memory")

// sum[r] += a[r][term] · panel[term][0..16) for the terms 0, 1, 2, 3. 24 sums and 6 rows leave two registers, for 8 columns of the panel.
INLINE void four_terms(const int rows, v16 *sum, const float *a, ptrdiff_t a_stride, const float *panel) {
  float32x4_t x[6];
  UNROLL for (int r = 0; r < rows; r++) x[r] = vld1q_f32(a + r * a_stride);
#define TERM(term)                                                                                            \
  UNROLL for (int p = 0; p < 4; p += 2) {                                                                     \
    const float *at = panel + term * 16 + 4 * p;                                                              \
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

// C = A·B or C + A·B for twelve rows, widened to floats, and 8 columns of pairs: 24 sums as well, with half of the work of widening
// a column that 6 rows × 16 columns have.
INLINE void twelve_rows(const float *a, ptrdiff_t a_stride, const pair_of_terms *panel, ptrdiff_t pairs,
                        float *c, ptrdiff_t c_stride, int goes_on) {
  float32x4_t sum[12][2];
  const float *row[12];
  UNROLL for (int r = 0; r < 12; r++) {
    row[r] = a + r * a_stride;
    UNROLL for (int i = 0; i < 2; i++) sum[r][i] = goes_on ? vld1q_f32(c + r * c_stride + 4 * i) : vdupq_n_f32(0.0f);
  }
  const int32x4_t upper = vdupq_n_s32((int32_t)0xffff0000);
  for (ptrdiff_t at = 0; at < 8 * pairs; at += 8, panel += 16) {
    const int32x4_t b[2] = {vld1q_s32(panel), vld1q_s32(panel + 4)};
    float32x4_t odd[2], even[2];
    UNROLL for (int i = 0; i < 2; i++) {
      odd[i] = vreinterpretq_f32_s32(vandq_s32(b[i], upper));
      even[i] = vreinterpretq_f32_s32(vshlq_n_s32(b[i], 16));
    }
    UNROLL for (int r = 0; r < 12; r++) {
      float32x2_t x;
      // Written out, so that a row keeps its address and nothing is added to it.
      __asm__ volatile("ldr %d0, [%1, %2]" : "=w"(x) : "r"(row[r]), "r"(at) : "memory");
      UNROLL for (int i = 0; i < 2; i++) sum[r][i] = vfmaq_lane_f32(sum[r][i], odd[i], x, 1);
      UNROLL for (int i = 0; i < 2; i++) sum[r][i] = vfmaq_lane_f32(sum[r][i], even[i], x, 0);
      UNROLL for (int i = 0; i < 2; i++) FINISH(sum[r][i]);
    }
  }
  UNROLL for (int r = 0; r < 12; r++)
    UNROLL for (int i = 0; i < 2; i++) vst1q_f32(c + r * c_stride + 4 * i, sum[r][i]);
}

#define FOUR_TERMS four_terms
#define TWELVE_ROWS twelve_rows

#endif
