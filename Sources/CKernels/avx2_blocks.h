// Register blocks in AVX2's own words, with the bits of the generic ones.
//
// Six rows by 16 columns are 12 sums, two vectors of the panel and one element of a row: 15 of the 16 registers. The compiler would
// move terms together, and spill sums: the empty assembly, which names what it must finish first, keeps it from that. And it would
// count with a register for each row: here all rows are addressed from one, so that four terms are 84 instructions, of which 48
// multiply and add. That counts where a neighbour has the other thread of the core, and with it every other turn of the front end.
#ifndef ANNULUS_AVX2_BLOCKS_H
#define ANNULUS_AVX2_BLOCKS_H

#include <immintrin.h>

#include "vectors.h"

#define EIGHT(x, half) ((float *)(x) + 8 * (half))
#define FINISH_ROW(s) __asm__ volatile("" : "+x"((s)[0]), "+x"((s)[1]) : : "memory")
// A number that the compiler does not take apart.
#define WHOLE(x) __asm__("" : "+r"(x))

// Where six rows of one operand and four of the other lie, in bytes: x, x + 4, … are a row's terms; row 3 is at x + three, and
// so on with the factors that an address may have.
typedef struct {
  const char *x, *b;
  ptrdiff_t one, three, five;  // from row to row, three and five rows
} operands;

INLINE operands operands_at(const float *a, ptrdiff_t a_stride, const void *panel) {
  operands o = {(const char *)a, panel, 4 * a_stride, 12 * a_stride, 20 * a_stride};
  WHOLE(o.three);
  WHOLE(o.five);
  return o;
}

INLINE const float *row_of(const operands *o, const int r) {
  return (const float *)(r == 3 ? o->x + o->three : r == 5 ? o->x + o->five : o->x + r * o->one);
}
INLINE const float *term_of(const operands *o, const int term) { return (const float *)(o->b + 64 * term); }

// sum[r] += a[r][term] · panel[term][0..16).
INLINE void add_term(const int rows, __m256 *sum, const operands *o, const int term) {
  const __m256 b[2] = {_mm256_loadu_ps(term_of(o, term)), _mm256_loadu_ps(term_of(o, term) + 8)};
  UNROLL for (int r = 0; r < rows; r++) {
    const __m256 x = _mm256_broadcast_ss(row_of(o, r) + term);
    UNROLL for (int i = 0; i < 2; i++) sum[2 * r + i] = _mm256_fmadd_ps(x, b[i], sum[2 * r + i]);
    FINISH_ROW(sum + 2 * r);
  }
}

// So many terms, four at a time, which fetch a line of `ahead`.
INLINE void add_all_terms(const int rows, __m256 *sum, operands *o, ptrdiff_t terms, const float *ahead) {
  for (; terms >= 4; terms -= 4, o->x += 16, o->b += 256, ahead += 16) {
    __builtin_prefetch(ahead, 0, 2);
    UNROLL for (int term = 0; term < 4; term++) add_term(rows, sum, o, term);
  }
  for (; terms > 0; terms--, o->x += 4, o->b += 64) add_term(rows, sum, o, 0);
}

// add_terms of kernels_generic.h.
INLINE void add_terms(const int rows, const int vectors, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t stride,
                      ptrdiff_t depth, const float *ahead, v16 *sum) {
  (void)vectors, (void)stride;
  __m256 s[12];
  UNROLL for (int i = 0; i < 2 * rows; i++) s[i] = _mm256_loadu_ps(EIGHT(sum + i / 2, i % 2));
  operands o = operands_at(a, a_stride, panel);
  add_all_terms(rows, s, &o, depth, ahead);
  UNROLL for (int i = 0; i < 2 * rows; i++) _mm256_storeu_ps(EIGHT(sum + i / 2, i % 2), s[i]);
}

// Blocks of six rows, one after another, each of which stores its sums during the first term of the block after it, row by row:
// all at once, the multiply-adds would wait for the stores.
typedef struct {
  __m256 sum[12];
  float *c;  // where the sums go
  ptrdiff_t stride;
} block;

// The sums of one row are stored, added to what is there, if they are to be.
INLINE void store_row(block *k, const int r, const int accumulate) {
  UNROLL for (int i = 0; i < 2; i++) {
    float *c = k->c + r * k->stride + 8 * i;
    __m256 x = k->sum[2 * r + i];
    if (accumulate == ANNULUS_ADD) x = _mm256_add_ps(x, _mm256_loadu_ps(c));
    _mm256_storeu_ps(c, x);
  }
}

// The first of several blocks.
INLINE void first_block(block *k, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t depth, float *c,
                        const int accumulate, const float *ahead) {
  operands o = operands_at(a, a_stride, panel);
  UNROLL for (int i = 0; i < 12; i++)
    k->sum[i] = accumulate == ANNULUS_CONTINUE ? _mm256_loadu_ps(c + i / 2 * k->stride + 8 * (i % 2)) : _mm256_setzero_ps();
  k->c = c;
  add_all_terms(6, k->sum, &o, depth, ahead);
}

// The block whose sums go to c, with at least one term, after another.
INLINE void next_block(block *k, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t depth, float *c,
                       const int accumulate, const float *ahead) {
  operands o = operands_at(a, a_stride, panel);
  const __m256 b[2] = {_mm256_loadu_ps(term_of(&o, 0)), _mm256_loadu_ps(term_of(&o, 0) + 8)};
  UNROLL for (int r = 0; r < 6; r++) {
    store_row(k, r, accumulate);
    const __m256 x = _mm256_broadcast_ss(row_of(&o, r));
    UNROLL for (int i = 0; i < 2; i++) {
      const __m256 before = accumulate == ANNULUS_CONTINUE ? _mm256_loadu_ps(c + r * k->stride + 8 * i) : _mm256_setzero_ps();
      k->sum[2 * r + i] = _mm256_fmadd_ps(x, b[i], before);
    }
    FINISH_ROW(k->sum + 2 * r);
  }
  k->c = c;
  if (depth >= 4) {
    UNROLL for (int term = 1; term < 4; term++) add_term(6, k->sum, &o, term);
    o.x += 16, o.b += 256;
    depth -= 4;
  } else {
    o.x += 4, o.b += 64;
    depth--;
  }
  add_all_terms(6, k->sum, &o, depth, ahead);
}

INLINE void last_block(block *k, const int accumulate) {
  UNROLL for (int r = 0; r < 6; r++) store_row(k, r, accumulate);
}

// widened_block of bfloat16_generic.h for six rows: of each pair of terms the odd one first.
INLINE void widened_pair(__m256 *sum, const operands *o, const int term) {
  const __m256i *b = (const __m256i *)term_of(o, term);
  UNROLL for (int half = 1; half >= 0; half--) {
    __m256 terms[2];
    UNROLL for (int i = 0; i < 2; i++)
      terms[i] = _mm256_castsi256_ps(half ? _mm256_and_si256(_mm256_loadu_si256(b + i), _mm256_set1_epi32((int)0xffff0000u))
                                          : _mm256_slli_epi32(_mm256_loadu_si256(b + i), 16));
    UNROLL for (int r = 0; r < 6; r++) {
      const __m256 x = _mm256_broadcast_ss(row_of(o, r) + 2 * term + half);
      UNROLL for (int i = 0; i < 2; i++) sum[2 * r + i] = _mm256_fmadd_ps(x, terms[i], sum[2 * r + i]);
      FINISH_ROW(sum + 2 * r);
    }
  }
}
INLINE void widened_six_rows(const float *a, ptrdiff_t a_stride, const void *panel, ptrdiff_t pairs, float *c, ptrdiff_t c_stride,
                             const int goes_on) {
  __m256 sum[12];
  UNROLL for (int i = 0; i < 12; i++)
    sum[i] = goes_on ? _mm256_loadu_ps(c + i / 2 * c_stride + 8 * (i % 2)) : _mm256_setzero_ps();
  operands o = operands_at(a, a_stride, panel);
  for (; pairs >= 4; pairs -= 4, o.x += 32, o.b += 256) UNROLL for (int term = 0; term < 4; term++) widened_pair(sum, &o, term);
  for (; pairs > 0; pairs--, o.x += 8, o.b += 64) widened_pair(sum, &o, 0);
  UNROLL for (int i = 0; i < 12; i++) _mm256_storeu_ps(c + i / 2 * c_stride + 8 * (i % 2), sum[i]);
}

// So many terms of six rows of a transpose, whose rows lie side by side, `a_stride` floats from term to term.
INLINE void add_transposed_terms(__m256 *sum, const float *a, ptrdiff_t a_stride, const float *panel, ptrdiff_t depth) {
  const char *x = (const char *)a, *b = (const char *)panel;
  ptrdiff_t next_x = 4 * a_stride, three_x = 3 * next_x;
  WHOLE(three_x);
#define TRANSPOSED_TERM(at_x, at_b)                                                                           \
  {                                                                                                           \
    const float *const of_x = (const float *)(at_x), *const of_b = (const float *)(at_b);                     \
    const __m256 terms[2] = {_mm256_loadu_ps(of_b), _mm256_loadu_ps(of_b + 8)};                               \
    UNROLL for (int r = 0; r < 6; r++) {                                                                      \
      const __m256 factor = _mm256_broadcast_ss(of_x + r);                                                    \
      UNROLL for (int i = 0; i < 2; i++) sum[2 * r + i] = _mm256_fmadd_ps(factor, terms[i], sum[2 * r + i]);  \
      FINISH_ROW(sum + 2 * r);                                                                                \
    }                                                                                                         \
  }
  for (; depth >= 4; depth -= 4, x += 4 * next_x, b += 256) {
    TRANSPOSED_TERM(x, b)
    TRANSPOSED_TERM(x + next_x, b + 64)
    TRANSPOSED_TERM(x + 2 * next_x, b + 128)
    TRANSPOSED_TERM(x + three_x, b + 192)
  }
  for (; depth > 0; depth--, x += next_x, b += 64) TRANSPOSED_TERM(x, b)
#undef TRANSPOSED_TERM
}

// The numbers of weight_lanes (vectors.h), as operands in memory, which take no instruction of their own.
typedef struct {
  float lowest[8], round[8], p5[8], p4[8], p3[8], p2[8], p1[8], p0[8];
} weight_constants;
#define ALL_EIGHT(x) {x, x, x, x, x, x, x, x}
static const weight_constants of_weights __attribute__((aligned(32))) = {
    ALL_EIGHT(-4000.0f),        ALL_EIGHT(0x1.8p28f),       ALL_EIGHT(0x1.5bba14p-35f), ALL_EIGHT(0x1.3cea88p-27f),
    ALL_EIGHT(0x1.c6b738p-20f), ALL_EIGHT(0x1.ebf9cp-13f),  ALL_EIGHT(0x1.62e42ap-6f),  ALL_EIGHT(1.0f)};

// weight_lanes of 64 scores above `base`, in place; returns their lane sums, added to those before.
INLINE v16 weigh_64(float *s, float base, v16 before) {
  const weight_constants *c = &of_weights;
  WHOLE(c);
  const __m256 minus = _mm256_set1_ps(-base);
  __m256 sum[2] = {_mm256_loadu_ps(EIGHT(&before, 0)), _mm256_loadu_ps(EIGHT(&before, 1))};
  for (int first = 0; first < 64; first += 32) {
    __m256 x[4], p[4];
    __m256i power[4];
    UNROLL for (int i = 0; i < 4; i++) {
      x[i] = _mm256_max_ps(_mm256_load_ps(c->lowest), _mm256_add_ps(minus, _mm256_loadu_ps(s + first + 8 * i)));
      const __m256 t = _mm256_add_ps(x[i], _mm256_load_ps(c->round));
      x[i] = _mm256_sub_ps(x[i], _mm256_sub_ps(t, _mm256_load_ps(c->round)));
      power[i] = _mm256_slli_epi32(_mm256_min_epu32(_mm256_castps_si256(t), _mm256_load_si256((const __m256i *)c->round)), 23);
    }
    UNROLL for (int i = 0; i < 4; i++) p[i] = _mm256_fmadd_ps(_mm256_load_ps(c->p5), x[i], _mm256_load_ps(c->p4));
    UNROLL for (int i = 0; i < 4; i++) p[i] = _mm256_fmadd_ps(p[i], x[i], _mm256_load_ps(c->p3));
    UNROLL for (int i = 0; i < 4; i++) p[i] = _mm256_fmadd_ps(p[i], x[i], _mm256_load_ps(c->p2));
    UNROLL for (int i = 0; i < 4; i++) p[i] = _mm256_fmadd_ps(p[i], x[i], _mm256_load_ps(c->p1));
    UNROLL for (int i = 0; i < 4; i++) {
      const __m256 of_part = _mm256_fmadd_ps(p[i], x[i], _mm256_load_ps(c->p0));
      const __m256 e = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(of_part), power[i]));
      _mm256_storeu_ps(s + first + 8 * i, e);
      sum[i % 2] = _mm256_add_ps(sum[i % 2], e);
    }
  }
  v16 after;
  UNROLL for (int i = 0; i < 2; i++) _mm256_storeu_ps(EIGHT(&after, i), sum[i]);
  return after;
}

#endif
