// The statistics of a row of scores and its weights, as float32 and bfloat16 kernels make them: included behind vectors.h.
#ifndef ANNULUS_STATISTICS_ROWS_H
#define ANNULUS_STATISTICS_ROWS_H

#include "vectors.h"

#include "annulus_kernels.h"

// A row's place in its statistics.
INLINE annulus_statistics statistics_from(const annulus_statistics *all, ptrdiff_t row) {
  annulus_statistics t = *all;
  t.weighted += row, t.distances += row;
  t.best += row * t.count, t.best_keys += row * t.count, t.scores += row * t.count, t.keys += row * t.count;
  t.distance -= row;
  return t;
}

// Puts a score into a list that descends, behind its equals; the last one falls out.
INLINE ptrdiff_t insert_score(float *list, ptrdiff_t count, float score) {
  ptrdiff_t place = count - 1;
  for (; place > 0 && list[place - 1] < score; place--) list[place] = list[place - 1];
  list[place] = score;
  return place;
}

// Bit l is set where lane l is all ones.
typedef _Bool b16 __attribute__((ext_vector_type(16)));
INLINE uint32_t set_lanes(i16 x) { return __builtin_bit_cast(uint16_t, __builtin_convertvector(x, b16)); }

// A list of at most sixteen scores that descends, with their keys, in registers.
typedef struct {
  v16 scores;
  i16 keys;
} short_list;

// Puts a score into it behind its equals; what is behind moves up by one.
INLINE void insert_short(short_list *list, float score, int32_t key) {
  const i16 stays = list->scores >= splat(score), all = (i16)(-1);
#define MOVED(x, first) __builtin_shufflevector(x, first, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
  const i16 before_stays = MOVED(stays, all);
  const v16 moved = MOVED(list->scores, list->scores);
  const i16 moved_keys = MOVED(list->keys, list->keys);
#undef MOVED
  list->scores = stays ? list->scores : before_stays ? splat(score) : moved;
  list->keys = stays ? list->keys : before_stays ? (i16)(key) : moved_keys;
}

// The keys of a row whose scores, times `scale`, exceed the least of the best so far, which they join.
INLINE void select_keys(const float *s, ptrdiff_t keys, const uint64_t *mask, float scale, const annulus_statistics *t, ptrdiff_t row,
                        const int is_short) {
  const ptrdiff_t count = t->count;
  float *best = t->best + row * count;
  int32_t *best_keys = t->best_keys + row * count;
  float lane[16];
  short_list list;
  if (is_short) {
    list.scores = load_some(best, count);
    list.keys = bits(load_some((const float *)best_keys, count));
  }
  float least = best[count - 1];
  for (ptrdiff_t b = 0; 16 * b < keys; b++) {
    const uint32_t seen = visible(mask, b, keys);
    const v16 x = load(s + 16 * b) * splat(scale);
    for (uint32_t above = seen & set_lanes(x > splat(least)); above; above &= above - 1) {
      const int place = __builtin_ctz(above);
      const float score = s[16 * b + place] * scale;
      const int32_t key = t->first_key + (int32_t)(16 * b) + place;
      if (!(score > least)) continue;
      if (is_short) {
        insert_short(&list, score, key);
        store(lane, list.scores);
        least = lane[count - 1];
      } else {
        const ptrdiff_t at = insert_score(best, count, score);
        for (ptrdiff_t i = count - 1; i > at; i--) best_keys[i] = best_keys[i - 1];
        best_keys[at] = key;
        least = best[count - 1];
      }
    }
  }
  if (is_short) {
    store_some(best, list.scores, count);
    store_some((float *)best_keys, from_bits(list.keys), count);
  }
}

// The same for a row whose largest score is `top`: most tiles have nothing for a row.
static void select_row(const float *s, ptrdiff_t keys, const uint64_t *mask, float scale, float top,
                       const annulus_statistics *t, ptrdiff_t row) {
  const ptrdiff_t count = t->count;
  const float *best = t->best + row * count;
  const int32_t *best_keys = t->best_keys + row * count;
  float *scores = t->scores + row * count;
  int32_t *numbers = t->keys + row * count;
  ptrdiff_t found = 0;
  if (top > best[count - 1]) {
    if (count <= 16) select_keys(s, keys, mask, scale, t, row, 1);
    else select_keys(s, keys, mask, scale, t, row, 0);
    // This tile's are the last ones, by their keys, and in their order already.
    for (ptrdiff_t i = 0; i < count; i++)
      if (best_keys[i] >= t->first_key) scores[found] = best[i], numbers[found++] = best_keys[i];
  }
  for (; found < count; found++) scores[found] = -INFINITE, numbers[found] = -1;
}

// What sixteen weights add to a row's sums: x is what the scores are above the row's base, as far below as weights reach (so
// that a score of −∞ adds nothing), and the first key is so far from the row.
INLINE void observe_sixteen(v16 e, v16 x, float distance, v16 *weighted, v16 *distances) {
  const v16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  *weighted = fused(e, largest(splat(-4000.0f), x), *weighted);
  *distances = fused(e, absolute(splat(distance) + places), *distances);
}

// Ends a row's statistics as finish_row its sum: where nothing is above −∞ nothing weighs.
INLINE float finish_statistic(v16 lane_sums, float row_max) {
  const float sum = sum_lanes(lane_sums);
  return row_max == -INFINITE && sum == sum ? 0.0f : sum;
}

#endif
