// The products of a strip of attention in AVX2's own words, with the bits of the generic ones. No weights are woven into them: beside
// 12 sums there are too few registers, and what goes through memory instead takes more instructions, and on Zen 3 more time, than
// weights by themselves.
#ifndef ANNULUS_AVX2_STRIPS_H
#define ANNULUS_AVX2_STRIPS_H

// Scores of a strip against `keys` keys, a multiple of 64, with their lane maxima.
INLINE void weave_scores_with(const float *q, ptrdiff_t q_stride, const float *k_panels, ptrdiff_t depth, ptrdiff_t keys,
                              float *scores, ptrdiff_t stride, v16 *maxima, weighing *other, ptrdiff_t weights, const int observes) {
  (void)other, (void)weights, (void)observes;
  block k = {.c = NULL, .stride = stride};
  for (ptrdiff_t key = 0; key < keys; key += 16)
    next_block(&k, q, q_stride, k_panels + key / 64 * 64 * depth + key % 64, depth, 64, scores + key, ANNULUS_START, 0, NULL, 1,
               (float *)maxima);
  last_block(&k, ANNULUS_START, 1, (float *)maxima);
}

// A strip's weights times the values; `fetched` floats from `ahead` on are fetched meanwhile.
INLINE void weave_values_with(const float *strip, ptrdiff_t stride, const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                              float *o, ptrdiff_t o_stride, const float *ahead, ptrdiff_t fetched, weighing *other, ptrdiff_t weights,
                              const int observes) {
  (void)other, (void)weights, (void)observes;
  const ptrdiff_t columns = (value_columns + 15) / 16 * 16;
  block k = {.c = NULL, .stride = o_stride};
  for (ptrdiff_t column = 0, fetch = 0; column < columns; column += 16) {
    const ptrdiff_t first = column / 64 * 64;
    for (; fetch * columns < fetched * (column + 16); fetch += 16) __builtin_prefetch(ahead + fetch, 0, 2);
    next_block(&k, strip, stride, v_panels + first * keys + column - first, keys, panel_width(columns - first), o + column,
               ANNULUS_START, 0, NULL, 0, NULL);
  }
  last_block(&k, ANNULUS_START, 0, NULL);
}

#endif
