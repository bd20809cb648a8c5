// Statistics that ride on attention, and what of them merges: included by kernels_generic.h, once by each set.
//
// The weights are those of softmax_rows, to the bit. The largest score is one of the row itself, whatever the
// weights are taken against.

#include "statistics_rows.h"

// A row's scores become weights, which are added to lane sums with what they make of its statistics.
INLINE void observe_row(float *s, ptrdiff_t keys, const uint64_t *mask, float highest, ptrdiff_t distance,
                        v16 *sum, v16 *weighted, v16 *distances) {
  const v16 base = splat(row_base(highest));
  float delta = (float)distance;
  for (ptrdiff_t b = 0; 16 * b < keys; b++, delta += 16.0f) {
    const uint32_t seen = visible(mask, b, keys);
    v16 e = splat(0.0f);
    if (seen) {
      v16 x = load(s + 16 * b) - base;
      if (seen != 0xffffu) x = lanes(seen) ? x : splat(0.0f);
      e = weight_lanes(x);
      if (seen != 0xffffu) e = lanes(seen) ? e : splat(0.0f);
      observe_sixteen(e, x, delta, weighted, distances);
    }
    store(s + 16 * b, e);
    *sum += e;
  }
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
      observe_row(s + r * s_stride, keys, own, row_max[r], t.distance - r, &sum, &weighted, &distances);
      t.weighted[r] = finish_statistic(weighted, row_max[r]);
      t.distances[r] = finish_statistic(distances, row_max[r]);
      finish_row(sum, row_max + r, row_sum + r);
    }
    if (mask) mask += GROUP * mask_stride;
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
