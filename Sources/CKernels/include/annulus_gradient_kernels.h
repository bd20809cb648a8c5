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
} annulus_gradient_kernels;

// The gradient kernels that go with annulus_kernels_available(index); NULL past the end.
const annulus_gradient_kernels *annulus_gradient_kernels_available(int index);
// Those that go with annulus_kernels_reference_of(index).
const annulus_gradient_kernels *annulus_gradient_kernels_reference_of(int index);

#ifdef __cplusplus
}
#endif

#endif
