// Statistics that ride on attention, and what of them merges: included by kernels_generic.h, once by each set.
//
// The weights are those of softmax_rows, to the bit. The largest score is one of the row itself, whatever the
// weights are taken against.

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

// Adds a row's weights, stored where `stores` is set, and what they make to lane sums.
INLINE void observe_row(float *s, ptrdiff_t keys, const uint64_t *mask, float scale, float highest, ptrdiff_t distance,
                        const int stores, v16 *sum, v16 *weighted, v16 *distances) {
  const v16 base = splat(row_base(highest)), steps = splat(scale);
  float delta = (float)distance;
  for (ptrdiff_t b = 0; 16 * b < keys; b++, delta += 16.0f) {
    const uint32_t seen = visible(mask, b, keys);
    v16 e = splat(0.0f);
    if (seen) {
      v16 x = (stores ? load(s + 16 * b) : load(s + 16 * b) * steps) - base;
      if (seen != 0xffffu) x = lanes(seen) ? x : splat(0.0f);
      e = weight_lanes(x);
      if (seen != 0xffffu) e = lanes(seen) ? e : splat(0.0f);
      observe_sixteen(e, x, delta, weighted, distances);
    }
    if (stores) store(s + 16 * b, e);
    *sum += e;
  }
}

// Ends a row's statistics as finish_row its sum: where nothing is above −∞ nothing weighs.
INLINE float finish_statistic(v16 lane_sums, float row_max) {
  const float sum = sum_lanes(lane_sums);
  return row_max == -INFINITE && sum == sum ? 0.0f : sum;
}

static void observe_rows(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                         const uint64_t *mask, ptrdiff_t mask_stride, float *row_max, float *row_sum,
                         const annulus_statistics *statistics) {
  enum { GROUP = 16 };
  v16 of_lanes[GROUP];
  for (ptrdiff_t r0 = 0; r0 < rows; r0 += GROUP, s += GROUP * s_stride, row_max += GROUP, row_sum += GROUP) {
    const ptrdiff_t n = rows - r0 < GROUP ? rows - r0 : GROUP;
    const annulus_statistics t = statistics_from(statistics, r0);
    for (ptrdiff_t r = 0; r < n; r++)
      of_lanes[r] = row_maxima(s + r * s_stride, keys, mask ? mask + r * mask_stride : NULL);
    for (ptrdiff_t r = 0; r < n; r++) row_max[r] = largest_lane(of_lanes[r]);
    for (ptrdiff_t r = 0; r < n; r++) {
      const uint64_t *own = mask ? mask + r * mask_stride : NULL;
      select_row(s + r * s_stride, keys, own, 1.0f, row_max[r], &t, r);
      v16 sum = splat(0.0f), weighted = sum, distances = sum;
      observe_row(s + r * s_stride, keys, own, 1.0f, row_max[r], t.distance - r, 1, &sum, &weighted, &distances);
      t.weighted[r] = finish_statistic(weighted, row_max[r]);
      t.distances[r] = finish_statistic(distances, row_max[r]);
      finish_row(sum, row_max + r, row_sum + r);
    }
    if (mask) mask += GROUP * mask_stride;
  }
}

static void observe_scores(const float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                           const uint64_t *mask, ptrdiff_t mask_stride, float scale, const float *row_max,
                           const annulus_statistics *statistics) {
  for (ptrdiff_t r = 0; r < rows; r++, s += s_stride, mask = mask ? mask + mask_stride : NULL) {
    const float top = largest_lane(row_maxima(s, keys, mask)) * scale;
    select_row(s, keys, mask, scale, top, statistics, r);
    v16 sum = splat(0.0f), weighted = sum, distances = sum;
    observe_row((float *)s, keys, mask, scale, row_max[r], statistics->distance - r, 0, &sum, &weighted, &distances);
    statistics->weighted[r] = finish_statistic(weighted, row_max[r]);
    statistics->distances[r] = finish_statistic(distances, row_max[r]);
  }
}

static void merge_statistics(ptrdiff_t rows, const float *left_max, const float *left_sum,
                             const float *right_max, const float *right_sum,
                             float *left_weighted, float *left_linear,
                             const float *right_weighted, const float *right_linear) {
  for (ptrdiff_t r = 0; r < rows; r += 16) {
    const ptrdiff_t n = rows - r < 16 ? rows - r : 16;
    const v16 a = load_up_to(left_max + r, n), b = load_up_to(right_max + r, n);
    const i16 no_left = a == splat(-INFINITE), no_right = b == splat(-INFINITE);
    const v16 m = ((a == a) & (b == b)) ? largest(a, b) : splat(NOT_A_NUMBER);
    const v16 x = exact_weight(a - m), y = exact_weight(b - m);
    // Against the common maximum a score is lower by as much as its own was.
    const v16 own = load_up_to(left_weighted + r, n), other = load_up_to(right_weighted + r, n);
    const v16 left = fused(a - m, load_up_to(left_sum + r, n), own), right = fused(b - m, load_up_to(right_sum + r, n), other);
    const v16 weighted = fused(right, y, left * x);
    const v16 mine = load_up_to(left_linear + r, n), more = load_up_to(right_linear + r, n);
    const v16 linear = fused(more, y, mine * x);
    store_up_to(left_weighted + r, no_right ? own : no_left ? other : weighted, n);
    store_up_to(left_linear + r, no_right ? mine : no_left ? more : linear, n);
  }
}

static void merge_best(ptrdiff_t rows, ptrdiff_t count, float *left_scores, int32_t *left_keys,
                       const float *right_scores, const int32_t *right_keys) {
  for (ptrdiff_t r = 0; r < rows; r++, left_scores += count, left_keys += count, right_scores += count, right_keys += count) {
    for (ptrdiff_t i = 0; i < count && right_scores[i] > left_scores[count - 1]; i++) {
      const ptrdiff_t place = insert_score(left_scores, count, right_scores[i]);
      for (ptrdiff_t k = count - 1; k > place; k--) left_keys[k] = left_keys[k - 1];
      left_keys[place] = right_keys[i];
    }
  }
}

static void finish_statistics(ptrdiff_t rows, const float *row_sum, const float *key_sum,
                              const float *weighted, const float *distances, float *entropy, float *mean_distance) {
  for (ptrdiff_t r = 0; r < rows; r += 16) {
    const ptrdiff_t n = rows - r < 16 ? rows - r : 16;
    const v16 sum = load_up_to(row_sum + r, n), of_keys = load_up_to(key_sum + r, n);
    const v16 share = of_keys / sum, mean = load_up_to(weighted + r, n) * splat(0x1.62e43p-6f) / sum;
    const v16 h = share * log_lanes(sum) - mean, d = load_up_to(distances + r, n) / of_keys;
    // NaN rows say so; the others see a key, or do not.
    const i16 sees = (of_keys > splat(0.0f)) | (of_keys != of_keys);
    store_up_to(entropy + r, sees ? h : splat(0.0f), n);
    store_up_to(mean_distance + r, sees ? d : splat(0.0f), n);
  }
}

static void add_block_sums(const float *x, ptrdiff_t n, ptrdiff_t first, ptrdiff_t size, float *sums) {
  for (ptrdiff_t j = 0; j < n;) {
    const ptrdiff_t block = (first + j) / size, last = (block + 1) * size - first, end = last < n ? last : n;
    v16 of_lanes = splat(0.0f);
    for (; j + 16 <= end; j += 16) of_lanes += load(x + j);
    float sum = sum_lanes(of_lanes);
    for (; j < end; j++) sum += x[j];
    sums[block] += sum;
  }
}
