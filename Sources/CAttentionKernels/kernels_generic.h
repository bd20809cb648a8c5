// The one source of every kernel set, written over vectors of 16 floats and included once by each
// set's file, which fixes the instruction set and the register blocking:
//
//   ANNULUS_SET     the C identifier and name of the set
//   PANEL_VECTORS   vectors of 16 columns that a register block holds (1, 2 or 4)
//   ROWS_1 … ROWS_4 rows of a register block that is 1 … 4 vectors wide
//   ACCUMULATORS    vectors of the largest register block
//
// A vector of 16 lanes is one AVX-512 register, two of AVX2, four of NEON. Because the arithmetic
// is written once, in fused multiply-adds and in a fixed order, every set yields the same bits.
// Polynomials are our own minimax fits (Remez exchange against 30-digit values, coefficients then
// rounded to float32); the bound in each comment is what the tests check.
#pragma clang fp contract(off)
#pragma clang diagnostic ignored "-Wpsabi"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define INFINITE __builtin_inff()
#define NOT_A_NUMBER __builtin_nanf("")

typedef float v16 __attribute__((ext_vector_type(16)));
typedef float v8 __attribute__((ext_vector_type(8)));
typedef float v4 __attribute__((ext_vector_type(4)));
typedef int32_t i16 __attribute__((ext_vector_type(16)));
typedef float v16_unaligned __attribute__((ext_vector_type(16), aligned(4)));

// ---- vectors ------------------------------------------------------------------------------------

INLINE v16 splat(float x) { return (v16)(x); }
INLINE v16 load(const float *p) { return *(const v16_unaligned *)p; }
INLINE void store(float *p, v16 x) { *(v16_unaligned *)p = x; }
INLINE v16 fused(v16 a, v16 b, v16 c) { return __builtin_elementwise_fma(a, b, c); }
INLINE i16 bits(v16 x) { return __builtin_bit_cast(i16, x); }
INLINE v16 from_bits(i16 x) { return __builtin_bit_cast(v16, x); }
INLINE v16 absolute(v16 x) { return from_bits(bits(x) & 0x7fffffff); }
INLINE v16 copy_sign(v16 magnitude, v16 sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & (int32_t)0x80000000));
}
INLINE v16 largest(v16 a, v16 b) { return a > b ? a : b; }

// The first n < 16 floats; the other lanes are zero and nothing beyond n is touched.
INLINE v16 load_some(const float *p, ptrdiff_t n) {
  float t[16] = {0};
  memcpy(t, p, (size_t)n * sizeof(float));
  return load(t);
}
INLINE void store_some(float *p, v16 x, ptrdiff_t n) {
  float t[16];
  store(t, x);
  memcpy(p, t, (size_t)n * sizeof(float));
}

// Lane l is all ones where bit l of the mask is set.
INLINE i16 lanes(uint32_t mask) {
  const i16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
  return ((i16)((int32_t)mask) & bit) != 0;
}

// The fixed tree over 16 lanes: l + (l + 8), then + 4, + 2, + 1.
INLINE float sum_lanes(v16 x) {
  const v8 a = x.lo + x.hi;
  const v4 b = a.lo + a.hi;
  return (b.x + b.z) + (b.y + b.w);
}
INLINE float largest_lane(v16 x) {
  const v8 a = x.lo > x.hi ? x.lo : x.hi;
  const v4 b = a.lo > a.hi ? a.lo : a.hi;
  const float even = b.x > b.z ? b.x : b.z, odd = b.y > b.w ? b.y : b.w;
  return even > odd ? even : odd;
}

// ---- elementary functions -----------------------------------------------------------------------

// e^x for x ≤ 0 as a softmax weight: exact at 0, zero below −87.3, NaN passes. Relative error below
// 1.5e-7 + |x|·3e-9: one constant for ln 2 is enough because the weights that count lie near zero.
INLINE v16 exp_weight(v16 x) {
  const v16 round = splat(0x1.8p23f + 127.0f);  // leaves n + 127 in the low bits
  const v16 t = fused(x, splat(0x1.715476p+0f), round);
  const v16 n = t - round;
  const v16 r = fused(n, splat(-0x1.62e43p-1f), x);
  v16 p = fused(splat(8.3125e-03f), r, splat(4.189033e-02f));
  p = fused(p, r, splat(1.6667116e-01f));
  p = fused(p, r, splat(4.999923e-01f));
  p = fused(p, r, splat(1.0f));
  p = fused(p, r, splat(1.0f));
  const v16 y = p * from_bits(bits(t) << 23);
  return x < splat(-87.3f) ? splat(0.0f) : y;
}

// e^(x + x_low), |x_low| below an ulp of x. Below 1 ulp for every x where x_low = 0, denormal
// results included; overflow gives infinity, NaN passes.
INLINE v16 exp_sum(v16 x, v16 x_low) {
  const v16 round = splat(0x1.8p23f);
  const v16 t = fused(x, splat(0x1.715476p+0f), round);
  const v16 n = t - round;
  v16 r = fused(n, splat(-0x1.62e4p-1f), x);
  r = fused(n, splat(-0x1.7f7d1cp-20f), r) + x_low;
  v16 p = fused(splat(1.3815578e-03f), r, splat(8.368762e-03f));
  p = fused(p, r, splat(4.166837e-02f));
  p = fused(p, r, splat(1.666652e-01f));
  p = fused(p, r, splat(4.9999994e-01f));
  p = fused(p, r, splat(1.0f));
  p = fused(p, r, splat(1.0f));
  // 2^n in two factors, so that neither leaves the exponent range; only the last product rounds.
  const i16 exponent = bits(t) - bits(round), half = exponent >> 1;
  const v16 y = p * from_bits((half + 127) << 23) * from_bits((exponent - half + 127) << 23);
  const v16 low = x < splat(-104.0f) ? splat(0.0f) : y;
  return x > splat(89.0f) ? splat(INFINITE) : low;
}
INLINE v16 exp_lanes(v16 x) { return exp_sum(x, splat(0.0f)); }

// ln x, below 1 ulp for every positive x; −∞ at ±0, NaN below zero.
INLINE v16 log_lanes(v16 x) {
  const i16 denormal = x < splat(0x1p-126f);
  const v16 scaled = denormal ? x * splat(0x1p23f) : x;
  const i16 exponent = (bits(scaled) - 0x3f3504f3) >> 23;  // mantissa in [√½, √2)
  const v16 f = from_bits(bits(scaled) - (exponent << 23)) - splat(1.0f);
  const v16 n = __builtin_convertvector(exponent + (denormal & -23), v16);
  v16 p = fused(splat(6.73877e-02f), f, splat(-1.16764575e-01f));
  p = fused(p, f, splat(1.1891675e-01f));
  p = fused(p, f, splat(-1.2405585e-01f));
  p = fused(p, f, splat(1.4219141e-01f));
  p = fused(p, f, splat(-1.6667998e-01f));
  p = fused(p, f, splat(2.0002134e-01f));
  p = fused(p, f, splat(-2.500001e-01f));
  p = fused(p, f, splat(3.3333313e-01f));
  const v16 square = f * f;
  v16 y = fused(n, splat(0x1.7f7d1cp-20f), square * f * p);
  y = fused(square, splat(-0.5f), y) + f;
  y = fused(n, splat(0x1.62e4p-1f), y);
  y = x == splat(INFINITE) ? x : y;
  y = x == splat(0.0f) ? splat(-INFINITE) : y;
  return x >= splat(0.0f) ? y : splat(NOT_A_NUMBER);
}

// ½·erfc(a/√2) for a ≥ 0, the normal distribution's upper tail, as two factors: e^(−a²/2), returned,
// and its Mills ratio (a polynomial in t = 1/(1 + a/4)). Relative accuracy over the whole tail; the
// product is left to the caller, who has a factor that keeps it from underflowing early. The caller
// gives s + s_low = a²/2 to twice the precision.
INLINE v16 upper_tail(v16 quarter, v16 s, v16 s_low, v16 *ratio) {
  const v16 t = splat(1.0f) / (quarter + splat(1.0f));
  v16 p = fused(splat(1.6951436e-02f), t, splat(-6.4865686e-02f));
  p = fused(p, t, splat(5.667297e-02f));
  p = fused(p, t, splat(2.1521067e-02f));
  p = fused(p, t, splat(1.8670969e-02f));
  p = fused(p, t, splat(8.333049e-02f));
  p = fused(p, t, splat(7.319998e-02f));
  p = fused(p, t, splat(9.5246e-02f));
  p = fused(p, t, splat(9.952673e-02f));
  p = fused(p, t, splat(9.974604e-02f));
  *ratio = p * t;
  return exp_sum(-s, -s_low);
}

// Below 1.5 ulp: an odd polynomial up to 1, one minus the tail above.
INLINE v16 erf_lanes(v16 x) {
  const v16 a = absolute(x), u = x * x;
  v16 p = fused(splat(7.853861e-05f), u, splat(-8.0101937e-04f));
  p = fused(p, u, splat(5.1883277e-03f));
  p = fused(p, u, splat(-2.6853811e-02f));
  p = fused(p, u, splat(1.12835854e-01f));
  p = fused(p, u, splat(-3.7612626e-01f));
  p = fused(p, u, splat(1.2837917e-01f));
  const v16 b = a > splat(6.0f) ? splat(6.0f) : a, s = b * b;
  v16 ratio;
  const v16 exponential = upper_tail(b * splat(0x1.6a09e6p-2f), s, fused(b, b, -s), &ratio);
  const v16 y = fused(-exponential, ratio + ratio, splat(1.0f));
  return copy_sign(a > splat(1.0f) ? y : fused(x, p, x), x);
}

// Below 1.5 ulp: an odd polynomial up to 0.625, 1 − 2/(e^2|x| + 1) above.
INLINE v16 tanh_lanes(v16 x) {
  const v16 a = absolute(x), u = x * x;
  v16 p = fused(splat(2.1429623e-03f), u, splat(-8.177399e-03f));
  p = fused(p, u, splat(2.1700704e-02f));
  p = fused(p, u, splat(-5.3946763e-02f));
  p = fused(p, u, splat(1.3333206e-01f));
  p = fused(p, u, splat(-3.333333e-01f));
  const v16 b = a > splat(20.0f) ? splat(20.0f) : a;
  const v16 y = splat(1.0f) - splat(2.0f) / (exp_lanes(b + b) + splat(1.0f));
  return copy_sign(a > splat(0.625f) ? y : fused(x * u, p, x), x);
}

// x·Φ(x) = max(x, 0) − |x|·(upper tail at |x|), which cancels nowhere: relative accuracy on both
// sides until the result itself underflows, below 7 ulp. Zero at −∞.
INLINE v16 gelu_lanes(v16 x) {
  const v16 a = absolute(x), b = a > splat(15.0f) ? splat(15.0f) : a;
  const v16 half = b * splat(0.5f), s = b * half;
  v16 ratio;
  const v16 exponential = upper_tail(b * splat(0.25f), s, fused(b, half, -s), &ratio);
  return fused(-exponential, b * ratio, x > splat(0.0f) ? x : splat(0.0f));
}

// ½x(1 + tanh u) = x / (1 + e^(−2u)) = x·e^(2u) / (1 + e^(2u)), u = √(2/π)·(x + 0.044715·x³); the
// form whose exponential does not overflow.
INLINE v16 gelu_tanh_lanes(v16 x) {
  const v16 a = absolute(x);
  const v16 e = exp_lanes(-a * fused(a * a, splat(0.071354816f), splat(1.5957691f)));
  const v16 y = (x > splat(0.0f) ? x : x * e) / (e + splat(1.0f));
  return x < splat(-14.0f) ? splat(-0.0f) : y;
}

// ---- panel products -----------------------------------------------------------------------------

// One register block: `rows` × 16·`vectors` elements of C, each one chain of fused multiply-adds.
INLINE void register_block(const int rows, const int vectors, const float *a, ptrdiff_t a_stride,
                           const float *panel, ptrdiff_t depth, ptrdiff_t width,
                           float *c, ptrdiff_t c_stride, int accumulate) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r * vectors + v] = accumulate ? load(c + r * c_stride + 16 * v) : splat(0.0f);
  for (ptrdiff_t k = 0; k < depth; k++) {
    v16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load(panel + 16 * v);
    UNROLL for (int r = 0; r < rows; r++) {
      const v16 x = splat(a[r * a_stride + k]);
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = fused(x, b[v], sum[r * vectors + v]);
    }
    panel += width;
  }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

// All rows of a column group `vectors` wide: blocks of `full` rows, then of 4, 2 and 1.
#define COLUMN_GROUP(vectors, full)                                                                     \
  static void column_group_##vectors(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,               \
                                     const float *panel, ptrdiff_t depth, ptrdiff_t width,             \
                                     float *c, ptrdiff_t c_stride, int accumulate) {                   \
    for (; rows >= full; rows -= full, a += full * a_stride, c += full * c_stride)                     \
      register_block(full, vectors, a, a_stride, panel, depth, width, c, c_stride, accumulate);        \
    for (; rows >= 4; rows -= 4, a += 4 * a_stride, c += 4 * c_stride)                                 \
      register_block(4, vectors, a, a_stride, panel, depth, width, c, c_stride, accumulate);           \
    for (; rows >= 2; rows -= 2, a += 2 * a_stride, c += 2 * c_stride)                                 \
      register_block(2, vectors, a, a_stride, panel, depth, width, c, c_stride, accumulate);           \
    if (rows == 1)                                                                                     \
      register_block(1, vectors, a, a_stride, panel, depth, width, c, c_stride, accumulate);           \
  }
COLUMN_GROUP(1, ROWS_1)
#if PANEL_VECTORS >= 2
COLUMN_GROUP(2, ROWS_2)
#endif
#if PANEL_VECTORS >= 4
COLUMN_GROUP(3, ROWS_3)
COLUMN_GROUP(4, ROWS_4)
#endif

static void panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                          const float *panel, ptrdiff_t depth, ptrdiff_t width,
                          float *c, ptrdiff_t c_stride, int accumulate) {
  ptrdiff_t column = 0;
#if PANEL_VECTORS >= 4
  if (width == 64) {
    column_group_4(a, a_stride, rows, panel, depth, width, c, c_stride, accumulate);
    return;
  }
  if (width == 48) {
    column_group_3(a, a_stride, rows, panel, depth, width, c, c_stride, accumulate);
    return;
  }
#endif
#if PANEL_VECTORS >= 2
  for (; column + 32 <= width; column += 32)
    column_group_2(a, a_stride, rows, panel + column, depth, width, c + column, c_stride, accumulate);
#endif
  for (; column < width; column += 16)
    column_group_1(a, a_stride, rows, panel + column, depth, width, c + column, c_stride, accumulate);
}

// The end of the run of equal bits that starts at bit k of a mask, at most `depth`.
INLINE ptrdiff_t run_end(const uint64_t *mask, ptrdiff_t k, ptrdiff_t depth) {
  const uint64_t flip = (mask[k / 64] >> (k % 64)) & 1 ? ~(uint64_t)0 : 0;
  while (k < depth) {
    const uint64_t differs = (mask[k / 64] ^ flip) >> (k % 64);
    if (differs) {
      k += __builtin_ctzll(differs);
      break;
    }
    k = (k / 64 + 1) * 64;
  }
  return k < depth ? k : depth;
}

enum { MASK_CHUNK = 4096, MASK_ROWS = 24 };

// Blocks of rows: a stretch of terms that all rows see is one dense product; where the rows differ,
// each row takes its own runs. Every element still sees its terms in ascending order.
static void masked_panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                 const float *panel, ptrdiff_t depth, ptrdiff_t width,
                                 float *c, ptrdiff_t c_stride, int accumulate,
                                 const uint64_t *mask, ptrdiff_t mask_stride) {
  if (!accumulate)
    for (ptrdiff_t r = 0; r < rows; r++) memset(c + r * c_stride, 0, (size_t)width * sizeof(float));
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += MASK_ROWS) {
    const ptrdiff_t n = rows - r0 < MASK_ROWS ? rows - r0 : MASK_ROWS;
    for (ptrdiff_t k0 = 0; k0 < depth; k0 += MASK_CHUNK) {
      const ptrdiff_t terms = depth - k0 < MASK_CHUNK ? depth - k0 : MASK_CHUNK;
      const ptrdiff_t words = (terms + 63) / 64;
      const uint64_t *first = mask + r0 * mask_stride + k0 / 64;
      uint64_t same[MASK_CHUNK / 64];  // bit k: all rows of the block agree about term k
      for (ptrdiff_t w = 0; w < words; w++) {
        uint64_t all = ~(uint64_t)0, any = 0;
        for (ptrdiff_t r = 0; r < n; r++) all &= first[r * mask_stride + w], any |= first[r * mask_stride + w];
        same[w] = all | ~any;
      }
      for (ptrdiff_t k = 0; k < terms;) {
        const int agree = (int)(same[k / 64] >> (k % 64)) & 1;
        const ptrdiff_t end = run_end(same, k, terms);
        for (ptrdiff_t r = 0; r < (agree ? 1 : n); r++) {
          const uint64_t *own = first + r * mask_stride;
          const ptrdiff_t together = agree ? n : 1;
          for (ptrdiff_t i = k; i < end;) {
            const ptrdiff_t stop = run_end(own, i, end);
            if ((own[i / 64] >> (i % 64)) & 1)
              panel_product(a + (r0 + r) * a_stride + k0 + i, a_stride, together, panel + (k0 + i) * width,
                            stop - i, width, c + (r0 + r) * c_stride, c_stride, 1);
            i = stop;
          }
        }
        k = end;
      }
    }
  }
}

// ---- softmax ------------------------------------------------------------------------------------

// The visible columns of block b of 16 columns.
INLINE uint32_t visible(const uint64_t *mask, ptrdiff_t b, ptrdiff_t keys) {
  const ptrdiff_t left = keys - 16 * b;
  const uint32_t inside = left >= 16 ? 0xffffu : (1u << left) - 1;
  return mask ? (uint32_t)(mask[b / 4] >> (16 * (b % 4))) & inside : inside;
}

static void softmax_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                         const uint64_t *mask, ptrdiff_t mask_stride, float *row_max, float *row_sum) {
  const ptrdiff_t blocks = (keys + 15) / 16, open = mask ? 0 : keys / 16;
  for (ptrdiff_t r = 0; r < rows; r++, s += s_stride, mask += mask ? mask_stride : 0) {
    v16 m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = splat(-INFINITE);
    ptrdiff_t b = 0;
    for (; b + 4 <= open; b += 4)
      UNROLL for (int i = 0; i < 4; i++) m[i] = largest(load(s + 16 * (b + i)), m[i]);
    for (; b < open; b++) m[0] = largest(load(s + 16 * b), m[0]);
    for (; b < blocks; b++)
      m[0] = largest(lanes(visible(mask, b, keys)) ? load(s + 16 * b) : splat(-INFINITE), m[0]);
    const float highest = largest_lane(largest(largest(m[0], m[1]), largest(m[2], m[3])));
    // −∞ − −∞ is never formed: where nothing is above −∞, weights are e^−∞ = 0 (or NaN stays NaN).
    const v16 base = splat(highest == -INFINITE ? 0.0f : highest);
    v16 sum = splat(0.0f);
    for (b = 0; b < open; b++) {
      const v16 e = exp_weight(load(s + 16 * b) - base);
      store(s + 16 * b, e);
      sum += e;
    }
    for (; b < blocks; b++) {
      const uint32_t bits_here = visible(mask, b, keys);
      v16 e = splat(0.0f);
      if (bits_here) e = lanes(bits_here) ? exp_weight(load(s + 16 * b) - base) : splat(0.0f);
      store(s + 16 * b, e);
      sum += e;
    }
    const float total = sum_lanes(sum);
    row_sum[r] = total;
    row_max[r] = total == total ? highest : NOT_A_NUMBER;
  }
}

static void merge_rows(ptrdiff_t rows, ptrdiff_t width,
                       float *left_max, float *left_sum, float *left_output, ptrdiff_t left_stride,
                       const float *right_max, const float *right_sum,
                       const float *right_output, ptrdiff_t right_stride) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    const float a = left_max[r], b = right_max[r];
    float *left = left_output + r * left_stride;
    const float *right = right_output + r * right_stride;
    if (b == -INFINITE) continue;
    if (a == -INFINITE) {
      left_max[r] = b;
      left_sum[r] = right_sum[r];
      memcpy(left, right, (size_t)width * sizeof(float));
      continue;
    }
    const float m = a == a && b == b ? (a > b ? a : b) : NOT_A_NUMBER;
    v16 difference = splat(0.0f);
    difference[0] = a - m;
    difference[1] = b - m;
    const v16 factor = exp_lanes(difference);
    const v16 x = splat(factor[0]), y = splat(factor[1]);
    left_max[r] = m;
    left_sum[r] = __builtin_fmaf(right_sum[r], factor[1], left_sum[r] * factor[0]);
    for (ptrdiff_t j = 0; j < width; j += 16) store(left + j, fused(load(right + j), y, load(left + j) * x));
  }
}

static void normalize_rows(ptrdiff_t rows, ptrdiff_t columns,
                           const float *row_max, const float *row_sum, const float *o, ptrdiff_t o_stride,
                           float *output, ptrdiff_t output_stride, float *log_sum_exp, ptrdiff_t log_sum_exp_stride) {
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += 16) {
    const ptrdiff_t n = rows - r0 < 16 ? rows - r0 : 16;
    const v16 logarithm = log_lanes(load_some(row_sum + r0, n));
    for (ptrdiff_t i = 0; i < n; i++) {
      const ptrdiff_t r = r0 + i;
      const float *in = o + r * o_stride;
      float *out = output + r * output_stride;
      const int empty = row_max[r] == -INFINITE;
      if (log_sum_exp) log_sum_exp[r * log_sum_exp_stride] = empty ? -INFINITE : row_max[r] + logarithm[i];
      if (empty) {
        memset(out, 0, (size_t)columns * sizeof(float));
        continue;
      }
      const v16 sum = splat(row_sum[r]);
      ptrdiff_t j = 0;
      for (; j + 16 <= columns; j += 16) store(out + j, load(in + j) / sum);
      if (j < columns) store_some(out + j, load_some(in + j, columns - j) / sum, columns - j);
    }
  }
}

// ---- packing ------------------------------------------------------------------------------------

static void pack_transposed(const float *source, ptrdiff_t source_stride, ptrdiff_t n, ptrdiff_t depth, float *panels) {
  for (ptrdiff_t column = 0; column < n; column += 64) {
    const ptrdiff_t count = n - column < 64 ? n - column : 64, width = (count + 15) / 16 * 16;
    float *panel = panels + column * depth;
    // Sixteen terms at a time, so that each line of the source is read whole.
    for (ptrdiff_t k0 = 0; k0 < depth; k0 += 16) {
      const ptrdiff_t stop = depth - k0 < 16 ? depth : k0 + 16;
      for (ptrdiff_t c = 0; c < count; c++)
        for (ptrdiff_t k = k0; k < stop; k++) panel[k * width + c] = source[(column + c) * source_stride + k];
      for (ptrdiff_t k = k0; k < stop; k++)
        for (ptrdiff_t c = count; c < width; c++) panel[k * width + c] = 0.0f;
    }
  }
}

static void pack_columns(const float *source, ptrdiff_t source_stride, ptrdiff_t depth, ptrdiff_t n, float *panels) {
  for (ptrdiff_t column = 0; column < n; column += 64) {
    const ptrdiff_t count = n - column < 64 ? n - column : 64, width = (count + 15) / 16 * 16;
    float *panel = panels + column * depth;
    for (ptrdiff_t k = 0; k < depth; k++) {
      memcpy(panel + k * width, source + k * source_stride + column, (size_t)count * sizeof(float));
      memset(panel + k * width + count, 0, (size_t)(width - count) * sizeof(float));
    }
  }
}

// ---- rows ---------------------------------------------------------------------------------------

// y[j] = value of x (and of whatever else the expression loads at j) for one row of n elements.
// AT(p) inside the expression is the vector of p at the current column, whole or partial.
#define AT(p) (left < 16 ? load_some((p) + j, left) : load((p) + j))
#define FOR_COLUMNS(n, y, expression)                                    \
  for (ptrdiff_t j = 0; j < (n); j += 16) {                              \
    if ((n) - j >= 16) {                                                 \
      enum { left = 16 };                                                \
      store((y) + j, expression);                                        \
    } else {                                                             \
      const ptrdiff_t left = (n) - j;                                    \
      store_some((y) + j, expression, left);                             \
    }                                                                    \
  }

static void add_bias(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias) {
  if (!bias) return;
  for (; rows > 0; rows--, x += stride) FOR_COLUMNS(columns, x, AT(x) + AT(bias))
}

#define ACTIVATION(name, function)                                                                     \
  static void name(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias) { \
    for (; rows > 0; rows--, x += stride) {                                                            \
      if (bias) FOR_COLUMNS(columns, x, function(AT(x) + AT(bias)))                                    \
      else FOR_COLUMNS(columns, x, function(AT(x)))                                                    \
    }                                                                                                  \
  }
ACTIVATION(gelu_bias, gelu_lanes)
ACTIVATION(gelu_tanh_bias, gelu_tanh_lanes)

static void gated_gelu(ptrdiff_t rows, ptrdiff_t columns, const float *x, const float *gate, ptrdiff_t stride,
                       float *y, ptrdiff_t y_stride) {
  for (; rows > 0; rows--, x += stride, gate += stride, y += y_stride)
    FOR_COLUMNS(columns, y, gelu_lanes(AT(x)) * AT(gate))
}

static void layer_norm(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *bias,
                       const float *residual, ptrdiff_t residual_stride,
                       const float *gamma, const float *beta, float epsilon, float *y, ptrdiff_t y_stride) {
  for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
    const float *skip = residual ? residual + r * residual_stride : NULL;
    v16 sum = splat(0.0f), squares = splat(0.0f);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const ptrdiff_t left = columns - j;
      v16 t = AT(x);
      if (bias) t += AT(bias);
      if (skip) t += AT(skip);
      if (left < 16) store_some(y + j, t, left);
      else store(y + j, t);
      sum += t;
    }
    const v16 mean = splat(sum_lanes(sum) / (float)columns);
    for (ptrdiff_t j = 0; j < columns; j += 16) {
      const ptrdiff_t left = columns - j;
      v16 d = AT(y) - mean;
      if (left < 16) d = lanes((1u << left) - 1) ? d : splat(0.0f);
      squares = fused(d, d, squares);
    }
    const float variance = sum_lanes(squares) / (float)columns;
    const v16 scale = splat(1.0f / __builtin_sqrtf(variance + epsilon));
    if (beta) FOR_COLUMNS(columns, y, fused((AT(y) - mean) * scale, AT(gamma), AT(beta)))
    else FOR_COLUMNS(columns, y, (AT(y) - mean) * scale * AT(gamma))
  }
}

// ---- functions over arrays ----------------------------------------------------------------------

#define ARRAY_FUNCTION(name, function) \
  static void name(const float *x, float *y, ptrdiff_t n) { FOR_COLUMNS(n, y, function(AT(x))) }
ARRAY_FUNCTION(exp_array, exp_lanes)
ARRAY_FUNCTION(log_array, log_lanes)
ARRAY_FUNCTION(erf_array, erf_lanes)
ARRAY_FUNCTION(tanh_array, tanh_lanes)

// As many independent chains as the largest register block has, eight steps a round.
static double peak(ptrdiff_t iterations, float *sink) {
  v16 sum[ACCUMULATORS];
  const v16 factor = splat(*sink), term = splat(1e-9f);
  UNROLL for (int i = 0; i < ACCUMULATORS; i++) sum[i] = splat((float)i);
  for (ptrdiff_t n = 0; n < iterations; n++)
    UNROLL for (int step = 0; step < 8; step++)
      UNROLL for (int i = 0; i < ACCUMULATORS; i++) sum[i] = fused(sum[i], factor, term);
  v16 all = sum[0];
  UNROLL for (int i = 1; i < ACCUMULATORS; i++) all += sum[i];
  *sink = sum_lanes(all);
  return 2.0 * 16.0 * 8.0 * (double)ACCUMULATORS * (double)iterations;
}

#define STRING(x) #x
#define NAME_OF(x) STRING(x)
#define JOINED(a, b) a##b
#define TABLE_OF(x) JOINED(annulus_kernels_, x)

const annulus_kernels TABLE_OF(ANNULUS_SET) = {
  .name = NAME_OF(ANNULUS_SET),
  .panel_product = panel_product,
  .masked_panel_product = masked_panel_product,
  .softmax_rows = softmax_rows,
  .merge_rows = merge_rows,
  .normalize_rows = normalize_rows,
  .pack_transposed = pack_transposed,
  .pack_columns = pack_columns,
  .add_bias = add_bias,
  .gelu_bias = gelu_bias,
  .gelu_tanh_bias = gelu_tanh_bias,
  .gated_gelu = gated_gelu,
  .layer_norm = layer_norm,
  .exp = exp_array,
  .log = log_array,
  .erf = erf_array,
  .tanh = tanh_array,
  .peak = peak,
};
