// The one source of the gradient kernels, included once by each set's file after kernels_generic.h, whose vectors, functions and
// register blocks it uses.
#include "annulus_gradient_kernels.h"

// ---- products with a transpose ------------------------------------------------------------------

// One register block of Aᵀ · panel: a term's factors lie side by side.
INLINE void transposed_block(const int rows, const int vectors, const float *a, ptrdiff_t a_stride,
                             const float *panels, ptrdiff_t depth, ptrdiff_t stride, float *c, ptrdiff_t c_stride, int accumulate) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r * vectors + v] = accumulate == ANNULUS_CONTINUE ? load(c + r * c_stride + 16 * v) : splat(0.0f);
#ifdef OWN_BLOCKS
  if (rows == 6) {
    __m256 of_six[12];
    UNROLL for (int i = 0; i < 12; i++) of_six[i] = _mm256_loadu_ps(EIGHT(sum + i / 2, i % 2));
    add_transposed_terms(of_six, a, a_stride, panels, depth);
    UNROLL for (int i = 0; i < 12; i++) _mm256_storeu_ps(EIGHT(sum + i / 2, i % 2), of_six[i]);
    depth = 0;
  }
#endif
  for (ptrdiff_t k = 0; k < depth; k++, a += a_stride, panels += 16) {
    v16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load(panels + v * stride);
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
    transposed_block(count, vectors, a, a_stride, panels, depth, stride, c, c_stride, accumulate);
#define TRANSPOSED_COLUMN_GROUP(vectors, full)                                                               \
  static void transposed_column_group_##vectors(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,          \
                                                const float *panels, ptrdiff_t depth, ptrdiff_t stride,      \
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
                                     const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                                     float *c, ptrdiff_t c_stride, int accumulate) {
  ptrdiff_t column = 0;
#if PANEL_VECTORS >= 4
  if (columns == 64) {
    transposed_column_group_4(a, a_stride, rows, panels, depth, stride, c, c_stride, accumulate);
    return;
  }
  if (columns == 48) {
    transposed_column_group_3(a, a_stride, rows, panels, depth, stride, c, c_stride, accumulate);
    return;
  }
#endif
#if PANEL_VECTORS >= 2
  for (; column + 32 <= columns; column += 32)
    transposed_column_group_2(a, a_stride, rows, panels + column / 16 * stride, depth, stride, c + column, c_stride, accumulate);
#endif
  for (; column < columns; column += 16)
    transposed_column_group_1(a, a_stride, rows, panels + column / 16 * stride, depth, stride, c + column, c_stride, accumulate);
}

// ---- rows ---------------------------------------------------------------------------------------

#include "row_gradients_generic.h"

// ---- attention ----------------------------------------------------------------------------------

// A register block of which terms are left out row by row: bit `first` + r of a term's mask is row r's.
INLINE void masked_transposed_block(const int rows, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t depth,
                                    float *c, ptrdiff_t c_stride, const uint64_t *mask, ptrdiff_t mask_stride, ptrdiff_t first) {
  const uint32_t all = (1u << rows) - 1;
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++) sum[r] = load(c + r * c_stride);
  for (ptrdiff_t k = 0; k < depth; k++, a += a_stride, panel += 16, mask += mask_stride) {
    const uint32_t seen = (uint32_t)(*mask >> first) & all;
    if (!seen) continue;
    const v16 b = load(panel);
    if (seen == all) {
      UNROLL for (int r = 0; r < rows; r++) sum[r] = fused(splat(a[r]), b, sum[r]);
    } else {
      UNROLL for (int r = 0; r < rows; r++)
        if (seen >> r & 1) sum[r] = fused(splat(a[r]), b, sum[r]);
    }
  }
  UNROLL for (int r = 0; r < rows; r++) store(c + r * c_stride, sum[r]);
}

static void masked_transposed_panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                            const float *panels, ptrdiff_t depth, ptrdiff_t stride,
                                            ptrdiff_t columns, float *c, ptrdiff_t c_stride, int accumulate,
                                            const uint64_t *mask, ptrdiff_t mask_stride) {
  enum { BLOCK = 4 };  // What every set has registers for.
  if (!accumulate)
    for (ptrdiff_t r = 0; r < rows; r++) memset(c + r * c_stride, 0, (size_t)columns * sizeof(float));
  for (ptrdiff_t column = 0; column < columns; column += 16, panels += stride) {
    ptrdiff_t r = 0;
#define MASKED_ROWS(count)            \
  for (; r + count <= rows; r += count) \
    masked_transposed_block(count, a + r, a_stride, panels, depth, c + r * c_stride + column, c_stride, mask, mask_stride, r);
    MASKED_ROWS(BLOCK)
    MASKED_ROWS(1)
#undef MASKED_ROWS
  }
}

// ---- gradients of attention ---------------------------------------------------------------------

static void differentiate_rows(const float *s, ptrdiff_t s_stride, const float *g, ptrdiff_t g_stride, ptrdiff_t rows, ptrdiff_t keys,
                               const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                               const float *row_max, const float *dots,
                               float *weights, ptrdiff_t weights_stride, float *gradients, ptrdiff_t gradients_stride) {
  const v16 steps = splat(scale);
  for (ptrdiff_t r = 0; r < rows; r++, s += s_stride, g += g_stride, weights += weights_stride, gradients += gradients_stride,
                 mask = mask ? mask + mask_stride : NULL) {
    const v16 base = splat(row_base(row_max[r])), dot = splat(dots[r]);
    for (ptrdiff_t b = 0; 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      v16 w = splat(0.0f), gradient = w;
      if (seen) {
        w = weight_lanes(load(s + 16 * b) * steps - base);
        gradient = w * (load(g + 16 * b) - dot);
        if (seen != 0xffffu) {
          w = lanes(seen) ? w : splat(0.0f);
          gradient = lanes(seen) ? gradient : splat(0.0f);
        }
      }
      store(weights + 16 * b, w);
      store(gradients + 16 * b, gradient);
    }
  }
}

static void uncap_rows(float *gradients, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t keys, const uint64_t *mask, ptrdiff_t mask_stride,
                       const float *capped, ptrdiff_t capped_stride, float cap) {
  for (ptrdiff_t r = 0; r < rows; r++, gradients += stride, capped += capped_stride, mask = mask ? mask + mask_stride : NULL)
    for (ptrdiff_t b = 0; 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      if (!seen) continue;
      const v16 part = load(capped + 16 * b) / splat(cap);
      // (1 + t)·(1 − t): near the cap nothing cancels but in 1 − t, which is exact there.
      const v16 gradient = load(gradients + 16 * b) * ((splat(1.0f) + part) * (splat(1.0f) - part));
      store(gradients + 16 * b, lanes(seen) ? gradient : splat(0.0f));
    }
}

static void add_diagonals(const float *gradients, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t keys, ptrdiff_t distance, ptrdiff_t reach,
                          float *sums) {
  for (ptrdiff_t r = 0; r < rows; r++, gradients += stride)
    for (ptrdiff_t j = 0; j < keys; j += 16) {
      const ptrdiff_t delta = distance + j - r, n = keys - j < 16 ? keys - j : 16;
      if (delta >= -reach && delta + n - 1 <= reach) {
        float *at = sums + reach + delta;
        store_up_to(at, load_up_to(at, n) + load_up_to(gradients + j, n), n);
      } else if (delta + n - 1 <= -reach || delta >= reach) {
        sums[delta >= reach ? 2 * reach : 0] += sum_lanes(load_up_to(gradients + j, n));
      } else {
        for (ptrdiff_t i = 0; i < n; i++) {
          const ptrdiff_t d = delta + i;
          sums[reach + (d < -reach ? -reach : d > reach ? reach : d)] += gradients[j + i];
        }
      }
    }
}

static void dot_rows(ptrdiff_t rows, ptrdiff_t columns, const float *a, ptrdiff_t a_stride, const float *b, ptrdiff_t b_stride,
                     float *dots, ptrdiff_t dots_stride) {
  for (ptrdiff_t r = 0; r < rows; r++, a += a_stride, b += b_stride) {
    v16 sum = splat(0.0f);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const ptrdiff_t n = columns - j < 16 ? columns - j : 16;
      sum = fused(load_up_to(a + j, n), load_up_to(b + j, n), sum);
    }
    dots[r * dots_stride] = sum_lanes(sum);
  }
}

static void scale_and_pack(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, const float *factor,
                           float *scaled, float *panels) {
  for (ptrdiff_t r = 0; r < rows; r++, source += source_stride, scaled += columns, panels += 16) {
    const v16 x = splat(factor[r]);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const ptrdiff_t n = columns - j < 16 ? columns - j : 16;
      const v16 y = load_up_to(source + j, n) * x;
      store_up_to(scaled + j, y, n);
      store(panels + j * rows, y);
    }
  }
}

static void widen_panels(const void *panels, ptrdiff_t depth, ptrdiff_t columns, float *target) {
  const uint32_t *pairs = panels;
  for (ptrdiff_t column = 0; column < columns; column += 16, pairs += (depth + 1) / 2 * 16)
    for (ptrdiff_t k = 0; k < depth; k++, target += 16) {
      const u16 pair = __builtin_bit_cast(u16, load((const float *)(pairs + k / 2 * 16)));
      store(target, __builtin_bit_cast(v16, k % 2 ? pair & 0xffff0000u : pair << 16));
    }
}

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
  .masked_transposed_panel_product = masked_transposed_panel_product,
  .differentiate_rows = differentiate_rows,
  .uncap_rows = uncap_rows,
  .add_diagonals = add_diagonals,
  .dot_rows = dot_rows,
  .scale_and_pack = scale_and_pack,
  .widen_panels = widen_panels,
};
