// The one source of the bfloat16 kernels, included once by each set's file, which defines what
// kernels_generic.h asks for and, where the processor has the instructions,
//
//   PAIR_PRODUCT    (v16 sum, i16 a, i16 b): VDPBF16PS
//   ROUND_SIXTEEN   (v16): VCVTNEPS2BF16, as h16
//   ROUND_TWO       (v16 first, v16 second): VCVTNE2PS2BF16, the sixteen pairs of both, as i16
//
// Without them the same arithmetic is done in float32. Where the processor can take denormal numbers for zero and flush
// them by itself, as the instruction does, that is two multiply-adds a pair on operands that were widened; a set says so by
//
//   FLUSHING        expression that makes it do so and gives what was before
//   NOT_FLUSHING    (what was before)
//
// x86 finds results tiny after rounding, as VDPBF16PS does, and so the bits are the same. ARM finds them tiny before rounding, and
// flushes what would have been 2⁻¹²⁶. But it says when it has flushed a result: where it has not, no bit depends on how it would
// have been done, and where it has, the product is computed once more by comparing, which is slow. So a set of such a processor
// defines besides
//
//   FLUSHED         expression, right after NOT_FLUSHING: whether any result was flushed since FLUSHING
//
// and any may define
//
//   TWELVE_ROWS     (a, a_stride, panel, pairs, c, c_stride, goes_on): a register block of twelve rows and 8 columns
//
// In the reference all that is to be flushed is found by comparing.
//
// Which sum to divide by. The weights are rounded for their product with V, by up to 2⁻⁸ of themselves.
// Divided by the sum of the rounded weights the error of an output is Σ εⱼpⱼ(vⱼ − o), by the sum of
// the weights before rounding Σ εⱼpⱼvⱼ. Over values without a common mean the second is equal where many
// keys share the weight and smaller where few do, for o is then one of the vⱼ; it also leaves the
// log-sum-exp as good as in float32 and saves two operations. So row_sum is that of the unrounded ones.
#include "statistics_rows.h"
#include "vectors.h"

#include "annulus_bfloat16_kernels.h"

typedef uint16_t h16 __attribute__((ext_vector_type(16)));
typedef int32_t i16_unaligned __attribute__((ext_vector_type(16), aligned(4)));
typedef uint16_t h16_unaligned __attribute__((ext_vector_type(16), aligned(2)));
typedef int32_t pair __attribute__((may_alias));

#ifdef FLUSHING
#define WIDENS 1
#else
#define WIDENS 0
#define FLUSHING 0
#define NOT_FLUSHING(before) (void)(before)
#endif
#ifdef FLUSHED
#define WATCHES 1
#else
#define WATCHES 0
#define FLUSHED 0
#endif

// ---- rounding and pair products -----------------------------------------------------------------

INLINE i16 load_pairs(const pair *p) { return *(const i16_unaligned *)p; }
INLINE void store_pairs(pair *p, i16 x) { *(i16_unaligned *)p = x; }
INLINE void store_rounded(pair *p, h16 x) { *(h16_unaligned *)p = x; }
INLINE ptrdiff_t pairs_of(ptrdiff_t terms) { return (terms + 1) / 2; }

#ifndef ROUND_SIXTEEN
INLINE h16 round_sixteen(v16 x) {
  const u16 b = __builtin_bit_cast(u16, x), magnitude = b & 0x7fffffffu;
  const u16 nearest = b + 0x7fffu + ((b >> 16) & 1u);
  const u16 normal = magnitude > 0x7f800000u ? b | 0x00400000u : nearest;
  return __builtin_convertvector((magnitude < 0x00800000u ? b & 0x80000000u : normal) >> 16, h16);
}
#define ROUND_SIXTEEN round_sixteen
#endif

// 32 numbers rounded, as 16 pairs.
INLINE void store_two(pair *p, v16 first, v16 second) {
#ifdef ROUND_TWO
  store_pairs(p, ROUND_TWO(first, second));
#else
  store_rounded(p, ROUND_SIXTEEN(first));
  store_rounded(p + 8, ROUND_SIXTEEN(second));
#endif
}

INLINE v16 odd_terms(i16 x) { return from_bits(x & (int32_t)0xffff0000); }
INLINE v16 even_terms(i16 x) { return from_bits(x << 16); }

#if WIDENS
INLINE v16 pair_product(v16 sum, i16 a, i16 b) {
  return fused(even_terms(a), even_terms(b), fused(odd_terms(a), odd_terms(b), sum));
}
#define PAIR_PRODUCT pair_product
#endif

#if !defined(PAIR_PRODUCT) || WATCHES
INLINE v16 flush(v16 x) {
  return from_bits((bits(x) & 0x7f800000) == 0 ? bits(x) & (int32_t)0x80000000 : bits(x));
}

// A result is flushed where it would be below 2⁻¹²⁶ if the exponent had no limit. Only where float32 gives
// exactly 2⁻¹²⁶ that may differ from a test of the float32 result; a power of two decides it.
INLINE v16 flushed_fused(v16 a, v16 b, v16 c) {
  const v16 y = fused(a, b, c);
  const i16 magnitude = bits(y) & 0x7fffffff;
  if (__builtin_reduce_or((magnitude <= 0x00800000) & (magnitude != 0)) == 0) return y;
  const v16 scaled = fused(a * splat(0x1p60f), b, c * splat(0x1p60f));
  const i16 tiny = magnitude == 0x00800000 ? absolute(scaled) < splat(0x1p-66f) : magnitude < 0x00800000;
  return from_bits(tiny ? bits(y) & (int32_t)0x80000000 : bits(y));
}

INLINE v16 compared_pair_product(v16 sum, i16 a, i16 b) {
  sum = flushed_fused(flush(odd_terms(a)), flush(odd_terms(b)), flush(sum));
  return flushed_fused(flush(even_terms(a)), flush(even_terms(b)), sum);
}
#ifndef PAIR_PRODUCT
#define PAIR_PRODUCT compared_pair_product
#endif
#endif

static void bfloat16_round_rows(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns,
                                float scale, void *pairs, ptrdiff_t stride) {
  const v16 factor = splat(scale);
  for (ptrdiff_t r = 0; r < rows; r++) {
    const float *from = source + r * source_stride;
    pair *to = (pair *)pairs + r * stride;
    ptrdiff_t j = 0;
    for (; j + 32 <= columns; j += 32) store_two(to + j / 2, load(from + j) * factor, load(from + j + 16) * factor);
    for (; j + 16 <= columns; j += 16) store_rounded(to + j / 2, ROUND_SIXTEEN(load(from + j) * factor));
    if (j < columns) {
      const h16 last = ROUND_SIXTEEN(load_some(from + j, columns - j) * factor);
      memcpy(to + j / 2, &last, (size_t)pairs_of(columns - j) * sizeof(pair));
    }
  }
}

// ---- panel products -----------------------------------------------------------------------------

#if WIDENS
// A register block whose rows were widened to floats: their broadcasts cost nothing beside multiply-adds, and of a panel's pairs
// each half is one operation for all rows.
INLINE void widened_block(const int rows, const int vectors, const float *a, ptrdiff_t a_stride,
                          const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, float *c, ptrdiff_t c_stride, int goes_on) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = goes_on ? load(c + r * c_stride + 16 * v) : splat(0.0f);
  for (ptrdiff_t k = 0; k < pairs; k++, panels += 16)
    UNROLL for (int half = 1; half >= 0; half--) {
      v16 b[4];
      UNROLL for (int v = 0; v < vectors; v++)
        b[v] = half ? odd_terms(load_pairs(panels + v * stride)) : even_terms(load_pairs(panels + v * stride));
      UNROLL for (int r = 0; r < rows; r++) {
        const v16 x = splat(a[r * a_stride + 2 * k + half]);
        UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = fused(x, b[v], sum[r * vectors + v]);
#if PANEL_VECTORS >= 4
        UNROLL for (int v = 0; v < vectors; v++) FINISH(sum[r * vectors + v]);
#endif
      }
    }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

// A · B or C + A · B of rows that were widened. Not inlined, so that no arithmetic leaves the stretch in which numbers are flushed.
static __attribute__((noinline)) void widened_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                                      const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, ptrdiff_t columns,
                                                      float *c, ptrdiff_t c_stride, int goes_on) {
#ifdef TWELVE_ROWS
  for (ptrdiff_t column = 0; rows == 12 && column < columns; column += 8)
    TWELVE_ROWS(a, a_stride, panels + column / 16 * stride + column % 16, pairs, c + column, c_stride, goes_on);
  if (rows == 12) return;
#elif PANEL_VECTORS >= 4
  // Twelve rows × 32 columns are as many sums as 6 × 64, with half of the work of widening.
  for (ptrdiff_t column = 0; rows == 12 && column < columns; column += 32) {
    const pair *at = panels + column / 16 * stride;
    if (columns - column >= 32) widened_block(12, 2, a, a_stride, at, pairs, stride, c + column, c_stride, goes_on);
    else widened_block(12, 1, a, a_stride, at, pairs, stride, c + column, c_stride, goes_on);
  }
  if (rows == 12) return;
#endif
#ifdef OWN_BLOCKS
  // All rows meet sixteen columns before the next: their terms then are in the first-level cache.
  const ptrdiff_t sixes = rows / 6 * 6;
  for (ptrdiff_t column = 0; column < columns; column += 16)
    for (ptrdiff_t r = 0; r < sixes; r += 6)
      widened_six_rows(a + r * a_stride, a_stride, panels + column / 16 * stride, pairs, c + r * c_stride + column, c_stride, goes_on);
  rows -= sixes, a += sixes * a_stride, c += sixes * c_stride;
#endif
  for (ptrdiff_t n; rows > 0; rows -= n, a += n * a_stride, c += n * c_stride) {
    n = rows >= 6 ? 6 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;  // Six are what both sets have registers for.
#define WIDENED(rows, vectors, column) \
  widened_block(rows, vectors, a, a_stride, panels + column / 16 * stride, pairs, stride, c + column, c_stride, goes_on)
#define WIDENED_ROWS(vectors, column)            \
  switch (n) {                                   \
    case 6: WIDENED(6, vectors, column); break;  \
    case 4: WIDENED(4, vectors, column); break;  \
    case 2: WIDENED(2, vectors, column); break;  \
    default: WIDENED(1, vectors, column); break; \
  }
#if PANEL_VECTORS >= 4
    switch (columns) {
      case 64: WIDENED_ROWS(4, 0) break;
      case 48: WIDENED_ROWS(3, 0) break;
      case 32: WIDENED_ROWS(2, 0) break;
      default: WIDENED_ROWS(1, 0)
    }
#else
    for (ptrdiff_t column = 0; column < columns; column += 16) WIDENED_ROWS(1, column)
#endif
#undef WIDENED_ROWS
#undef WIDENED
  }
}

#if WATCHES
// The same, and right whatever is to be flushed: for products in which something was.
static __attribute__((noinline)) void compared_product(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                                       const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, ptrdiff_t columns,
                                                       float *c, ptrdiff_t c_stride, int goes_on) {
  for (; rows > 0; rows--, a += a_stride, c += c_stride)
    for (ptrdiff_t column = 0; column < columns; column += 16) {
      v16 sum = goes_on ? load(c + column) : splat(0.0f);
      for (ptrdiff_t k = 0; k < pairs; k++) {
        const i16 b = load_pairs(panels + column / 16 * stride + 16 * k);
        sum = flushed_fused(flush(splat(a[2 * k + 1])), flush(odd_terms(b)), flush(sum));
        sum = flushed_fused(flush(splat(a[2 * k])), flush(even_terms(b)), sum);
      }
      store(c + column, sum);
    }
}
#define PRODUCT_OF_WIDENED(compares) (compares ? compared_product : widened_product)
#else
#define PRODUCT_OF_WIDENED(compares) widened_product
#endif

enum { WIDENED_ROWS_AT_ONCE = 12, WIDENED_PAIRS = 256 };

// Rows of pairs become rows of floats: of sixteen pairs the halves, interleaved.
INLINE void widen_rows(const pair *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t pairs, float *wide, ptrdiff_t stride) {
  for (ptrdiff_t r = 0; r < rows; r++) {
    ptrdiff_t k = 0;
    for (; k + 16 <= pairs; k += 16) {
      const i16 x = load_pairs(a + r * a_stride + k);
      const v16 even = even_terms(x), odd = odd_terms(x);
      store(wide + r * stride + 2 * k,
            __builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
      store(wide + r * stride + 2 * k + 16,
            __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
    for (; k < pairs; k++) {
      const uint32_t x = (uint32_t)a[r * a_stride + k], halves[2] = {x << 16, x & 0xffff0000u};
      memcpy(wide + r * stride + 2 * k, halves, sizeof halves);
    }
  }
}

// C = A·B or C + A·B as if its chains had not been interrupted, while denormal numbers are flushed; or by comparing, while they are not.
static void flushing_product(int compares, const pair *a, ptrdiff_t a_stride, ptrdiff_t rows,
                             const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, ptrdiff_t columns,
                             float *c, ptrdiff_t c_stride, int goes_on) {
  _Alignas(64) float wide[WIDENED_ROWS_AT_ONCE * 2 * WIDENED_PAIRS];
  (void)compares;
  if (pairs == 0) widened_product(wide, 0, rows, panels, 0, stride, columns, c, c_stride, goes_on);
  for (ptrdiff_t n; rows > 0; rows -= n, a += n * a_stride, c += n * c_stride) {
    n = rows < WIDENED_ROWS_AT_ONCE ? rows : WIDENED_ROWS_AT_ONCE;
    for (ptrdiff_t k = 0, some; k < pairs; k += some) {
      some = pairs - k < WIDENED_PAIRS ? pairs - k : WIDENED_PAIRS;
      widen_rows(a + k, a_stride, n, some, wide, 2 * some);
      PRODUCT_OF_WIDENED(compares)(wide, 2 * some, n, panels + 16 * k, some, stride, columns, c, c_stride, goes_on || k > 0);
    }
  }
}

INLINE void copy_rows(float *target, ptrdiff_t target_stride, const float *source, ptrdiff_t source_stride,
                      ptrdiff_t rows, ptrdiff_t columns) {
  for (ptrdiff_t r = 0; r < rows; r++)
    memcpy(target + r * target_stride, source + r * source_stride, (size_t)columns * sizeof(float));
}

// The same in every mode. Sums that are added are added by themselves, for what they are added to may be denormal; and so are chains
// that go on, where they may have to do so once more.
static void pair_panel_product(const pair *a, ptrdiff_t a_stride, ptrdiff_t rows,
                               const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, ptrdiff_t columns,
                               float *c, ptrdiff_t c_stride, int accumulate) {
  const int goes_on = accumulate == ANNULUS_CONTINUE;
  if (accumulate == ANNULUS_START || (goes_on && !WATCHES)) {
    const uint32_t before = FLUSHING;
    flushing_product(0, a, a_stride, rows, panels, pairs, stride, columns, c, c_stride, goes_on);
    NOT_FLUSHING(before);
    if (FLUSHED) flushing_product(1, a, a_stride, rows, panels, pairs, stride, columns, c, c_stride, goes_on);
    return;
  }
  for (ptrdiff_t n; rows > 0; rows -= n, a += n * a_stride, c += n * c_stride) {
    _Alignas(64) float own[WIDENED_ROWS_AT_ONCE * 64];
    n = rows < WIDENED_ROWS_AT_ONCE ? rows : WIDENED_ROWS_AT_ONCE;
    if (goes_on) copy_rows(own, columns, c, c_stride, n, columns);
    const uint32_t before = FLUSHING;
    flushing_product(0, a, a_stride, n, panels, pairs, stride, columns, own, columns, goes_on);
    NOT_FLUSHING(before);
    if (FLUSHED) {
      if (goes_on) copy_rows(own, columns, c, c_stride, n, columns);
      flushing_product(1, a, a_stride, n, panels, pairs, stride, columns, own, columns, goes_on);
    }
    for (ptrdiff_t r = 0; r < n; r++)
      for (ptrdiff_t j = 0; j < columns; j += 16) {
        const v16 sum = load(own + r * columns + j);
        store(c + r * c_stride + j, goes_on ? sum : sum + load(c + r * c_stride + j));
      }
  }
}
// Whole pairs of rows amid others, where denormal numbers are flushed already.
INLINE void run_of_pairs(int compares, const pair *a, ptrdiff_t a_stride, ptrdiff_t rows, const pair *panels, ptrdiff_t pairs,
                         ptrdiff_t stride, ptrdiff_t columns, float *c, ptrdiff_t c_stride) {
  flushing_product(compares, a, a_stride, rows, panels, pairs, stride, columns, c, c_stride, 1);
}
#else
// One register block: `rows` × 16·`vectors` elements of C, each one chain of pair products.
INLINE void pair_block(const int rows, const int vectors, const pair *a, ptrdiff_t a_stride,
                       const pair *panels, ptrdiff_t pairs, ptrdiff_t stride,
                       float *c, ptrdiff_t c_stride, int accumulate, const pair *ahead) {
  v16 sum[ACCUMULATORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++)
      sum[r * vectors + v] = accumulate == ANNULUS_CONTINUE ? load(c + r * c_stride + 16 * v) : splat(0.0f);
  for (ptrdiff_t k = 0; k < pairs; k++) {
    i16 b[4];
    UNROLL for (int v = 0; v < vectors; v++) b[v] = load_pairs(panels + v * stride);
    __builtin_prefetch(ahead + 16 * k, 0, 2);
    UNROLL for (int r = 0; r < rows; r++) {
      const i16 x = (i16)(a[r * a_stride + k]);
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] = PAIR_PRODUCT(sum[r * vectors + v], x, b[v]);
    }
    panels += 16;
  }
  if (accumulate == ANNULUS_ADD)
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < vectors; v++) sum[r * vectors + v] += load(c + r * c_stride + 16 * v);
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + 16 * v, sum[r * vectors + v]);
}

#define PAIR_ROW_BLOCKS(count, vectors)                                                              \
  for (; rows >= count; rows -= count, a += count * a_stride, c += count * c_stride) {               \
    pair_block(count, vectors, a, a_stride, panels, pairs, stride, c, c_stride, accumulate, ahead);  \
    if (ahead < end) ahead += 16 * pairs;                                                            \
  }
#define PAIR_COLUMN_GROUP(vectors, full)                                                             \
  static void pair_column_group_##vectors(const pair *a, ptrdiff_t a_stride, ptrdiff_t rows,         \
                                          const pair *panels, ptrdiff_t pairs, ptrdiff_t stride,     \
                                          float *c, ptrdiff_t c_stride, int accumulate) {            \
    const pair *ahead = panels + vectors * stride, *end = ahead + 3 * 16 * pairs;                    \
    PAIR_ROW_BLOCKS(full, vectors)                                                                   \
    if (full > 6) PAIR_ROW_BLOCKS(6, vectors)                                                        \
    if (full > 4) PAIR_ROW_BLOCKS(4, vectors)                                                        \
    if (full > 2) PAIR_ROW_BLOCKS(2, vectors)                                                        \
    PAIR_ROW_BLOCKS(1, vectors)                                                                      \
  }
PAIR_COLUMN_GROUP(1, ROWS_1)
#if PANEL_VECTORS >= 4
PAIR_COLUMN_GROUP(2, ROWS_2)
PAIR_COLUMN_GROUP(3, ROWS_3)
PAIR_COLUMN_GROUP(4, ROWS_4)
#endif

static void pair_panel_product(const pair *a, ptrdiff_t a_stride, ptrdiff_t rows,
                               const pair *panels, ptrdiff_t pairs, ptrdiff_t stride, ptrdiff_t columns,
                               float *c, ptrdiff_t c_stride, int accumulate) {
#if PANEL_VECTORS >= 4
  switch (columns) {
    case 64: pair_column_group_4(a, a_stride, rows, panels, pairs, stride, c, c_stride, accumulate); return;
    case 48: pair_column_group_3(a, a_stride, rows, panels, pairs, stride, c, c_stride, accumulate); return;
    case 32: pair_column_group_2(a, a_stride, rows, panels, pairs, stride, c, c_stride, accumulate); return;
  }
#endif
  for (ptrdiff_t column = 0; column < columns; column += 16)
    pair_column_group_1(a, a_stride, rows, panels + column / 16 * stride, pairs, stride, c + column, c_stride, accumulate);
}

INLINE void run_of_pairs(int compares, const pair *a, ptrdiff_t a_stride, ptrdiff_t rows, const pair *panels, ptrdiff_t pairs,
                         ptrdiff_t stride, ptrdiff_t columns, float *c, ptrdiff_t c_stride) {
  (void)compares;
  pair_panel_product(a, a_stride, rows, panels, pairs, stride, columns, c, c_stride, ANNULUS_CONTINUE);
}
#endif

static void bfloat16_panel_product(const void *a, ptrdiff_t a_stride, ptrdiff_t rows,
                                   const void *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                                   float *c, ptrdiff_t c_stride, int accumulate) {
  pair_panel_product(a, a_stride, rows, panels, pairs_of(depth), stride, columns, c, c_stride, accumulate);
}

// Word w of a row's mask without the bits beyond `depth`.
INLINE uint64_t pair_mask_word(const uint64_t *mask, ptrdiff_t w, ptrdiff_t depth) {
  const ptrdiff_t left = depth - 64 * w;
  return left >= 64 ? mask[w] : mask[w] & (((uint64_t)1 << left) - 1);
}

// One pair of one row, of which only the bits of `keep` take part.
static __attribute__((noinline)) void half_pair(int compares, pair a, const pair *panels, ptrdiff_t stride, ptrdiff_t columns, float *c,
                                                pair keep) {
  (void)compares;
  for (ptrdiff_t column = 0; column < columns; column += 16, panels += stride) {
    const v16 sum = load(c + column);
    const i16 x = (i16)(a & keep), b = load_pairs(panels) & keep;
#if WATCHES
    store(c + column, compares ? compared_pair_product(sum, x, b) : PAIR_PRODUCT(sum, x, b));
#else
    store(c + column, PAIR_PRODUCT(sum, x, b));
#endif
  }
}

// A block of at most MASK_ROWS rows: a stretch of pairs that all rows see whole is one dense product; elsewhere each row takes
// its own runs of whole pairs, and its half pairs one by one. What a row does with a pair depends on
// its own mask alone, and every element sees its pairs in ascending order.
static void masked_block(int compares, const pair *a, ptrdiff_t a_stride, ptrdiff_t rows,
                         const pair *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns, float *c, ptrdiff_t c_stride,
                         const uint64_t *mask, ptrdiff_t mask_stride) {
  const uint64_t lower = 0x5555555555555555;
  for (ptrdiff_t w = 0; 64 * w < depth; w++) {
    uint64_t all = ~(uint64_t)0, any = 0;
    for (ptrdiff_t r = 0; r < rows; r++) {
      const uint64_t own = pair_mask_word(mask + r * mask_stride, w, depth);
      all &= own, any |= own;
    }
    // Bit 2k of these: pair k is seen whole by all rows, and in part by at least one.
    all &= all >> 1 & lower;
    any = (any | any >> 1) & lower;
    for (int k = 0; k < 32 && any >> (2 * k);) {
      if (!(any >> (2 * k) & 1)) {
        k++;
        continue;
      }
      const int dense = all >> (2 * k) & 1;
      int end = k + 1;
      while (end < 32 && (any >> (2 * end) & 1) && (int)(all >> (2 * end) & 1) == dense) end++;
      for (ptrdiff_t r = 0; r < (dense ? 1 : rows); r++) {
        const uint64_t own = pair_mask_word(mask + r * mask_stride, w, depth);
        const pair *row = a + r * a_stride + 32 * w;
        float *sums = c + r * c_stride;
        for (int i = k, stop; i < end; i = stop) {
          stop = i + 1;
          const unsigned halves = own >> (2 * i) & 3;
          if (halves == 3) {
            while (stop < end && (own >> (2 * stop) & 3) == 3) stop++;
            run_of_pairs(compares, row + i, a_stride, dense ? rows : 1, panels + 16 * (32 * w + i), stop - i, stride,
                         columns, sums, c_stride);
          } else if (halves) {
            half_pair(compares, row[i], panels + 16 * (32 * w + i), stride, columns, sums, halves == 1 ? 0xffff : (pair)0xffff0000);
          }
        }
      }
      k = end;
    }
  }
}

static void bfloat16_masked_panel_product(const void *a_pairs, ptrdiff_t a_stride, ptrdiff_t rows,
                                          const void *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                                          float *c, ptrdiff_t c_stride, int accumulate,
                                          const uint64_t *mask, ptrdiff_t mask_stride) {
  const pair *a = a_pairs;
  if (!accumulate)
    for (ptrdiff_t r = 0; r < rows; r++) memset(c + r * c_stride, 0, (size_t)columns * sizeof(float));
  for (ptrdiff_t n; rows > 0; rows -= n, a += n * a_stride, c += n * c_stride, mask += n * mask_stride) {
    n = rows < MASK_ROWS ? rows : MASK_ROWS;
#if WATCHES
    _Alignas(64) float kept[MASK_ROWS * 64];
    copy_rows(kept, columns, c, c_stride, n, columns);
#endif
    const uint32_t before = FLUSHING;
    masked_block(0, a, a_stride, n, panels, depth, stride, columns, c, c_stride, mask, mask_stride);
    NOT_FLUSHING(before);
#if WATCHES
    if (FLUSHED) {
      copy_rows(c, c_stride, kept, columns, n, columns);
      masked_block(1, a, a_stride, n, panels, depth, stride, columns, c, c_stride, mask, mask_stride);
    }
#endif
  }
}

// ---- softmax ------------------------------------------------------------------------------------

// Where a row's statistics are made, as observe_row makes them: lane sums, and the distance of the first key from the row.
typedef struct {
  v16 weighted, distances;
  float distance;
} observing;

#if WIDENS
// A row's scores become weights, rounded to bfloat16 and left as floats; returns the lane sums before rounding.
INLINE v16 widened_weights(float *s, ptrdiff_t keys, float scale, float highest, observing *row, const int observes) {
  const v16 steps = splat(scale), base = splat(row_base(highest));
  v16 sum = splat(0.0f);
  for (ptrdiff_t j = 0; j < keys; j += 16) {
    const uint32_t seen = visible(NULL, j / 16, keys);
    v16 x = (load(s + j) - base) * steps;
    if (observes && seen != 0xffff) x = lanes(seen) ? x : splat(0.0f);
    v16 e = weight_lanes(x);
    if (seen != 0xffff) e = lanes(seen) ? e : splat(0.0f);
    if (observes) observe_sixteen(e, x, row->distance + (float)j, &row->weighted, &row->distances);
    // Nothing is below 2⁻¹²⁵ but 0, so that only NaN needs care.
    const u16 b = __builtin_bit_cast(u16, e), nearest = b + 0x7fffu + ((b >> 16) & 1u);
    store(s + j, e == e ? __builtin_bit_cast(v16, nearest & 0xffff0000u) : e);
    sum += e;
  }
  return sum;
}
#endif

// A row's scores become pairs of weights in its first half; returns the lane sums before rounding.
INLINE v16 pair_weights(float *s, ptrdiff_t keys, const uint64_t *mask, float scale, float highest, observing *row,
                        const int observes) {
  const v16 steps = splat(scale), base = splat(row_base(highest));
  pair *weights = (pair *)s;
  v16 sum = splat(0.0f);
  for (ptrdiff_t first = 0; first < keys; first += 64) {
    if (all_visible(mask, first, keys)) {
      v16 x[4], e[4];
      UNROLL for (int i = 0; i < 4; i++) x[i] = (load(s + first + 16 * i) - base) * steps;
      UNROLL for (int i = 0; i < 4; i++) e[i] = weight_lanes(x[i]);
      UNROLL for (int i = 0; i < 4; i++) sum += e[i];
      if (observes)
        UNROLL for (int i = 0; i < 4; i++)
          observe_sixteen(e[i], x[i], row->distance + (float)(first + 16 * i), &row->weighted, &row->distances);
      UNROLL for (int i = 0; i < 4; i += 2) store_two(weights + first / 2 + 8 * i, e[i], e[i + 1]);
      continue;
    }
    for (ptrdiff_t b = first / 16; b < first / 16 + 4 && 16 * b < keys; b++) {
      const uint32_t seen = visible(mask, b, keys);
      v16 e = splat(0.0f);
      if (seen) {
        const v16 x = lanes(seen) ? (load(s + 16 * b) - base) * steps : splat(0.0f);
        e = lanes(seen) ? weight_lanes(x) : splat(0.0f);
        if (observes) observe_sixteen(e, x, row->distance + (float)(16 * b), &row->weighted, &row->distances);
      }
      store_rounded(weights + 8 * b, ROUND_SIXTEEN(e));
      sum += e;
    }
  }
  return sum;
}

// The maximum goes into steps last: subtracted before, it leaves the largest weight exactly 1.
INLINE void finish_pairs(v16 lane_sums, float scale, float *row_max, float *row_sum) {
  finish_row(lane_sums, row_max, row_sum);
  *row_max *= scale;
}

// A row's statistics before its scores become weights, whose maximum is `highest`; and behind them.
INLINE observing begin_row(const float *s, ptrdiff_t keys, const uint64_t *mask, float scale, float highest,
                           const annulus_statistics *t, ptrdiff_t row) {
  select_row(s, keys, mask, scale, highest * scale, t, row);
  return (observing){splat(0.0f), splat(0.0f), (float)(t->distance - row)};
}
INLINE void end_row(const observing *row, float highest, const annulus_statistics *t, ptrdiff_t r) {
  t->weighted[r] = finish_statistic(row->weighted, highest);
  t->distances[r] = finish_statistic(row->distances, highest);
}

INLINE void pair_softmax_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                              const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                              float *row_max, float *row_sum, const annulus_statistics *statistics, const int observes) {
  enum { GROUP = 16 };
  v16 of_lanes[GROUP];
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += GROUP, s += GROUP * s_stride, row_max += GROUP, row_sum += GROUP) {
    const ptrdiff_t n = rows - r0 < GROUP ? rows - r0 : GROUP;
    for (ptrdiff_t r = 0; r < n; r++)
      of_lanes[r] = row_maxima(s + r * s_stride, keys, mask ? mask + r * mask_stride : NULL);
    for (ptrdiff_t r = 0; r < n; r++) row_max[r] = largest_lane(of_lanes[r]);
    for (ptrdiff_t r = 0; r < n; r++) {
      const uint64_t *own = mask ? mask + r * mask_stride : NULL;
      observing row = {0};
      if (observes) row = begin_row(s + r * s_stride, keys, own, scale, row_max[r], statistics, r0 + r);
      of_lanes[r] = pair_weights(s + r * s_stride, keys, own, scale, row_max[r], &row, observes);
      if (observes) end_row(&row, row_max[r], statistics, r0 + r);
    }
    for (ptrdiff_t r = 0; r < n; r++) finish_pairs(of_lanes[r], scale, row_max + r, row_sum + r);
    if (mask) mask += GROUP * mask_stride;
  }
}

static void bfloat16_softmax_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                                  const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                                  float *row_max, float *row_sum) {
  pair_softmax_rows(s, s_stride, rows, keys, mask, mask_stride, scale, row_max, row_sum, NULL, 0);
}

static void bfloat16_observe_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                                  const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                                  float *row_max, float *row_sum, const annulus_statistics *statistics) {
  pair_softmax_rows(s, s_stride, rows, keys, mask, mask_stride, scale, row_max, row_sum, statistics, 1);
}

// ---- fused attention ----------------------------------------------------------------------------

#if PANEL_VECTORS >= 4 && !WIDENS
enum { PAIR_STRIP = ROWS_4 };

// Scores of one strip against the panels of 64 keys, with their lane maxima; meanwhile the scores of
// the strip before it, against 64 keys, become weights, 32 after each 12th of the depth.
INLINE void weave_pair_scores_with(const pair *q, ptrdiff_t q_stride, const pair *panels, ptrdiff_t pairs,
                                   float *scores, ptrdiff_t stride, v16 *maxima,
                                   float *before, ptrdiff_t key, float scale, const float *base, v16 *sums,
                                   observing *rows, const int observes) {
  v16 sum[4 * PAIR_STRIP];
  UNROLL for (int i = 0; i < 4 * PAIR_STRIP; i++) sum[i] = splat(0.0f);
  ptrdiff_t k = 0;
  for (int part = 0; part < 2 * PAIR_STRIP; part++) {
    for (const ptrdiff_t stop = pairs * (part + 1) / (2 * PAIR_STRIP); k < stop; k++) {
      i16 b[4];
      UNROLL for (int v = 0; v < 4; v++) b[v] = load_pairs(panels + 16 * (v * pairs + k));
      UNROLL for (int r = 0; r < PAIR_STRIP; r++) {
        const i16 x = (i16)(q[r * q_stride + k]);
        UNROLL for (int v = 0; v < 4; v++) sum[4 * r + v] = PAIR_PRODUCT(sum[4 * r + v], x, b[v]);
      }
    }
    const int r = part % PAIR_STRIP;
    const ptrdiff_t column = key + part / PAIR_STRIP * 32;
    const float *s = before + r * stride + column;
    const v16 x = (load(s) - splat(base[r])) * splat(scale), y = (load(s + 16) - splat(base[r])) * splat(scale);
    const v16 first = weight_lanes(x), second = weight_lanes(y);
    if (observes) {
      observe_sixteen(first, x, rows[r].distance + (float)column, &rows[r].weighted, &rows[r].distances);
      observe_sixteen(second, y, rows[r].distance + (float)(column + 16), &rows[r].weighted, &rows[r].distances);
    }
    store_two((pair *)(before + r * stride) + column / 2, first, second);
    sums[r] = sums[r] + first + second;
  }
  UNROLL for (int r = 0; r < PAIR_STRIP; r++) {
    v16 m = maxima[r];
    UNROLL for (int v = 0; v < 4; v++) {
      store(scores + r * stride + 16 * v, sum[4 * r + v]);
      m = largest(sum[4 * r + v], m);
    }
    maxima[r] = m;
  }
}
static void weave_pair_scores(const pair *q, ptrdiff_t q_stride, const pair *panels, ptrdiff_t pairs,
                              float *scores, ptrdiff_t stride, v16 *maxima,
                              float *before, ptrdiff_t key, float scale, const float *base, v16 *sums) {
  weave_pair_scores_with(q, q_stride, panels, pairs, scores, stride, maxima, before, key, scale, base, sums, NULL, 0);
}
static void weave_pair_scores_observing(const pair *q, ptrdiff_t q_stride, const pair *panels, ptrdiff_t pairs,
                                        float *scores, ptrdiff_t stride, v16 *maxima,
                                        float *before, ptrdiff_t key, float scale, const float *base, v16 *sums,
                                        observing *rows) {
  weave_pair_scores_with(q, q_stride, panels, pairs, scores, stride, maxima, before, key, scale, base, sums, rows, 1);
}
#endif

INLINE void pair_scores(const pair *q, ptrdiff_t q_stride, ptrdiff_t rows,
                        const pair *k_panels, ptrdiff_t pairs, ptrdiff_t keys, float *scores, ptrdiff_t stride) {
  for (ptrdiff_t key = 0; key < keys; key += 64)
    pair_panel_product(q, q_stride, rows, k_panels + key * pairs, pairs, 16 * pairs, product_columns(stride - key),
                       scores + key, stride, 0);
}
INLINE void pair_values(const float *weights, ptrdiff_t stride, ptrdiff_t rows,
                        const pair *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float *o, ptrdiff_t o_stride) {
  const ptrdiff_t width = (value_columns + 15) / 16 * 16, pairs = pairs_of(keys);
  for (ptrdiff_t column = 0; column < width; column += 64)
    pair_panel_product((const pair *)weights, stride, rows, v_panels + column * pairs, pairs, 16 * pairs,
                       product_columns(width - column), o + column, o_stride, 0);
}

#if WIDENS
// C = A·B over all panels of B, while denormal numbers are flushed; or by comparing, while they are not.
INLINE void product_of_panels(int compares, const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                              const pair *panels, ptrdiff_t pairs, ptrdiff_t width, float *c, ptrdiff_t c_stride) {
  (void)compares;
  for (ptrdiff_t column = 0; column < width; column += 64)
    PRODUCT_OF_WIDENED(compares)(a, a_stride, rows, panels + column * pairs, pairs, 16 * pairs,
                                 product_columns(width - column), c + column, c_stride, 0);
}

// At most twelve rows: queries are widened once for all keys, and weights stay floats.
INLINE void attend_widened(const pair *q, ptrdiff_t q_stride, ptrdiff_t rows, const pair *k_panels, ptrdiff_t pairs,
                           const pair *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                           float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scores,
                           const annulus_statistics *statistics, const int observes) {
  const ptrdiff_t stride = (keys + 15) / 16 * 16, width = (value_columns + 15) / 16 * 16, key_pairs = pairs_of(keys);
  _Alignas(64) float wide[WIDENED_ROWS_AT_ONCE * 2 * WIDENED_PAIRS];
  v16 sums[WIDENED_ROWS_AT_ONCE];
  widen_rows(q, q_stride, rows, pairs, wide, 2 * pairs);
  uint32_t before = FLUSHING;
  product_of_panels(0, wide, 2 * pairs, rows, k_panels, pairs, stride, scores, stride);
  NOT_FLUSHING(before);
  if (FLUSHED) product_of_panels(1, wide, 2 * pairs, rows, k_panels, pairs, stride, scores, stride);
  for (ptrdiff_t r = 0; r < rows; r++) sums[r] = row_maxima(scores + r * stride, keys, NULL);
  for (ptrdiff_t r = 0; r < rows; r++) row_max[r] = largest_lane(sums[r]);
  for (ptrdiff_t r = 0; r < rows; r++) {
    observing row = {0};
    if (observes) row = begin_row(scores + r * stride, keys, NULL, scale, row_max[r], statistics, r);
    sums[r] = widened_weights(scores + r * stride, keys, scale, row_max[r], &row, observes);
    if (observes) end_row(&row, row_max[r], statistics, r);
  }
  for (ptrdiff_t r = 0; r < rows; r++) finish_pairs(sums[r], scale, row_max + r, row_sum + r);
  before = FLUSHING;
  product_of_panels(0, scores, stride, rows, v_panels, key_pairs, width, o, o_stride);
  NOT_FLUSHING(before);
  if (FLUSHED) product_of_panels(1, scores, stride, rows, v_panels, key_pairs, width, o, o_stride);
}
#endif

INLINE void attend_pairs(const pair *q, ptrdiff_t q_stride, ptrdiff_t rows, const pair *k_panels, ptrdiff_t depth,
                         const pair *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                         float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch,
                         const annulus_statistics *statistics, const int observes) {
  const ptrdiff_t stride = (keys + 15) / 16 * 16, pairs = pairs_of(depth);
  ptrdiff_t row = 0;
#if PANEL_VECTORS >= 4 && !WIDENS
  if (keys > 0 && keys % 64 == 0 && rows >= 2 * PAIR_STRIP) {
    float *scores = scratch, *before = scratch + PAIR_STRIP * stride;
    v16 maxima[PAIR_STRIP], sums[PAIR_STRIP];
    float base[PAIR_STRIP];
    observing observed[PAIR_STRIP];
    pair_scores(q, q_stride, PAIR_STRIP, k_panels, pairs, keys, before, stride);
    for (int r = 0; r < PAIR_STRIP; r++) row_max[r] = largest_lane(row_maxima(before + r * stride, keys, NULL));
    for (;;) {
      // `before` holds the scores of the strip at q, whose maxima are known.
      const int last = rows < 2 * PAIR_STRIP;
      q += PAIR_STRIP * q_stride;
      for (int r = 0; r < PAIR_STRIP; r++) {
        base[r] = row_base(row_max[r]);
        sums[r] = splat(0.0f);
        maxima[r] = splat(-INFINITE);
        if (observes) observed[r] = begin_row(before + r * stride, keys, NULL, scale, row_max[r], statistics, row + r);
      }
      if (last) {
        for (int r = 0; r < PAIR_STRIP; r++)
          sums[r] = pair_weights(before + r * stride, keys, NULL, scale, row_max[r], observed + r, observes);
      } else {
        for (ptrdiff_t key = 0; key < keys; key += 64) {
          const pair *panels = k_panels + key * pairs;
          if (observes)
            weave_pair_scores_observing(q, q_stride, panels, pairs, scores + key, stride, maxima, before, key, scale, base, sums, observed);
          else weave_pair_scores(q, q_stride, panels, pairs, scores + key, stride, maxima, before, key, scale, base, sums);
        }
      }
      if (observes)
        for (int r = 0; r < PAIR_STRIP; r++) end_row(observed + r, row_max[r], statistics, row + r);
      for (int r = 0; r < PAIR_STRIP; r++) finish_pairs(sums[r], scale, row_max + r, row_sum + r);
      pair_values(before, stride, PAIR_STRIP, v_panels, value_columns, keys, o, o_stride);
      row_max += PAIR_STRIP, row_sum += PAIR_STRIP, o += PAIR_STRIP * o_stride, rows -= PAIR_STRIP, row += PAIR_STRIP;
      if (last) break;
      for (int r = 0; r < PAIR_STRIP; r++) row_max[r] = largest_lane(maxima[r]);
      float *swap = scores;
      scores = before;
      before = swap;
    }
  }
#endif
  for (ptrdiff_t n; rows > 0; rows -= n, q += n * q_stride, row_max += n, row_sum += n, o += n * o_stride, row += n) {
    n = rows < 12 ? rows : 12;
    annulus_statistics t;
    if (observes) t = statistics_from(statistics, row);
#if WIDENS
    if (pairs <= WIDENED_PAIRS) {
      attend_widened(q, q_stride, n, k_panels, pairs, v_panels, value_columns, keys, scale, row_max, row_sum, o, o_stride, scratch,
                     &t, observes);
      continue;
    }
#endif
    pair_scores(q, q_stride, n, k_panels, pairs, keys, scratch, stride);
    pair_softmax_rows(scratch, stride, n, keys, NULL, 0, scale, row_max, row_sum, &t, observes);
    pair_values(scratch, stride, n, v_panels, value_columns, keys, o, o_stride);
  }
}

static void bfloat16_attend_tile(const void *queries, ptrdiff_t q_stride, ptrdiff_t rows,
                                 const void *k_panels, ptrdiff_t depth,
                                 const void *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                                 float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch) {
  attend_pairs(queries, q_stride, rows, k_panels, depth, v_panels, value_columns, keys, scale, row_max, row_sum, o, o_stride, scratch,
               NULL, 0);
}

static void bfloat16_observe_tile(const void *queries, ptrdiff_t q_stride, ptrdiff_t rows,
                                  const void *k_panels, ptrdiff_t depth,
                                  const void *v_panels, ptrdiff_t value_columns, ptrdiff_t keys, float scale,
                                  float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch,
                                  const annulus_statistics *statistics) {
  attend_pairs(queries, q_stride, rows, k_panels, depth, v_panels, value_columns, keys, scale, row_max, row_sum, o, o_stride, scratch,
               statistics, 1);
}

// ---- packing ------------------------------------------------------------------------------------

static void bfloat16_pack_transposed(const float *source, ptrdiff_t source_stride, ptrdiff_t n, ptrdiff_t depth, void *panels,
                                     ptrdiff_t stride) {
  const ptrdiff_t pairs = pairs_of(depth);
  pair *panel = panels;
  for (ptrdiff_t column = 0; column < n; column += 16, panel += stride) {
    const ptrdiff_t count = n - column < 16 ? n - column : 16;
    for (ptrdiff_t k0 = 0; k0 < pairs; k0 += 16) {
      const ptrdiff_t some = pairs - k0 < 16 ? pairs - k0 : 16, terms = depth - 2 * k0 < 32 ? depth - 2 * k0 : 32;
      const float *block = source + column * source_stride + 2 * k0;
      if (terms == 32 && count == 16) {
        v16 x[16];
        UNROLL for (int i = 0; i < 16; i++) {
          pair row[16];
          store_two(row, load(block + i * source_stride), load(block + i * source_stride + 16));
          x[i] = from_bits(load_pairs(row));
        }
        transpose(x);
        UNROLL for (int i = 0; i < 16; i++) store_pairs(panel + 16 * (k0 + i), bits(x[i]));
        continue;
      }
      for (ptrdiff_t c = 0; c < 16; c++) {
        pair row[16] = {0};
        if (c < count) bfloat16_round_rows(block + c * source_stride, 0, 1, terms, 1.0f, row, 0);
        for (ptrdiff_t k = 0; k < some; k++) panel[16 * (k0 + k) + c] = row[k];
      }
    }
  }
}

static void bfloat16_pack_columns(const float *source, ptrdiff_t source_stride, ptrdiff_t depth, ptrdiff_t n, void *panels,
                                  ptrdiff_t stride) {
  pair *panel = panels;
  for (ptrdiff_t column = 0; column < n; column += 16, panel += stride) {
    const ptrdiff_t count = n - column < 16 ? n - column : 16;
    for (ptrdiff_t k = 0; k < depth; k += 2) {
      const float *even = source + k * source_stride + column, *odd = even + source_stride;
      const v16 x = load_up_to(even, count), y = k + 1 < depth ? load_up_to(odd, count) : splat(0.0f);
      const u16 low = __builtin_convertvector(ROUND_SIXTEEN(x), u16), high = __builtin_convertvector(ROUND_SIXTEEN(y), u16);
      store_pairs(panel + 8 * k, __builtin_bit_cast(i16, low | high << 16));
    }
  }
}

// As many independent chains as the largest register block has, eight steps a round.
static double bfloat16_peak(ptrdiff_t iterations, float *sink) {
  v16 sum[ACCUMULATORS];
  const i16 factor = (i16)((int32_t)0x3f003e80), term = (i16)((int32_t)0x3e803f00);
  UNROLL for (int i = 0; i < ACCUMULATORS; i++) sum[i] = splat((float)i + *sink);
  for (ptrdiff_t n = 0; n < iterations; n++)
    UNROLL for (int step = 0; step < 8; step++)
      UNROLL for (int i = 0; i < ACCUMULATORS; i++) sum[i] = PAIR_PRODUCT(sum[i], factor, term);
  v16 all = sum[0];
  UNROLL for (int i = 1; i < ACCUMULATORS; i++) all += sum[i];
  *sink = sum_lanes(all) * 0x1p-60f;
  return 4.0 * 16.0 * 8.0 * (double)ACCUMULATORS * (double)iterations;
}

#define BFLOAT16_JOINED(a, b) a##b
#define BFLOAT16_TABLE_OF(x) BFLOAT16_JOINED(annulus_bfloat16_kernels_, x)

#if WIDENS
#define BFLOAT16_PRODUCTS ANNULUS_WIDENED
#elif defined(ROUND_TWO)
#define BFLOAT16_PRODUCTS ANNULUS_OWN_INSTRUCTIONS
#else
#define BFLOAT16_PRODUCTS ANNULUS_COMPARED
#endif

const annulus_bfloat16_kernels BFLOAT16_TABLE_OF(ANNULUS_SET) = {
  .products = BFLOAT16_PRODUCTS,
  .round_rows = bfloat16_round_rows,
  .panel_product = bfloat16_panel_product,
  .masked_panel_product = bfloat16_masked_panel_product,
  .softmax_rows = bfloat16_softmax_rows,
  .observe_rows = bfloat16_observe_rows,
  .pack_transposed = bfloat16_pack_transposed,
  .pack_columns = bfloat16_pack_columns,
  .attend_tile = bfloat16_attend_tile,
  .observe_tile = bfloat16_observe_tile,
  .peak = bfloat16_peak,
};
