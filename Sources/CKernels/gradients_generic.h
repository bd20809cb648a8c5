// The one source of the gradient kernels, included once by each set's file after kernels_generic.h, whose vectors, functions and
// register blocks it uses.
#include "annulus_gradient_kernels.h"

// ---- products with a transpose ------------------------------------------------------------------

// One register block of Aᵀ · panel: a term's factors lie side by side.
INLINE void transposed_block(const int rows, const int vectors, const float *a, ptrdiff_t a_stride,
                             const float *panel, ptrdiff_t depth, ptrdiff_t width, float *c, ptrdiff_t c_stride, int accumulate) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r * vectors + v] = accumulate == ANNULUS_CONTINUE ? load(c + r * c_stride + 16 * v) : splat(0.0f);
  for (ptrdiff_t k = 0; k < depth; k++, a += a_stride, panel += width) {
    v16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load(panel + 16 * v);
    UNROLL for (int r = 0; r < rows; r++) {
      const v16 x = splat(a[r]);
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = fused(x, b[v], sum[r * vectors + v]);
    }
  }
  if (accumulate == ANNULUS_ADD)
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] += load(c + r * c_stride + 16 * v);
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

// All rows of a column group `vectors` wide: blocks of `full` rows, then of 6, 4, 2 and 1.
#define TRANSPOSED_ROW_BLOCKS(count, vectors)                               \
  for (; rows >= count; rows -= count, a += count, c += count * c_stride)   \
    transposed_block(count, vectors, a, a_stride, panel, depth, width, c, c_stride, accumulate);
#define TRANSPOSED_COLUMN_GROUP(vectors, full)                                                               \
  static void transposed_column_group_##vectors(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,          \
                                                const float *panel, ptrdiff_t depth, ptrdiff_t width,        \
                                                float *c, ptrdiff_t c_stride, int accumulate) {              \
    TRANSPOSED_ROW_BLOCKS(full, vectors)                                                                     \
    if (full > 6) TRANSPOSED_ROW_BLOCKS(6, vectors)                                                          \
    if (full > 4) TRANSPOSED_ROW_BLOCKS(4, vectors)                                                          \
    TRANSPOSED_ROW_BLOCKS(2, vectors)                                                                        \
    TRANSPOSED_ROW_BLOCKS(1, vectors)                                                                        \
  }
TRANSPOSED_COLUMN_GROUP(1, ROWS_1)
#if PANEL_VECTORS >= 2
TRANSPOSED_COLUMN_GROUP(2, ROWS_2)
#endif
#if PANEL_VECTORS >= 4
TRANSPOSED_COLUMN_GROUP(3, ROWS_3)
TRANSPOSED_COLUMN_GROUP(4, ROWS_4)
#endif

static void transposed_panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                     const float *panel, ptrdiff_t depth, ptrdiff_t width, ptrdiff_t columns,
                                     float *c, ptrdiff_t c_stride, int accumulate) {
  ptrdiff_t column = 0;
#if PANEL_VECTORS >= 4
  if (columns == 64) {
    transposed_column_group_4(a, a_stride, rows, panel, depth, width, c, c_stride, accumulate);
    return;
  }
  if (columns == 48) {
    transposed_column_group_3(a, a_stride, rows, panel, depth, width, c, c_stride, accumulate);
    return;
  }
#endif
#if PANEL_VECTORS >= 2
  for (; column + 32 <= columns; column += 32)
    transposed_column_group_2(a, a_stride, rows, panel + column, depth, width, c + column, c_stride, accumulate);
#endif
  for (; column < columns; column += 16)
    transposed_column_group_1(a, a_stride, rows, panel + column, depth, width, c + column, c_stride, accumulate);
}

// ---- rows ---------------------------------------------------------------------------------------

#include "row_gradients_generic.h"

#define GRADIENT_JOINED(a, b) a##b
#define GRADIENT_TABLE_OF(x) GRADIENT_JOINED(annulus_gradient_kernels_, x)

const annulus_gradient_kernels GRADIENT_TABLE_OF(ANNULUS_SET) = {
  .transposed_panel_product = transposed_panel_product,
  .gelu_gradient = gelu_gradient,
  .gelu_tanh_gradient = gelu_tanh_gradient,
  .silu_gradient = silu_gradient,
  .relu_gradient = relu_gradient,
  .tanh_gradient = tanh_gradient,
  .layer_norm_gradient = layer_norm_gradient,
  .rms_norm_gradient = rms_norm_gradient,
  .add_rows = add_rows,
  .drop_row = drop_row,
};
