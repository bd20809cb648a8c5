// The bfloat16 microkernels: operands of products in bfloat16, everything that is summed in float32.
//
// Pairs. Two bfloat16 that follow each other along the depth of a product form a pair of four bytes, the
// first one in the lower half. A row of depth terms is (depth + 1) / 2 pairs, the last of an odd row
// filled up with zero, and strides of such rows count pairs. So a pair takes the place that a float has in
// the float32 kernels: a panel is [(depth + 1) / 2][16] pairs, and strides count pairs.
//
// Arithmetic. A product of a pair is what the instruction VDPBF16PS does (Intel 64 and IA-32 Architectures
// Software Developer's Manual, volume 2): c ← c + a₁·b₁, then c ← c + a₀·b₀, each a fused multiply-add that
// rounds to nearest even, takes denormal operands for zero and flushes denormal results to zero, whatever
// the control register says. Where the instruction is missing the kernels compute the same bits otherwise.
// Rounding to bfloat16 is VCVTNEPS2BF16: to nearest even, denormal numbers to zero, NaN stays NaN.
#ifndef ANNULUS_BFLOAT16_KERNELS_H
#define ANNULUS_BFLOAT16_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "annulus_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// How products of pairs are computed, with the same bits: by the processor's own instructions; by multiply-adds on operands widened
// to float32, while the processor flushes denormal numbers (ARM's: and once more by comparing, where it flushed a result); or so
// that what is to be flushed is found by comparing, which is slow.
enum { ANNULUS_COMPARED = 0, ANNULUS_WIDENED = 1, ANNULUS_OWN_INSTRUCTIONS = 2 };

typedef struct annulus_bfloat16_kernels {
  int products;  // how products are computed, one of the three above

  // pairs[r][k] = (source[r][2k], source[r][2k + 1]) · scale, rounded. scale is a power of two.
  void (*round_rows)(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, float scale,
                     void *pairs, ptrdiff_t stride);

  // C[rows][columns] = (accumulate ? C : 0) + A[rows][depth] · so many columns of panels: one chain of
  // pair products an element, depth ascending; `accumulate` and columns as in annulus_kernels.h.
  void (*panel_product)(const void *a, ptrdiff_t a_stride, ptrdiff_t rows,
                        const void *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                        float *c, ptrdiff_t c_stride, int accumulate);

  // The same, but term k of row r is left out where bit k of mask[r · mask_stride + k / 64] is clear: a
  // pair of two masked terms is skipped, and a masked half counts as 0·0 whatever A and the panel hold. It cannot add.
  void (*masked_panel_product)(const void *a, ptrdiff_t a_stride, ptrdiff_t rows,
                               const void *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                               float *c, ptrdiff_t c_stride, int accumulate,
                               const uint64_t *mask, ptrdiff_t mask_stride);

  // In place: a row of float32 scores becomes a row of pairs, its weights 2^(scale·(S[r][j] − max S[r])/32), scale
  // making steps of the scores, rounded to bfloat16, and 0 for masked j and up to keys rounded up to 16. row_max is
  // scale times the largest visible score, rounded, row_sum the sum of the weights before they were rounded:
  // that gives the log-sum-exp float32 accuracy, and an output no further from the truth than the sum of the
  // rounded ones (see bfloat16_generic.h). scale > 0. Otherwise as softmax_rows of the float32 kernels.
  void (*softmax_rows)(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                       const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                       float *row_max, float *row_sum);

  // softmax_rows, to the bit, and beside it what the same weights, before they are rounded, make of a row's statistics, as
  // observe_rows of the float32 kernels makes them.
  void (*observe_rows)(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                       const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                       float *row_max, float *row_sum, const annulus_statistics *statistics);

  // Panels of the transpose of source[n][depth], and of source[depth][n] itself, rounded.
  void (*pack_transposed)(const float *source, ptrdiff_t source_stride, ptrdiff_t n, ptrdiff_t depth, void *panels,
                          ptrdiff_t stride);
  void (*pack_columns)(const float *source, ptrdiff_t source_stride, ptrdiff_t depth, ptrdiff_t n, void *panels,
                       ptrdiff_t stride);

  // Attention of `rows` queries over one tile of keys that all of them see, unnormalised: the bits of
  // panel_product over the K panels, softmax_rows, and panel_product over the V panels, the exponentials of
  // some rows being under way during the products of others. q_stride counts pairs, scratch is as in
  // the float32 kernels.
  void (*attend_tile)(const void *q, ptrdiff_t q_stride, ptrdiff_t rows,
                      const void *k_panels, ptrdiff_t depth,
                      const void *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                      float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch);

  // attend_tile, to the bit, with the statistics of observe_rows.
  void (*observe_tile)(const void *q, ptrdiff_t q_stride, ptrdiff_t rows,
                       const void *k_panels, ptrdiff_t depth,
                       const void *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                       float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch,
                       const annulus_statistics *statistics);

  // Runs `iterations` rounds of independent pair products and returns the floating-point operations done.
  double (*peak)(ptrdiff_t iterations, float *sink);
} annulus_bfloat16_kernels;

// The bfloat16 kernels that go with annulus_kernels_available(index); NULL past the end.
const annulus_bfloat16_kernels *annulus_bfloat16_kernels_available(int index);
// Those that go with annulus_kernels_reference_of(index).
const annulus_bfloat16_kernels *annulus_bfloat16_kernels_reference_of(int index);
// Those that widen, also where the processor has instructions of its own; NULL where a set has none.
const annulus_bfloat16_kernels *annulus_bfloat16_kernels_widened(int index);

#ifdef __cplusplus
}
#endif

#endif
