// The microkernels of gradients, in float32. Panels, steps, masks and the values of `accumulate` are those of annulus_kernels.h.
#ifndef ANNULUS_GRADIENT_KERNELS_H
#define ANNULUS_GRADIENT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct annulus_gradient_kernels {
  // C[rows][columns] = (accumulate ? C : 0) + Aᵀ · so many columns of panels, where A is [depth][rows]: element r of
  // term k is a[k · a_stride + r]. Otherwise as panel_product: one fused multiply-add chain per element, depth ascending, and an
  // element's bits depend on its column of A alone.
  void (*transposed_panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                   const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                                   float *c, ptrdiff_t c_stride, int accumulate);

  // Row-wise backwards. dx may be the memory of dy or of x; a row's bits depend on that row alone.

  // dx = dy·f'(x), x being what the activation went over, its bias added.
  void (*gelu_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                        const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride);
  void (*gelu_tanh_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                             const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride);
  void (*silu_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                        const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride);
  // 0 where x ≤ 0, else dy.
  void (*relu_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                        const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride);
  void (*tanh_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                        const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride);

  // The backward of layer_norm over rows x to which nothing is to be added any more. With n = (x − mean)·scale and g = dy·gamma:
  // dx = scale·(g − mean(g) − n·mean(g·n)), mean and scale having the forward's bits; gamma_sums[j] += Σ dy·n and beta_sums[j] += Σ dy
  // over the rows, ascending, one multiply-add or addition a row. beta_sums may be NULL.
  void (*layer_norm_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *gamma,
                              float epsilon, const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride,
                              float *gamma_sums, float *beta_sums);
  // That of rms_norm: n = x·scale, dx = scale·(g − n·mean(g·n)).
  void (*rms_norm_gradient)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *gamma,
                            float epsilon, const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride,
                            float *gamma_sums, float *beta_sums);

  // y[r][0..columns) += x[r][0..columns), row after row: with a y_stride of 0 the sum over all rows, ascending.
  void (*add_rows)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride);
  // Dropout of a row in place: 0 where a channel's 32 bits are below threshold, else x·factor. Channels 2n and 2n + 1 have the low and
  // the high half of the number that SplitMix64 gives as its (n + 1)-th from `state`.
  void (*drop_row)(ptrdiff_t columns, float *x, uint64_t state, uint32_t threshold, float factor);
  // The same with at most 64 rows, but term k of row r is left out (not multiplied by zero) where bit r of
  // mask[k · mask_stride] is clear. It cannot add.
  void (*masked_transposed_panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                          const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
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
  // scaled[rows][columns] = source[r] · factor[r], and the panels of that, one right after the other.
  void (*scale_and_pack)(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, const float *factor,
                         float *scaled, float *panels);
  // As floats the panels of so many columns, a multiple of 16, that hold pairs of bfloat16 (annulus_bfloat16_kernels.h); one right
  // after the other in both.
  void (*widen_panels)(const void *panels, ptrdiff_t depth, ptrdiff_t columns, float *target);
} annulus_gradient_kernels;

// The gradient kernels that go with annulus_kernels_available(index); NULL past the end.
const annulus_gradient_kernels *annulus_gradient_kernels_available(int index);
// Those that go with annulus_kernels_reference_of(index).
const annulus_gradient_kernels *annulus_gradient_kernels_reference_of(int index);

#ifdef __cplusplus
}
#endif

#endif
