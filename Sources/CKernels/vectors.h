// Vectors of 16 floats, and the parts of the softmax and of masks that float32 and bfloat16 kernels share. A kernel file may define,
// before it includes this,
//
//   TABLE_LOOKUP    exp_table at the low five bits of each lane
//   TABLED_WEIGHTS  so that the weights of the softmax come out of that table
#ifndef ANNULUS_VECTORS_H
#define ANNULUS_VECTORS_H

#include "exp_table.h"

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
typedef uint32_t u16 __attribute__((ext_vector_type(16)));
typedef int32_t i8 __attribute__((ext_vector_type(8)));
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
// The same for n ≤ 16.
INLINE v16 load_up_to(const float *p, ptrdiff_t n) { return n == 16 ? load(p) : load_some(p, n); }
INLINE void store_up_to(float *p, v16 x, ptrdiff_t n) {
  if (n == 16) store(p, x);
  else store_some(p, x, n);
}

// Rows become columns. Interleaving the first eight rows with the last eight turns the eight bits of an element's place, four
// of its row and four of its lane, by one; four times, rows and lanes have changed places.
INLINE void transpose(v16 *x) {
  UNROLL for (int turn = 0; turn < 4; turn++) {
    v16 y[16];
    UNROLL for (int i = 0; i < 8; i++) {
      y[2 * i] = __builtin_shufflevector(x[i], x[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    UNROLL for (int i = 0; i < 16; i++) x[i] = y[i];
  }
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
// Adding zero makes −0 into +0, so that the result does not depend on the order of comparisons.
INLINE float largest_lane(v16 x) {
  const v8 a = x.lo > x.hi ? x.lo : x.hi;
  const v4 b = a.lo > a.hi ? a.lo : a.hi;
  const float even = b.x > b.z ? b.x : b.z, odd = b.y > b.w ? b.y : b.w;
  return (even > odd ? even : odd) + 0.0f;
}

// ---- the softmax exponential --------------------------------------------------------------------

#ifndef TABLE_LOOKUP
// exp_table at the low five bits of each lane.
INLINE i16 table_lookup(i16 n) {
  i16 y;
  UNROLL for (int l = 0; l < 16; l++) y[l] = (int32_t)exp_table[n[l] & 31];
  return y;
}
#define TABLE_LOOKUP table_lookup
#endif

// 2^(x/32) for a difference x of scores in steps (annulus_kernels.h), at most a rounding above 0: a softmax weight. Exact at 0; NaN
// passes; below −4000 it is 2⁻¹²⁵, which no sum of float32 notices beside the 1 of the largest score. A maximum does what a
// comparison would do on the ports of multiply-adds, which are what attention runs out of.
#ifdef TABLED_WEIGHTS
// With n = rint(x) and f = x − n, which is exact, it is 2^(n/32)·(1 + c·f + c²f²/2), c = ln2/32: where a table of 32 costs one
// permutation it saves two multiply-adds. Relative error below 1.9e-7.
INLINE v16 weight_lanes(v16 x) {
  const v16 round = splat(0x1.8p23f);
  x = largest(splat(-4000.0f), x);
  const v16 t = x + round, f = x - (t - round);
  const v16 power = from_bits((bits(t) << 18) + TABLE_LOOKUP(bits(t)));
  return fused(power * f, fused(f, splat(2.3459620e-04f), splat(2.1661168e-02f)), power);
}
#else
// With n = rint(x/32) and f = x − 32n, which is exact, it is 2^n·2^(f/32): a polynomial of degree 5 and an addition to its exponent.
// Relative error below 1.6e-7. The smaller of the two patterns is that of t but for NaN, whose low bits would reach the exponent.
INLINE v16 weight_lanes(v16 x) {
  const v16 round = splat(0x1.8p28f);
  x = largest(splat(-4000.0f), x);
  const v16 t = x + round, f = x - (t - round);
  v16 p = fused(splat(0x1.5bba14p-35f), f, splat(0x1.3cea88p-27f));
  p = fused(p, f, splat(0x1.c6b738p-20f));
  p = fused(p, f, splat(0x1.ebf9cp-13f));
  p = fused(p, f, splat(0x1.62e42ap-6f));
  p = fused(p, f, splat(1.0f));
  const u16 n = __builtin_elementwise_min(__builtin_bit_cast(u16, t), __builtin_bit_cast(u16, round));
  return from_bits(bits(p) + __builtin_bit_cast(i16, n << 23));
}
#endif

// 2^(f/32)·power to 1 ulp, |f| at most a half.
INLINE v16 power_of_step(v16 power, v16 f) {
  v16 p = fused(splat(1.6938714e-06f), f, splat(2.3459619e-04f));
  p = fused(p, f, splat(2.1660849e-02f));
  return fused(power, p * f, power);
}

// The same as `weight_lanes` to 1 ulp, and zero below −4000: for merges, whose errors add up.
INLINE v16 exact_weight(v16 x) {
  const v16 round = splat(0x1.8p23f);
  const v16 inside = largest(splat(-4000.0f), x);
  const v16 t = inside + round, f = inside - (t - round);
  const v16 power = from_bits((bits(t) << 18) + TABLE_LOOKUP(bits(t)));
  return x < splat(-4000.0f) ? splat(0.0f) : power_of_step(power, f);
}

// The columns of the product that starts where `left` columns, a multiple of 16, are left.
INLINE ptrdiff_t product_columns(ptrdiff_t left) { return left < 64 ? left : 64; }

// ---- masks and rows of scores -------------------------------------------------------------------

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

// The visible columns of block b of 16 columns.
INLINE uint32_t visible(const uint64_t *mask, ptrdiff_t b, ptrdiff_t keys) {
  const ptrdiff_t left = keys - 16 * b;
  const uint32_t inside = left >= 16 ? 0xffffu : (1u << left) - 1;
  return mask ? (uint32_t)(mask[b / 4] >> (16 * (b % 4))) & inside : inside;
}

// Whether all 64 columns from `first` on, a multiple of 64, are there and visible.
INLINE int all_visible(const uint64_t *mask, ptrdiff_t first, ptrdiff_t keys) {
  return keys - first >= 64 && (!mask || mask[first / 64] == ~(uint64_t)0);
}

// Lane maxima of a row's visible scores.
INLINE v16 row_maxima(const float *s, ptrdiff_t keys, const uint64_t *mask) {
  v16 m[4];
  UNROLL for (int i = 0; i < 4; i++) m[i] = splat(-INFINITE);
  for (ptrdiff_t first = 0; first < keys; first += 64) {
    if (all_visible(mask, first, keys)) {
      UNROLL for (int i = 0; i < 4; i++) m[i] = largest(load(s + first + 16 * i), m[i]);
      continue;
    }
    for (ptrdiff_t b = first / 16; b < first / 16 + 4 && 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      if (seen) m[0] = largest(lanes(seen) ? load(s + 16 * b) : splat(-INFINITE), m[0]);
    }
  }
  return largest(largest(m[0], m[1]), largest(m[2], m[3]));
}

// What is subtracted from a row's scores. −∞ − −∞ is never formed.
INLINE float row_base(float highest) { return highest == -INFINITE ? 0.0f : highest; }

// Ends a row: NaN weights make the row NaN, and where nothing is above −∞ nothing weighs.
INLINE void finish_row(v16 lane_sums, float *row_max, float *row_sum) {
  const float sum = sum_lanes(lane_sums);
  *row_sum = *row_max == -INFINITE && sum == sum ? 0.0f : sum;
  if (sum != sum) *row_max = sum;
}

// One lane for each of sixteen vectors, in their order: the tree of sum_lanes and largest_lane, a level of all vectors at a time,
// which takes a third of the operations that the vectors one by one would. JOIN is what becomes of two vectors of lanes.
#define EACH_ROW(JOIN, x)                                                                                                           \
  v16 half[8], quarter[4], eighth[2];                                                                                               \
  UNROLL for (int i = 0; i < 8; i++) half[i] =                                                                                      \
      JOIN(__builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),                 \
           __builtin_shufflevector(x[2 * i], x[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));          \
  UNROLL for (int i = 0; i < 4; i++) quarter[i] =                                                                                   \
      JOIN(__builtin_shufflevector(half[2 * i], half[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),         \
           __builtin_shufflevector(half[2 * i], half[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));      \
  UNROLL for (int i = 0; i < 2; i++) eighth[i] =                                                                                    \
      JOIN(__builtin_shufflevector(quarter[2 * i], quarter[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),   \
           __builtin_shufflevector(quarter[2 * i], quarter[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)); \
  const v16 each = JOIN(__builtin_shufflevector(eighth[0], eighth[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),    \
                        __builtin_shufflevector(eighth[0], eighth[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));   \
  return __builtin_shufflevector(each, each, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)

#define PLUS(a, b) (a) + (b)
INLINE v16 sum_each(const v16 *x) { EACH_ROW(PLUS, x); }
INLINE v16 largest_each(const v16 *x) { EACH_ROW(largest, x) + splat(0.0f); }
#undef PLUS

#endif
