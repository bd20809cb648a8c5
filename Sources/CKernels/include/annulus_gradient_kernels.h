// The microkernels of gradients, in float32. Panels, steps, masks and the values of `accumulate` are those of annulus_kernels.h.
#ifndef ANNULUS_GRADIENT_KERNELS_H
#define ANNULUS_GRADIENT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct annulus_gradient_kernels {
  // C[rows][columns] = (accumulate ? C : 0) + Aᵀ · the first columns of panel[depth][width], where A is [depth][rows]: element r of
  // term k is a[k · a_stride + r]. Otherwise as panel_product: one fused multiply-add chain per element, depth ascending, and an
  // element's bits depend on its column of A alone. columns ≤ width, both ∈ {16, 32, 48, 64}.
  void (*transposed_panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                   const float *panel, ptrdiff_t depth, ptrdiff_t width, ptrdiff_t columns,
                                   float *c, ptrdiff_t c_stride, int accumulate);

  // The same with all columns and at most 64 rows, but term k of row r is left out (not multiplied by zero) where bit r of
  // mask[k · mask_stride] is clear. It cannot add.
  void (*masked_transposed_panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                          const float *panel, ptrdiff_t depth, ptrdiff_t width,
                                          float *c, ptrdiff_t c_stride, int accumulate,
                                          const uint64_t *mask, ptrdiff_t mask_stride);

  // Gradients of attention.

  // Of scores and of G, the gradients of weights, of some rows against `keys` keys: weights[r][j] becomes
  // w = 2^((S[r][j]·scale − row_max[r])/32), never less than 2⁻¹²⁵, and gradients[r][j] w·(G[r][j] − dots[r]). Both are 0 where a
  // row does not see j, and for the padding up to keys rounded up to 16. Scores become steps when they are multiplied by scale;
  // row_max, in steps, is that of the whole row. mask may be NULL: all visible. Each result may lie where its operand does.
  void (*differentiate_rows)(const float *s, ptrdiff_t s_stride, const float *g, ptrdiff_t g_stride, ptrdiff_t rows, ptrdiff_t keys,
                             const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                             const float *row_max, const float *dots,
                             float *weights, ptrdiff_t weights_stride, float *gradients, ptrdiff_t gradients_stride);
  // gradients[r][j] ← gradients[r][j]·(1 − (capped[r][j]/cap)²), which is that of a score before cap·tanh(score/cap) made it into
  // capped[r][j]; 0 where a row does not see j. mask may be NULL.
  void (*uncap_rows)(float *gradients, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t keys, const uint64_t *mask, ptrdiff_t mask_stride,
                     const float *capped, ptrdiff_t capped_stride, float cap);
  // sums[reach + clamp(δ, −reach, reach)] += gradients[r][j], δ = distance + j − r: rows ascending, keys in groups of 16 ascending.
  // Where all of a group fall beyond the same end they are summed first, as 16 lanes on a fixed tree; otherwise one by one.
  void (*add_diagonals)(const float *gradients, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t keys, ptrdiff_t distance, ptrdiff_t reach,
                        float *sums);
  // dots[r · dots_stride] = Σ a[r][j]·b[r][j]: 16 chains, then a fixed tree.
  void (*dot_rows)(ptrdiff_t rows, ptrdiff_t columns, const float *a, ptrdiff_t a_stride, const float *b, ptrdiff_t b_stride,
                   float *dots, ptrdiff_t dots_stride);
  // Panels of source[rows][columns], row r times factor[r].
  void (*pack_scaled)(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, const float *factor,
                      float *panels);
  // target[depth][width] as floats of a panel of bfloat16 pairs (annulus_bfloat16_kernels.h).
  void (*widen_panel)(const void *panel, ptrdiff_t depth, ptrdiff_t width, float *target);
} annulus_gradient_kernels;

// The gradient kernels that go with annulus_kernels_available(index); NULL past the end.
const annulus_gradient_kernels *annulus_gradient_kernels_available(int index);
// Those that go with annulus_kernels_reference_of(index).
const annulus_gradient_kernels *annulus_gradient_kernels_reference_of(int index);

#ifdef __cplusplus
}
#endif

#endif
