// The backward of row-wise functions, beside whose forward kernels_generic.h has: included once by each set's file, through
// gradients_generic.h.

// ---- activations --------------------------------------------------------------------------------

// Φ(x) + x·φ(x), the derivative of x·Φ(x). With the upper tail e·r at |x|, e = e^(−x²/2), and c = 1/√(2π), both sides are
// e·(r − |x|·c), taken from 1 on the right; it vanishes at −0.7518 by subtraction. At most 2.1·10⁻⁷ off.
INLINE v16 gelu_slope(v16 x) {
  const v16 a = absolute(x), b = a > splat(15.0f) ? splat(15.0f) : a;
  v16 ratio;
  const v16 exponential = upper_tail(b, b, 0.5f, &ratio);
  const v16 tail = exponential * fused(-b, splat(0x1.988454p-2f), ratio);
  return x > splat(0.0f) ? splat(1.0f) - tail : tail;
}

// σ + x·σ(1 − σ)·w' for x·σ(w), w = 2·√(2/π)·(x + 0.044715·x³), with e = e^(−|w|), σ = (1 or e)/(1 + e) and
// σ(1 − σ) = e/(1 + e)².
INLINE v16 gelu_tanh_slope(v16 x) {
  const v16 a = absolute(x), b = a > splat(14.0f) ? splat(14.0f) : a, square = b * b;
  const v16 e = exp_lanes(-b * fused(square, splat(0.071354816f), splat(1.5957691f)));
  const v16 rise = copy_sign(b, x) * fused(square, splat(0.21406445f), splat(1.5957691f));
  const v16 under = splat(1.0f) / (e + splat(1.0f));
  const v16 sigma = (x > splat(0.0f) ? splat(1.0f) : e) * under;
  return fused(rise * e, under * under, sigma);
}

// σ + x·σ(1 − σ), as above with w = x.
INLINE v16 silu_slope(v16 x) {
  const v16 a = absolute(x), b = a > splat(110.0f) ? splat(110.0f) : a;
  const v16 e = exp_lanes(-b);
  const v16 under = splat(1.0f) / (e + splat(1.0f));
  const v16 sigma = (x > splat(0.0f) ? splat(1.0f) : e) * under;
  return fused(copy_sign(b, x) * e, under * under, sigma);
}

// 1 − tanh² = 4e/(1 + e)², e = e^(−2|x|), which does not cancel.
INLINE v16 tanh_slope(v16 x) {
  const v16 a = absolute(x), e = exp_lanes(-(a + a));
  const v16 under = splat(1.0f) / (e + splat(1.0f));
  return splat(4.0f) * e * under * under;
}

#define ACTIVATION_GRADIENT(name, slope)                                                                       \
  static void name(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,                      \
                   const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride) {                     \
    for (; rows > 0; rows--, x += x_stride, dy += dy_stride, dx += dx_stride)                                  \
      FOR_COLUMNS(columns, dx, AT(dy) * slope(AT(x)))                                                          \
  }
ACTIVATION_GRADIENT(gelu_gradient, gelu_slope)
ACTIVATION_GRADIENT(gelu_tanh_gradient, gelu_tanh_slope)
ACTIVATION_GRADIENT(silu_gradient, silu_slope)
ACTIVATION_GRADIENT(tanh_gradient, tanh_slope)

static void relu_gradient(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride,
                          const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride) {
  for (; rows > 0; rows--, x += x_stride, dy += dy_stride, dx += dx_stride)
    FOR_COLUMNS(columns, dx, AT(x) <= splat(0.0f) ? splat(0.0f) : AT(dy))
}

// ---- norms --------------------------------------------------------------------------------------

// The rest of a norm's backward for one row, whose normalised values are (x − mean)·scale.
INLINE void norm_row_gradient(const int has_mean, ptrdiff_t columns, const float *x, float mean, float scale, const float *gamma,
                              const float *dy, float *dx, float *gamma_sums, float *beta_sums) {
  const v16 m = splat(mean), s = splat(scale);
#define NORMALISED(v) (has_mean ? ((v) - m) * s : (v) * s)
  v16 sum = splat(0.0f), product = splat(0.0f);
  for (ptrdiff_t j = 0; j < columns; j += 16) {
    const ptrdiff_t left = columns - j < 16 ? columns - j : 16;
    const v16 g = load_up_to(dy + j, left) * load_up_to(gamma + j, left);
    sum += g;
    product = fused(g, NORMALISED(load_up_to(x + j, left)), product);
  }
  const v16 mean_g = splat(has_mean ? sum_lanes(sum) / (float)columns : 0.0f);
  const v16 mean_product = splat(sum_lanes(product) / (float)columns);
  for (ptrdiff_t j = 0; j < columns; j += 16) {
    const ptrdiff_t left = columns - j < 16 ? columns - j : 16;
    const v16 d = load_up_to(dy + j, left), n = NORMALISED(load_up_to(x + j, left));
    const v16 g = d * load_up_to(gamma + j, left);
    store_up_to(dx + j, fused(-n, mean_product, has_mean ? g - mean_g : g) * s, left);
    store_up_to(gamma_sums + j, fused(d, n, load_up_to(gamma_sums + j, left)), left);
    if (beta_sums) store_up_to(beta_sums + j, load_up_to(beta_sums + j, left) + d, left);
  }
#undef NORMALISED
}

static void layer_norm_gradient(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *gamma,
                                float epsilon, const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride,
                                float *gamma_sums, float *beta_sums) {
  for (; rows > 0; rows--, x += x_stride, dy += dy_stride, dx += dx_stride) {
    // Mean and variance as layer_norm has them, to the bit.
    v16 sum = splat(0.0f), squares = splat(0.0f);
    for (ptrdiff_t j = 0; j < columns; j += 16) sum += load_up_to(x + j, columns - j < 16 ? columns - j : 16);
    const v16 mean = splat(sum_lanes(sum) / (float)columns);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const ptrdiff_t left = columns - j < 16 ? columns - j : 16;
      const v16 t = load_up_to(x + j, left) - mean;
      const v16 d = lanes((1u << left) - 1) ? t : splat(0.0f);
      squares = fused(d, d, squares);
    }
    const float variance = sum_lanes(squares) / (float)columns;
    const v16 scale = splat(1.0f) / __builtin_elementwise_sqrt(splat(variance + epsilon));
    norm_row_gradient(1, columns, x, mean[0], scale[0], gamma, dy, dx, gamma_sums, beta_sums);
  }
}

static void rms_norm_gradient(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *gamma,
                              float epsilon, const float *dy, ptrdiff_t dy_stride, float *dx, ptrdiff_t dx_stride,
                              float *gamma_sums, float *beta_sums) {
  for (; rows > 0; rows--, x += x_stride, dy += dy_stride, dx += dx_stride) {
    v16 squares = splat(0.0f);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const v16 t = load_up_to(x + j, columns - j < 16 ? columns - j : 16);
      squares = fused(t, t, squares);
    }
    const v16 scale = splat(1.0f) / __builtin_elementwise_sqrt(splat(sum_lanes(squares) / (float)columns + epsilon));
    norm_row_gradient(0, columns, x, 0.0f, scale[0], gamma, dy, dx, gamma_sums, beta_sums);
  }
}

// ---- sums and dropout ---------------------------------------------------------------------------

static void add_rows(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride) {
  for (; rows > 0; rows--, x += x_stride, y += y_stride) FOR_COLUMNS(columns, y, AT(y) + AT(x))
}

typedef uint64_t w8 __attribute__((ext_vector_type(8)));

// SplitMix64's numbers from the row's state: sixteen channels are eight of them (CountedDraws).
static void drop_row(ptrdiff_t columns, float *x, uint64_t state, uint32_t threshold, float factor) {
  const uint64_t step = 0x9E3779B97F4A7C15u;
  w8 number = (w8){1, 2, 3, 4, 5, 6, 7, 8} * step + state;
  for (ptrdiff_t j = 0; j < columns; j += 16, number += 8 * step) {
    const ptrdiff_t left = columns - j < 16 ? columns - j : 16;
    w8 z = number;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    const u16 drawn = __builtin_bit_cast(u16, z ^ (z >> 31));
    const i16 dropped = drawn < (u16)(threshold);
    store_up_to(x + j, dropped ? splat(0.0f) : load_up_to(x + j, left) * splat(factor), left);
  }
}
