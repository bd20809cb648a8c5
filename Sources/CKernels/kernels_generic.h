// The one source of every kernel set, written over vectors of 16 floats and included once by each
// set's file, which fixes the instruction set and the register blocking:
//
//   ANNULUS_SET     the C identifier and name of the set
//   PANEL_VECTORS   vectors of 16 columns that a register block holds (1, 2 or 4)
//   ROWS_1 … ROWS_4 rows of a register block that is 1 … 4 vectors wide
//   ACCUMULATORS    vectors of the largest register block
//   TABLE_LOOKUP, TABLED_WEIGHTS  optionally, as vectors.h says
//   TILE_ROWS       optionally, rows that meet all keys of a tile at once (12): the more of them, the less often the panels come from the
//                   second-level cache, and the more of the first is filled with their scores
//   FOUR_TERMS      optionally, (rows, sum, a, a_stride, panel): four terms of a register block one vector wide
//   OWN_BLOCKS      optionally, the name of a file with register blocks in the set's own words and with the same bits
//
// A vector of 16 lanes is one AVX-512 register, two of AVX2, four of NEON. Because the arithmetic is written once, in fused
// multiply-adds and in a fixed order, every set yields the same bits, but for the weights of the softmax: they have those of a
// table where a look-up is one instruction, and of a polynomial elsewhere (vectors.h).
// Polynomials are our own minimax fits (Remez exchange against 30-digit values, coefficients then
// rounded to float32); the bound in each comment is what the tests check.
#include "vectors.h"

#ifndef TILE_ROWS
#define TILE_ROWS 12
#endif
_Static_assert(TILE_ROWS <= ANNULUS_SCRATCH_ROWS, "the scores of these rows have no room");

// ---- elementary functions -----------------------------------------------------------------------

// e^x, below 1 ulp for every x, denormal results included; overflow gives infinity, NaN passes.
INLINE v16 exp_lanes(v16 x) {
  const v16 round = splat(0x1.8p23f);
  const v16 t = fused(x, splat(0x1.715476p+0f), round);
  const v16 n = t - round;
  v16 r = fused(n, splat(-0x1.62e4p-1f), x);
  r = fused(n, splat(-0x1.7f7d1cp-20f), r);
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

// e^(−(u + u_low)·scale) for u ≥ 0 and a power of two for scale, u_low below an ulp of u, in the form of `exact_weight`
// (vectors.h). Where that is no normal number, it is less than the smallest of them off.
INLINE v16 exp_minus(v16 u, v16 u_low, float scale) {
  const float steps = -0x1.715476p+5f * scale, steps_low = -0x1.4ae0cp-21f * scale;
  const v16 round = splat(0x1.8p23f);
  const v16 t = fused(u, splat(steps), round), n = t - round;
  v16 f = fused(u, splat(steps), -n);
  f = fused(u, splat(steps_low), fused(u_low, splat(steps), f));
  const i16 power = (bits(t) << 18) + TABLE_LOOKUP(bits(t));
  return power_of_step(from_bits(power > 0 ? power : 0), f);
}

// ½·erfc(a/√2) for a ≥ 0, the normal distribution's upper tail, as two factors: e^(−a²/2), returned,
// and its Mills ratio (a polynomial in t = 1/(1 + a/4)). Relative accuracy over the whole tail; the
// product is left to the caller, who has a factor that keeps it from underflowing early. The caller
// also gives x with a²/2 = x²·scale.
INLINE v16 upper_tail(v16 a, v16 x, float scale, v16 *ratio) {
  const v16 t = splat(4.0f) / (a + splat(4.0f));
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
  const v16 u = x * x;
  return exp_minus(u, fused(x, x, -u), scale);
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
  const v16 b = a > splat(6.0f) ? splat(6.0f) : a;
  v16 ratio;
  const v16 exponential = upper_tail(b * splat(0x1.6a09e6p+0f), b, 1.0f, &ratio);
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
// sides, below 7 ulp, until the tail underflows; from there on, about −13.2, less than the smallest
// normal number off. Zero at −∞.
INLINE v16 gelu_lanes(v16 x) {
  const v16 a = absolute(x), b = a > splat(15.0f) ? splat(15.0f) : a;
  v16 ratio;
  const v16 exponential = upper_tail(b, b, 0.5f, &ratio);
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

// x·σ(x) = x / (1 + e^(−x)) = x·e^x / (1 + e^x), the form whose exponential does not overflow. Below 3.5 ulp until the
// result is denormal.
INLINE v16 silu_lanes(v16 x) {
  const v16 e = exp_lanes(-absolute(x));
  const v16 y = (x > splat(0.0f) ? x : x * e) / (e + splat(1.0f));
  return x < splat(-110.0f) ? splat(-0.0f) : y;
}

INLINE v16 relu_lanes(v16 x) { return x < splat(0.0f) ? splat(0.0f) : x; }

// ---- panel products -----------------------------------------------------------------------------

#ifdef OWN_BLOCKS
#include OWN_BLOCKS
#else
// All terms of a register block: a chain of fused multiply-adds for each of its `rows` × 16·`vectors` sums. Meanwhile a line of
// `ahead` for each four terms is fetched into the second-level cache.
INLINE void add_terms(const int rows, const int vectors, const float *a, ptrdiff_t a_stride, const float *panels, ptrdiff_t stride,
                      ptrdiff_t depth, const float *ahead, v16 *sum) {
  ptrdiff_t k = 0;
#ifdef FOUR_TERMS
  for (; k + 4 <= depth; k += 4, panels += 64) {
    __builtin_prefetch(ahead + 4 * k, 0, 2);
    FOUR_TERMS(rows, sum, a + k, a_stride, panels);
  }
#endif
  for (; k < depth; k++, panels += 16) {
    v16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load(panels + v * stride);
    __builtin_prefetch(ahead + 4 * k, 0, 2);
    UNROLL for (int r = 0; r < rows; r++) {
      const v16 x = splat(a[r * a_stride + k]);
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = fused(x, b[v], sum[r * vectors + v]);
    }
  }
}
#endif

// Whether a block's place in C is fetched while its terms are added: it may be anywhere, and a store that waits for its line makes
// those behind it wait. A block of few terms has no time for it, and one that goes on reads it first.
INLINE int far(ptrdiff_t depth, int accumulate) { return accumulate != ANNULUS_CONTINUE && depth >= 128; }

// One register block of C.
INLINE void register_block(const int rows, const int vectors, const float *a, ptrdiff_t a_stride,
                           const float *panels, ptrdiff_t depth, ptrdiff_t stride,
                           float *c, ptrdiff_t c_stride, int accumulate, const float *ahead) {
  v16 sum[ACCUMULATORS];
  if (far(depth, accumulate))
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < vectors; v++) __builtin_prefetch(c + r * c_stride + 16 * v, 1, 3);
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r * vectors + v] = accumulate == ANNULUS_CONTINUE ? load(c + r * c_stride + 16 * v) : splat(0.0f);
  add_terms(rows, vectors, a, a_stride, panels, stride, depth, ahead, sum);
  if (accumulate == ANNULUS_ADD)
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] += load(c + r * c_stride + 16 * v);
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

// All rows of a column group `vectors` wide: blocks of `full` rows, then of 6, 4, 2 and 1. Each fetches its part of what comes next,
// from `ahead` to `end`.
#define GROUP_OPERANDS                                                                                        \
  const float *a, ptrdiff_t a_stride, ptrdiff_t rows, const float *panels, ptrdiff_t depth, ptrdiff_t stride, \
      float *c, ptrdiff_t c_stride
#define ROW_BLOCKS(count, vectors)                                                                       \
  for (; rows >= count; rows -= count, a += count * a_stride, c += count * c_stride) {                   \
    register_block(count, vectors, a, a_stride, panels, depth, stride, c, c_stride, accumulate, ahead);  \
    if (ahead < end) ahead += depth / 4 * 16;                                                            \
  }
#define COLUMN_GROUP(vectors, full)                                                                           \
  INLINE void column_group_##vectors(GROUP_OPERANDS, int accumulate, const float *ahead, const float *end) {  \
    ROW_BLOCKS(full, vectors)                                                                                 \
    if (full > 6) ROW_BLOCKS(6, vectors)                                                                      \
    if (full > 4) ROW_BLOCKS(4, vectors)                                                                      \
    ROW_BLOCKS(2, vectors)                                                                                    \
    ROW_BLOCKS(1, vectors)                                                                                    \
  }
#ifdef OWN_BLOCKS
INLINE void column_group_with(GROUP_OPERANDS, const int accumulate, const float *ahead, const float *end) {
  if (rows >= 6 && depth > 0) {
    block k = {.stride = c_stride};
    first_block(&k, a, a_stride, panels, depth, c, accumulate, ahead);
    for (;;) {
      if (ahead < end) ahead += depth / 4 * 16;
      rows -= 6, a += 6 * a_stride, c += 6 * c_stride;
      if (rows < 6) break;
      if (far(depth, accumulate)) UNROLL for (int r = 0; r < 6; r++) __builtin_prefetch(c + r * c_stride, 1, 3);
      next_block(&k, a, a_stride, panels, depth, c, accumulate, ahead);
    }
    last_block(&k, accumulate);
  }
  ROW_BLOCKS(6, 1)
  ROW_BLOCKS(4, 1)
  ROW_BLOCKS(2, 1)
  ROW_BLOCKS(1, 1)
}
INLINE void column_group_1(GROUP_OPERANDS, int accumulate, const float *ahead, const float *end) {
#define WITH(how) column_group_with(a, a_stride, rows, panels, depth, stride, c, c_stride, how, ahead, end)
  switch (accumulate) {
    case ANNULUS_START: WITH(ANNULUS_START); break;
    case ANNULUS_CONTINUE: WITH(ANNULUS_CONTINUE); break;
    default: WITH(ANNULUS_ADD);
  }
#undef WITH
}
#else
COLUMN_GROUP(1, ROWS_1)
#endif
#if PANEL_VECTORS >= 2
COLUMN_GROUP(2, ROWS_2)
#endif
#if PANEL_VECTORS >= 4
COLUMN_GROUP(3, ROWS_3)
COLUMN_GROUP(4, ROWS_4)
#endif

// panel_product, which meanwhile fetches so many floats from `ahead` on, or as many as it has time for. Not a function that
// panel_product calls: handing on what lies on the stack waits for stores as long as a tenth of a small block takes.
INLINE void product_fetching(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                             const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                             float *c, ptrdiff_t c_stride, int accumulate, const float *ahead, ptrdiff_t fetched) {
  ptrdiff_t column = 0;
#if PANEL_VECTORS >= 4
  if (columns == 64) {
    column_group_4(a, a_stride, rows, panels, depth, stride, c, c_stride, accumulate, ahead, ahead + fetched);
    return;
  }
  if (columns == 48) {
    column_group_3(a, a_stride, rows, panels, depth, stride, c, c_stride, accumulate, ahead, ahead + fetched);
    return;
  }
#endif
  // Each group of columns has its part.
  const ptrdiff_t part = fetched / columns;
#if PANEL_VECTORS >= 2
  for (; column + 32 <= columns; column += 32, ahead += 32 * part)
    column_group_2(a, a_stride, rows, panels + column / 16 * stride, depth, stride, c + column, c_stride, accumulate, ahead,
                   ahead + 32 * part);
#endif
  for (; column < columns; column += 16, ahead += 16 * part)
    column_group_1(a, a_stride, rows, panels + column / 16 * stride, depth, stride, c + column, c_stride, accumulate, ahead,
                   ahead + 16 * part);
}

// In a dense layer what follows these panels are the next ones of weights.
static void panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                          const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                          float *c, ptrdiff_t c_stride, int accumulate) {
  product_fetching(a, a_stride, rows, panels, depth, stride, columns, c, c_stride, accumulate, panels + columns / 16 * stride, 48 * depth);
}

#if PANEL_VECTORS >= 4
// A few terms, each seen by some rows of a strip: all rows run through them, and a term that a row does not see leaves
// its sums as they are.
INLINE void select_block(const int vectors, const float *a, ptrdiff_t a_stride, const float *panels, ptrdiff_t first,
                         ptrdiff_t end, ptrdiff_t stride, float *c, ptrdiff_t c_stride,
                         const uint64_t *mask, ptrdiff_t mask_stride) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < ROWS_4; r++)
    UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = load(c + r * c_stride + 16 * v);
  for (ptrdiff_t k = first; k < end; k++) {
    v16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load(panels + v * stride + 16 * k);
    UNROLL for (int r = 0; r < ROWS_4; r++) {
      const v16 x = splat(a[r * a_stride + k]);
      const i16 seen = (i16)(-(int32_t)(mask[r * mask_stride + k / 64] >> (k % 64) & 1));
      UNROLL for (int v = 0; v < vectors; v++)
        sum[r * vectors + v] = seen ? fused(x, b[v], sum[r * vectors + v]) : sum[r * vectors + v];
    }
  }
  UNROLL for (int r = 0; r < ROWS_4; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

// Whether a strip of `rows` rows took the terms first ..< end, in which its rows differ, together: worth it where they are
// few, as at the edge of a causal mask, for there each row's own runs are shorter than a multiply-add's latency.
static int select_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows, const float *panels, ptrdiff_t first,
                          ptrdiff_t end, ptrdiff_t stride, ptrdiff_t columns, float *c, ptrdiff_t c_stride,
                          const uint64_t *mask, ptrdiff_t mask_stride) {
  if (rows != ROWS_4 || end - first > 16) return 0;
#define SELECT(vectors) select_block(vectors, a, a_stride, panels, first, end, stride, c, c_stride, mask, mask_stride)
  switch (columns) {
    case 64: SELECT(4); return 1;
    case 48: SELECT(3); return 1;
    case 32: SELECT(2); return 1;
    default: SELECT(1); return 1;
  }
#undef SELECT
}
#else
#define select_product(...) 0  // There are too few registers to gain anything.
#endif

// Blocks of rows: a stretch of terms that all rows see is one dense product; where the rows differ over more than a few
// terms, each row takes its own runs. Every element still sees its terms in ascending order.
static void masked_panel_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                 const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                                 float *c, ptrdiff_t c_stride, int accumulate,
                                 const uint64_t *mask, ptrdiff_t mask_stride) {
  if (!accumulate)
    for (ptrdiff_t r = 0; r < rows; r++) memset(c + r * c_stride, 0, (size_t)columns * sizeof(float));
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
        const int taken = !agree && select_product(a + r0 * a_stride + k0, a_stride, n, panels + 16 * k0, k, end, stride, columns,
                                                          c + r0 * c_stride, c_stride, first, mask_stride);
        for (ptrdiff_t r = 0; r < (taken ? 0 : agree ? 1 : n); r++) {
          const uint64_t *own = first + r * mask_stride;
          const ptrdiff_t together = agree ? n : 1;
          for (ptrdiff_t i = k; i < end;) {
            const ptrdiff_t stop = run_end(own, i, end);
            if ((own[i / 64] >> (i % 64)) & 1)
              panel_product(a + (r0 + r) * a_stride + k0 + i, a_stride, together, panels + 16 * (k0 + i),
                            stop - i, stride, columns, c + (r0 + r) * c_stride, c_stride, 1);
            i = stop;
          }
        }
        k = end;
      }
    }
  }
}

// ---- softmax ------------------------------------------------------------------------------------

#ifndef OWN_BLOCKS
// 64 scores become weights; returns their lane sums, added to those before.
INLINE v16 weigh_64(float *s, float base, v16 sum) {
  v16 e[4];
  UNROLL for (int i = 0; i < 4; i++) {
    e[i] = weight_lanes(load(s + 16 * i) - splat(base));
    store(s + 16 * i, e[i]);
  }
  UNROLL for (int i = 0; i < 4; i++) sum += e[i];
  return sum;
}
#endif

// A row's scores become weights; returns their lane sums.
INLINE v16 row_weights(float *s, ptrdiff_t keys, const uint64_t *mask, float base_of_row) {
  const v16 base = splat(base_of_row);
  v16 sum = splat(0.0f);
  for (ptrdiff_t first = 0; first < keys; first += 64) {
    if (all_visible(mask, first, keys)) {
      sum = weigh_64(s + first, base_of_row, sum);
      continue;
    }
    for (ptrdiff_t b = first / 16; b < first / 16 + 4 && 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      v16 e = splat(0.0f);
      if (seen) e = lanes(seen) ? weight_lanes(load(s + 16 * b) - base) : splat(0.0f);
      store(s + 16 * b, e);
      sum += e;
    }
  }
  return sum;
}

static void softmax_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                         const uint64_t *mask, ptrdiff_t mask_stride, float *row_max, float *row_sum) {
  // One pass over sixteen rows for each step: their ends are made together.
  for (; rows > 0; rows -= 16, s += 16 * s_stride, row_max += 16, row_sum += 16) {
    const ptrdiff_t n = rows < 16 ? rows : 16;
    v16 of_lanes[16];
    for (ptrdiff_t r = 0; r < n; r++) of_lanes[r] = row_maxima(s + r * s_stride, keys, mask ? mask + r * mask_stride : NULL);
    for (ptrdiff_t r = n; r < 16; r++) of_lanes[r] = splat(-INFINITE);
    const v16 highest = largest_each(of_lanes);
    const i16 empty = highest == splat(-INFINITE);
    float base[16];
    store(base, empty ? splat(0.0f) : highest);  // −∞ − −∞ is never formed.
    for (ptrdiff_t r = 0; r < n; r++)
      of_lanes[r] = row_weights(s + r * s_stride, keys, mask ? mask + r * mask_stride : NULL, base[r]);
    for (ptrdiff_t r = n; r < 16; r++) of_lanes[r] = splat(0.0f);
    // NaN weights make the row NaN, and where nothing is above −∞ nothing weighs.
    const v16 sums = sum_each(of_lanes);
    store_up_to(row_max, sums == sums ? highest : sums, n);
    store_up_to(row_sum, (sums == sums) & empty ? splat(0.0f) : sums, n);
    if (mask) mask += 16 * mask_stride;
  }
}

static void receive_rows(const float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                         const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                         const float *row_max, const float *factor, float *mass) {
  const v16 steps = splat(scale);
  for (ptrdiff_t r = 0; r < rows; r++, s += s_stride, mask = mask ? mask + mask_stride : NULL) {
    if (row_max[r] == -INFINITE) continue;
    const v16 base = splat(row_base(row_max[r])), of_row = splat(factor[r]);
    for (ptrdiff_t b = 0; 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      if (!seen) continue;
      const ptrdiff_t n = keys - 16 * b < 16 ? keys - 16 * b : 16;
      const v16 sum = load_up_to(mass + 16 * b, n);
      const v16 more = fused(weight_lanes(load(s + 16 * b) * steps - base), of_row, sum);
      store_up_to(mass + 16 * b, lanes(seen) ? more : sum, n);
    }
  }
}

static void scale_rows(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, float factor,
                       float *target, ptrdiff_t target_stride) {
  for (ptrdiff_t r = 0; r < rows; r++, source += source_stride, target += target_stride) {
    ptrdiff_t j = 0;
    for (; j + 16 <= columns; j += 16) {
      // What follows in the row are the queries of the next head, which is attended next.
      __builtin_prefetch(source + columns + j, 0, 2);
      store(target + j, load(source + j) * factor);
    }
    if (j < columns) store_some(target + j, load_some(source + j, columns - j) * factor, columns - j);
  }
}

static void merge_rows(ptrdiff_t rows, ptrdiff_t width,
                       float *left_max, float *left_sum, float *left_output, ptrdiff_t left_stride,
                       const float *right_max, const float *right_sum,
                       const float *right_output, ptrdiff_t right_stride) {
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += 16) {
    const ptrdiff_t n = rows - r0 < 16 ? rows - r0 : 16;
    const v16 a = load_up_to(left_max + r0, n), b = load_up_to(right_max + r0, n);
    const i16 no_left = a == splat(-INFINITE), no_right = b == splat(-INFINITE);
    const v16 m = ((a == a) & (b == b)) ? largest(a, b) : splat(NOT_A_NUMBER);
    const v16 x = exact_weight(a - m), y = exact_weight(b - m);
    const v16 left = load_up_to(left_sum + r0, n), right = load_up_to(right_sum + r0, n);
    const v16 sum = no_left ? right : fused(right, y, left * x);
    store_up_to(left_max + r0, no_right ? a : no_left ? b : m, n);
    store_up_to(left_sum + r0, no_right ? left : sum, n);
    float factors[2][16];
    store(factors[0], x);
    store(factors[1], y);
    for (ptrdiff_t i = 0; i < n; i++) {
      float *mine = left_output + (r0 + i) * left_stride;
      const float *other = right_output + (r0 + i) * right_stride;
      if (no_right[i]) continue;
      if (no_left[i]) {
        memcpy(mine, other, (size_t)width * sizeof(float));
        continue;
      }
      const v16 of_mine = splat(factors[0][i]), of_other = splat(factors[1][i]);
      for (ptrdiff_t j = 0; j < width; j += 16) store(mine + j, fused(load(other + j), of_other, load(mine + j) * of_mine));
    }
  }
}

static void normalize_rows(ptrdiff_t rows, ptrdiff_t columns,
                           const float *row_max, const float *row_sum, const float *o, ptrdiff_t o_stride,
                           float *output, ptrdiff_t output_stride, float *log_sum_exp, ptrdiff_t log_sum_exp_stride) {
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += 16) {
    const ptrdiff_t n = rows - r0 < 16 ? rows - r0 : 16;
    // ln ℓ + m·ln2/32, the constant in two parts.
    const v16 m = load_up_to(row_max + r0, n), logarithm = log_lanes(load_up_to(row_sum + r0, n));
    const v16 natural = fused(m, splat(0x1.62e43p-6f), fused(m, splat(-0x1.05c61p-34f), logarithm));
    for (ptrdiff_t i = 0; i < n; i++) {
      const ptrdiff_t r = r0 + i;
      const float *in = o + r * o_stride;
      float *out = output + r * output_stride;
      const int empty = row_max[r] == -INFINITE;
      if (log_sum_exp) log_sum_exp[r * log_sum_exp_stride] = empty ? -INFINITE : natural[i];
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

// ---- statistics ---------------------------------------------------------------------------------

#include "statistics_generic.h"

// ---- fused attention ----------------------------------------------------------------------------


// `rows` rows against a whole tile, which meanwhile fetch `fetched` floats from `ahead` on.
static void attend_rows(const float *q, ptrdiff_t q_stride, ptrdiff_t rows, const float *k_panels, ptrdiff_t depth,
                        const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                        float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scores, const float *ahead,
                        ptrdiff_t fetched, const annulus_statistics *statistics) {
  const ptrdiff_t stride = (keys + 15) / 16 * 16, columns = (value_columns + 15) / 16 * 16;
  for (ptrdiff_t key = 0; key < keys; key += 64) {
    panel_product(q, q_stride, rows, k_panels + key * depth, depth, 16 * depth, product_columns(stride - key), scores + key, stride, 0);
  }
  if (statistics) observe_rows(scores, stride, rows, keys, NULL, 0, row_max, row_sum, statistics);
  else softmax_rows(scores, stride, rows, keys, NULL, 0, row_max, row_sum);
  const ptrdiff_t part = fetched / columns;
  for (ptrdiff_t column = 0; column < columns; column += 64) {
    const ptrdiff_t width = product_columns(columns - column);
    product_fetching(scores, stride, rows, v_panels + column * keys, keys, 16 * keys, width, o + column, o_stride, 0, ahead + column * part,
                     width * part);
  }
}

static void attend_tile_with(const float *q, ptrdiff_t q_stride, ptrdiff_t rows, const float *k_panels, ptrdiff_t depth,
                             const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                             float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch, const float *ahead,
                             const annulus_statistics *statistics) {
  // What so many rows fetch of the next tile, in whole lines.
  const ptrdiff_t share = (keys * (depth + value_columns) * TILE_ROWS / (rows > 0 ? rows : 1) + 15) / 16 * 16;
  for (ptrdiff_t r = 0, n; r < rows; r += n, ahead += share) {
    n = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
    annulus_statistics of_rows;
    if (statistics) of_rows = statistics_from(statistics, r);
    attend_rows(q + r * q_stride, q_stride, n, k_panels, depth, v_panels, value_columns, keys, row_max + r, row_sum + r,
                o + r * o_stride, o_stride, scratch, ahead, share, statistics ? &of_rows : NULL);
  }
}

static void attend_tile(const float *q, ptrdiff_t q_stride, ptrdiff_t rows,
                        const float *k_panels, ptrdiff_t depth,
                        const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                        float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch, const float *ahead) {
  attend_tile_with(q, q_stride, rows, k_panels, depth, v_panels, value_columns, keys, row_max, row_sum, o, o_stride, scratch, ahead, NULL);
}

static void observe_tile(const float *q, ptrdiff_t q_stride, ptrdiff_t rows,
                         const float *k_panels, ptrdiff_t depth,
                         const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                         float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch, const float *ahead,
                         const annulus_statistics *statistics) {
  attend_tile_with(q, q_stride, rows, k_panels, depth, v_panels, value_columns, keys, row_max, row_sum, o, o_stride, scratch, ahead, statistics);
}

// ---- packing ------------------------------------------------------------------------------------

static void pack_transposed(const float *source, ptrdiff_t source_stride, ptrdiff_t n, ptrdiff_t depth, float *panels,
                            ptrdiff_t stride) {
  for (ptrdiff_t column = 0; column < n; column += 16, panels += stride) {
    const ptrdiff_t count = n - column < 16 ? n - column : 16;
    const float *block = source + column * source_stride;
    for (ptrdiff_t k0 = 0; k0 < depth; k0 += 16) {
      const ptrdiff_t stop = depth - k0 < 16 ? depth : k0 + 16;
      if (stop - k0 == 16 && count == 16) {
        v16 x[16];
        UNROLL for (int i = 0; i < 16; i++) x[i] = load(block + i * source_stride + k0);
        transpose(x);
        UNROLL for (int i = 0; i < 16; i++) store(panels + 16 * (k0 + i), x[i]);
        continue;
      }
      for (ptrdiff_t c = 0; c < 16; c++)
        for (ptrdiff_t k = k0; k < stop; k++) panels[16 * k + c] = c < count ? block[c * source_stride + k] : 0.0f;
    }
  }
}

static void pack_columns(const float *source, ptrdiff_t source_stride, ptrdiff_t depth, ptrdiff_t n, float *panels, ptrdiff_t stride) {
  for (ptrdiff_t column = 0; column < n; column += 16, panels += stride) {
    const ptrdiff_t count = n - column < 16 ? n - column : 16;
    for (ptrdiff_t k = 0; k < depth; k++) store(panels + 16 * k, load_up_to(source + k * source_stride + column, count));
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
ACTIVATION(silu_bias, silu_lanes)
ACTIVATION(relu_bias, relu_lanes)
ACTIVATION(tanh_bias, tanh_lanes)

static void gate_rows(ptrdiff_t rows, ptrdiff_t columns, const float *x, const float *gate, ptrdiff_t stride,
                      float *y, ptrdiff_t y_stride) {
  for (; rows > 0; rows--, x += stride, gate += stride, y += y_stride) FOR_COLUMNS(columns, y, AT(x) * AT(gate))
}

// x + bias + skip at 16 columns, of which the first `count` are there; bias and skip may be NULL.
INLINE v16 sum_of_terms(const float *x, const float *bias, const float *skip, ptrdiff_t j, ptrdiff_t count) {
  v16 t = load_up_to(x + j, count);
  if (bias) t += load_up_to(bias + j, count);
  if (skip) t += load_up_to(skip + j, count);
  return t;
}

static void layer_norm(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *bias,
                       const float *residual, ptrdiff_t residual_stride,
                       const float *gamma, const float *beta, float epsilon, float *y, ptrdiff_t y_stride) {
  const ptrdiff_t whole = columns / 16 * 16, rest = columns - whole;
  for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
    const float *skip = residual ? residual + r * residual_stride : NULL;
    v16 sum = splat(0.0f), squares = splat(0.0f);
    for (ptrdiff_t j = 0; j < whole; j += 16) {
      const v16 t = sum_of_terms(x, bias, skip, j, 16);
      // The residual comes from memory, and a row is too short for the hardware to see it coming.
      if (skip) __builtin_prefetch(skip + 2 * residual_stride + j, 1, 3);
      store(y + j, t);
      sum += t;
    }
    if (rest) {
      const v16 t = sum_of_terms(x, bias, skip, whole, rest);
      store_some(y + whole, t, rest);
      sum += t;
    }
    const v16 mean = splat(sum_lanes(sum) / (float)columns);
    for (ptrdiff_t j = 0; j < whole; j += 16) {
      const v16 d = load(y + j) - mean;
      squares = fused(d, d, squares);
    }
    if (rest) {
      const v16 d = lanes((1u << rest) - 1) ? load_some(y + whole, rest) - mean : splat(0.0f);
      squares = fused(d, d, squares);
    }
    const float variance = sum_lanes(squares) / (float)columns;
    const v16 scale = splat(1.0f) / __builtin_elementwise_sqrt(splat(variance + epsilon));
    if (beta) FOR_COLUMNS(columns, y, fused((AT(y) - mean) * scale, AT(gamma), AT(beta)))
    else FOR_COLUMNS(columns, y, (AT(y) - mean) * scale * AT(gamma))
  }
}

static void rms_norm(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *bias,
                     const float *residual, ptrdiff_t residual_stride,
                     const float *gamma, const float *beta, float epsilon, float *y, ptrdiff_t y_stride) {
  const ptrdiff_t whole = columns / 16 * 16, rest = columns - whole;
  for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
    const float *skip = residual ? residual + r * residual_stride : NULL;
    v16 squares = splat(0.0f);
    for (ptrdiff_t j = 0; j < whole; j += 16) {
      const v16 t = sum_of_terms(x, bias, skip, j, 16);
      store(y + j, t);
      squares = fused(t, t, squares);
    }
    if (rest) {
      const v16 t = sum_of_terms(x, bias, skip, whole, rest);
      store_some(y + whole, t, rest);
      squares = fused(t, t, squares);
    }
    const v16 scale = splat(1.0f) / __builtin_elementwise_sqrt(splat(sum_lanes(squares) / (float)columns + epsilon));
    if (beta) FOR_COLUMNS(columns, y, fused(AT(y) * scale, AT(gamma), AT(beta)))
    else FOR_COLUMNS(columns, y, AT(y) * scale * AT(gamma))
  }
}

// ---- functions over arrays ----------------------------------------------------------------------

#define ARRAY_FUNCTION(name, function) \
  static void name(const float *x, float *y, ptrdiff_t n) { FOR_COLUMNS(n, y, function(AT(x))) }
ARRAY_FUNCTION(exp_array, exp_lanes)
ARRAY_FUNCTION(log_array, log_lanes)
ARRAY_FUNCTION(erf_array, erf_lanes)
ARRAY_FUNCTION(tanh_array, tanh_lanes)

// ---- score modifiers ----------------------------------------------------------------------------

// What the distances δ, δ + 1, … of 16 keys add.
INLINE v16 relative_bias(const float *bias, ptrdiff_t reach, ptrdiff_t delta) {
  if (delta >= -reach && delta + 15 <= reach) return load(bias + reach + delta);
  v16 y;
  for (int lane = 0; lane < 16; lane++) {
    const ptrdiff_t d = delta + lane;
    y[lane] = bias[reach + (d < -reach ? -reach : d > reach ? reach : d)];
  }
  return y;
}

static void modify_scores(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys, float scale, float cap,
                          const float *bias, ptrdiff_t reach, float slope, ptrdiff_t distance, float steps) {
  const v16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (ptrdiff_t r = 0; r < rows; r++, s += s_stride) {
    if (scale != 1.0f) FOR_COLUMNS(keys, s, AT(s) * splat(scale))
    if (cap > 0.0f) FOR_COLUMNS(keys, s, tanh_lanes(AT(s) / splat(cap)) * splat(cap))
    if (bias) FOR_COLUMNS(keys, s, AT(s) + relative_bias(bias, reach, distance - r + j))
    if (slope != 0.0f)
      FOR_COLUMNS(keys, s, AT(s) - splat(slope) * absolute(splat((float)(distance - r + j)) + places))
    FOR_COLUMNS(keys, s, AT(s) * splat(steps))
  }
}

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
#ifdef TABLED_WEIGHTS
  .tabled_weights = 1,
#endif
  .panel_product = panel_product,
  .masked_panel_product = masked_panel_product,
  .softmax_rows = softmax_rows,
  .scale_rows = scale_rows,
  .merge_rows = merge_rows,
  .normalize_rows = normalize_rows,
  .pack_transposed = pack_transposed,
  .pack_columns = pack_columns,
  .add_bias = add_bias,
  .gelu_bias = gelu_bias,
  .gelu_tanh_bias = gelu_tanh_bias,
  .silu_bias = silu_bias,
  .relu_bias = relu_bias,
  .tanh_bias = tanh_bias,
  .gate_rows = gate_rows,
  .layer_norm = layer_norm,
  .rms_norm = rms_norm,
  .exp = exp_array,
  .log = log_array,
  .erf = erf_array,
  .tanh = tanh_array,
  .peak = peak,
  .attend_tile = attend_tile,
  .modify_scores = modify_scores,
  .receive_rows = receive_rows,
  .observe_rows = observe_rows,
  .observe_tile = observe_tile,
  .merge_statistics = merge_statistics,
  .merge_best = merge_best,
  .finish_statistics = finish_statistics,
  .add_block_sums = add_block_sums,
};
