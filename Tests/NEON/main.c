// Holds every kernel set of this processor against the reference: the same inputs must give the same bits.
//
// usage: neon-tests [REQUIRED [RECORD]]
//   REQUIRED  a set that must be among them ("-": any)
//   RECORD    where a hash of each function's reference results is written, one line a function, for a comparison
//             with another processor's
// Prints what differs, then one line: N passed, N failed, N skipped. Run by scripts/checks/test-neon.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "annulus_kernels.h"
#if __has_include("annulus_bfloat16_kernels.h")
#include "annulus_bfloat16_kernels.h"
#define HAS_BFLOAT16 1
#endif
#if __has_include("annulus_gradient_kernels.h")
#include "annulus_gradient_kernels.h"
#define HAS_GRADIENTS 1
#endif

// ---- inputs and results -------------------------------------------------------------------------

enum { LARGEST = 1 << 16, LARGEST_ROWS = 64 };

typedef struct {
  uint32_t state;        // of the generator
  uint32_t *words;       // the results so far
  size_t count, capacity;
} Run;

// Numerical Recipes' linear congruential generator; the high bits, in −1…1.
static float next(Run *run) {
  run->state = run->state * 1664525u + 1013904223u;
  return (float)(run->state >> 8) * 0x1p-23f - 1.0f;
}

static float *fill(Run *run, float *p, ptrdiff_t n, float size) {
  for (ptrdiff_t i = 0; i < n; i++) p[i] = next(run) * size;
  return p;
}

static void fill_masks(Run *run, uint64_t *mask, ptrdiff_t words) {
  for (ptrdiff_t i = 0; i < words; i++) {
    mask[i] = 0;
    for (int bit = 0; bit < 64; bit++) mask[i] |= (uint64_t)(next(run) > -0.4f) << bit;
  }
  mask[0] = 0;  // A panel that the first row does not see.
  mask[1] = ~(uint64_t)0;
}

// Keeps results for the comparison; which NaN it is does not matter.
static void keep(Run *run, const void *results, ptrdiff_t n) {
  while (run->count + (size_t)n > run->capacity) {
    run->capacity = run->capacity ? 2 * run->capacity : 1 << 20;
    run->words = realloc(run->words, run->capacity * sizeof *run->words);
    if (!run->words) abort();
  }
  memcpy(run->words + run->count, results, (size_t)n * sizeof(uint32_t));
  for (ptrdiff_t i = 0; i < n; i++, run->count++)
    if ((run->words[run->count] & 0x7fffffff) > 0x7f800000) run->words[run->count] = 0x7fc00000;
}

static void keep_rows(Run *run, const float *results, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
  for (ptrdiff_t r = 0; r < rows; r++) keep(run, results + r * stride, columns);
}

static _Alignas(64) float a[LARGEST], b[LARGEST], c[LARGEST], d[LARGEST], scratch[LARGEST];
static float row_max[LARGEST_ROWS], row_sum[LARGEST_ROWS], other_max[LARGEST_ROWS], other_sum[LARGEST_ROWS];
static uint64_t masks[4 * LARGEST_ROWS];

static const ptrdiff_t depths[] = {1, 2, 7, 16, 33, 64, 80, 129};
static const ptrdiff_t row_counts[] = {1, 2, 3, 5, 6, 7, 12, 13, 25};
#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define FOR_EACH(type, name, array) for (const type *name = (array); name < (array) + COUNT(array); name++)

// ---- one check a function -----------------------------------------------------------------------

static void check_panel_product(const annulus_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      for (ptrdiff_t width = 16; width <= 64; width += 16) {
        fill(run, a, *rows * (*depth + 3), 2), fill(run, b, *depth * width, 2), fill(run, c, *rows * width, 1);
        set->panel_product(a, *depth + 3, *rows, b, *depth, 16 * *depth, width, c, width, (int)(*rows % 3));
        keep(run, c, *rows * width);
      }
}

static void check_masked_panel_product(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t width = 16; width <= 64; width += 16)
    for (int accumulate = 0; accumulate < 2; accumulate++) {
      fill_masks(run, masks, COUNT(masks));
      fill(run, c, 40 * width, 1);
      fill(run, b, 250 * width, 2)[3] = NAN;  // Not to be seen through a mask.
      set->masked_panel_product(fill(run, a, 40 * 256, 2), 256, 40, b, 250, 16 * 250, width, c, width, accumulate, masks, 4);
      keep(run, c, 40 * width);
    }
}

static void check_softmax_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 256; keys += 51)
    for (int masked = 0; masked < 2; masked++) {
      fill_masks(run, masks, COUNT(masks));
      memset(masks + 4 * 7, 0, 4 * sizeof *masks);  // A row that sees nothing.
      fill(run, a, 40 * 256, 60);
      for (int i = 0; i < 256; i += 3) a[9 * 256 + i] = -INFINITY;
      set->softmax_rows(a, 256, 40, keys, masked ? masks : NULL, masked ? 4 : 0, row_max, row_sum);
      keep_rows(run, a, 40, (keys + 15) / 16 * 16, 256);
      keep(run, row_max, 40);
      keep(run, row_sum, 40);
    }
}

static void fill_statistics(Run *run) {
  fill(run, row_max, 40, 9);
  fill(run, other_max, 40, 9);
  for (int r = 0; r < 40; r++) row_sum[r] = 2 + next(run), other_sum[r] = 2 + next(run);
  row_max[3] = other_max[5] = row_max[7] = other_max[7] = -INFINITY;
  row_max[11] = NAN;
}

static void check_merge_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t width = 16; width <= 80; width += 16) {
    fill_statistics(run);
    fill(run, a, 40 * 80, 1), fill(run, b, 40 * 80, 1);
    set->merge_rows(40, width, row_max, row_sum, a, 80, other_max, other_sum, b, 80);
    keep(run, a, 40 * 80);
    keep(run, row_max, 40);
    keep(run, row_sum, 40);
  }
}

static void check_normalize_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t columns = 1; columns < 80; columns += 13) {
    fill_statistics(run);
    set->normalize_rows(40, columns, row_max, row_sum, fill(run, a, 40 * 80, 1), 80, c, columns, d, 1);
    keep(run, c, 40 * columns);
    keep(run, d, 40);
  }
}

static void check_packing(const annulus_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, depth, depths)
    for (ptrdiff_t n = 1; n <= 200; n += 33) {
      fill(run, a, n * (*depth + 1), 1);
      memset(c, 0, sizeof c);
      set->pack_transposed(a, *depth + 1, n, *depth, c, 16 * *depth);
      keep(run, c, (n + 15) / 16 * 16 * *depth);
      memset(c, 0, sizeof c);
      set->pack_columns(a, n, *depth, n, c, 16 * *depth);
      keep(run, c, (n + 15) / 16 * 16 * *depth);
    }
}

// Numbers of every size, denormal and infinite ones and NaNs among them: the patterns are a prime apart.
static void fill_patterns(uint32_t first, float *p, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++) {
    const uint32_t pattern = first + (uint32_t)i * 1049u;
    memcpy(p + i, &pattern, sizeof pattern);
  }
}

static void check_function(void (*function)(const float *, float *, ptrdiff_t), Run *run) {
  for (uint64_t first = 0; first < (uint64_t)1 << 32; first += 1021 * 1049) {
    fill_patterns((uint32_t)first, a, 1021);
    function(a, c, 1021);
    keep(run, c, 1021);
  }
}
static void check_exp(const annulus_kernels *set, Run *run) { check_function(set->exp, run); }
static void check_log(const annulus_kernels *set, Run *run) { check_function(set->log, run); }
static void check_erf(const annulus_kernels *set, Run *run) { check_function(set->erf, run); }
static void check_tanh(const annulus_kernels *set, Run *run) { check_function(set->tanh, run); }

static void check_in_place(void (*function)(ptrdiff_t, ptrdiff_t, float *, ptrdiff_t, const float *), Run *run) {
  for (uint64_t first = 0; first < (uint64_t)1 << 32; first += 1021 * 1049) {
    fill_patterns((uint32_t)first, c, 1021);
    function(1, 1021, c, 1021, NULL);
    keep(run, c, 1021);
  }
  for (ptrdiff_t columns = 1; columns < 100; columns += 7) {
    fill(run, c, 6 * 100, 4);
    function(6, columns, c, 100, fill(run, b, columns, 2));
    keep(run, c, 6 * 100);
  }
}
static void check_add_bias(const annulus_kernels *set, Run *run) { check_in_place(set->add_bias, run); }
static void check_gelu(const annulus_kernels *set, Run *run) { check_in_place(set->gelu_bias, run); }
static void check_gelu_tanh(const annulus_kernels *set, Run *run) { check_in_place(set->gelu_tanh_bias, run); }

static void check_silu(const annulus_kernels *set, Run *run) { check_in_place(set->silu_bias, run); }
static void check_relu(const annulus_kernels *set, Run *run) { check_in_place(set->relu_bias, run); }
static void check_tanh_bias(const annulus_kernels *set, Run *run) { check_in_place(set->tanh_bias, run); }

static void check_gate_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t columns = 1; columns < 100; columns += 7) {
    fill(run, a, 6 * 100, 4), fill(run, b, 6 * 100, 4);
    set->gate_rows(6, columns, a, b, 100, c, columns);
    keep(run, c, 6 * columns);
  }
}

static void check_layer_norm(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t columns = 1; columns < 400; columns += 57)
    for (int parts = 0; parts < 8; parts++) {
      fill(run, a, 5 * 400, 4), fill(run, b, 5 * 400, 4), fill(run, d, 3 * 400, 2);
      set->layer_norm(5, columns, a, 400, parts & 1 ? d : NULL, parts & 2 ? b : NULL, 400, d + 400,
                      parts & 4 ? d + 800 : NULL, 1e-5f, c, columns);
      keep(run, c, 5 * columns);
    }
}

static void check_rms_norm(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t columns = 1; columns < 400; columns += 57)
    for (int parts = 0; parts < 8; parts++) {
      fill(run, a, 5 * 400, 4), fill(run, b, 5 * 400, 4), fill(run, d, 3 * 400, 2);
      set->rms_norm(5, columns, a, 400, parts & 1 ? d : NULL, parts & 2 ? b : NULL, 400, d + 400,
                    parts & 4 ? d + 800 : NULL, 1e-5f, c, columns);
      keep(run, c, 5 * columns);
    }
}

static void check_receive_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 256; keys += 51)
    for (int parts = 0; parts < 2; parts++) {
      fill(run, a, 7 * 256, 40), fill(run, b, 7, 1), fill(run, c, 256, 1);
      for (int r = 0; r < 7; r++) row_max[r] = 80 + r;
      row_max[3] = -INFINITY;
      fill_masks(run, masks, COUNT(masks));
      set->receive_rows(a, 256, 7, keys, parts ? masks : NULL, 4, 1.25f, row_max, b, c);
      keep(run, c, 256);
    }
}

static void check_attend_tile(const annulus_kernels *set, Run *run) {
  static const ptrdiff_t key_counts[] = {1, 17, 64, 200, 256};
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      FOR_EACH(ptrdiff_t, keys, key_counts) {
        const ptrdiff_t width = (*depth + 15) / 16 * 16;
        set->pack_transposed(fill(run, a, *keys * *depth, 1), *depth, *keys, *depth, c, 16 * *depth);
        set->pack_columns(a, *depth, *keys, *depth, d, 16 * *keys);
        set->attend_tile(fill(run, b, *rows * *depth, 3), *depth, *rows, c, *depth, d, *depth, *keys, row_max, row_sum,
                         a, width, scratch, c);
        keep(run, a, *rows * width);
        keep(run, row_max, *rows);
        keep(run, row_sum, *rows);
      }
}

// Statistics of up to 64 rows, of each five keys; `e` holds the sums, then the best scores, then those of the tile.
static float e[13 * LARGEST_ROWS];
static int32_t best_keys[5 * LARGEST_ROWS], keys_before[5 * LARGEST_ROWS];
static annulus_statistics statistics_of(ptrdiff_t rows) {
  for (ptrdiff_t i = 0; i < 5 * rows; i++) e[2 * LARGEST_ROWS + i] = -INFINITY, keys_before[i] = -1;
  return (annulus_statistics){e, e + LARGEST_ROWS, -70, 5, e + 2 * LARGEST_ROWS, keys_before, e + 7 * LARGEST_ROWS, best_keys, 1000};
}
static void keep_statistics(Run *run, ptrdiff_t rows) {
  keep(run, e, rows);
  keep(run, e + LARGEST_ROWS, rows);
  keep(run, e + 2 * LARGEST_ROWS, 5 * rows);
  keep(run, e + 7 * LARGEST_ROWS, 5 * rows);
  // As bits: small whole numbers, and −1, which would be a NaN.
  for (ptrdiff_t i = 0; i < 5 * rows; i++) e[i] = (float)best_keys[i];
  keep(run, e, 5 * rows);
}

static void check_observe_tile(const annulus_kernels *set, Run *run) {
  static const ptrdiff_t key_counts[] = {1, 17, 64, 200, 256};
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      FOR_EACH(ptrdiff_t, keys, key_counts) {
        const ptrdiff_t width = (*depth + 15) / 16 * 16;
        const annulus_statistics statistics = statistics_of(*rows);
        set->pack_transposed(fill(run, a, *keys * *depth, 1), *depth, *keys, *depth, c, 16 * *depth);
        set->pack_columns(a, *depth, *keys, *depth, d, 16 * *keys);
        set->observe_tile(fill(run, b, *rows * *depth, 3), *depth, *rows, c, *depth, d, *depth, *keys, row_max, row_sum,
                          a, width, scratch, c, &statistics);
        keep(run, a, *rows * width);
        keep(run, row_max, *rows);
        keep(run, row_sum, *rows);
        keep_statistics(run, *rows);
      }
}

static void check_observe_rows(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 256; keys += 51)
    for (int masked = 0; masked < 2; masked++) {
      const annulus_statistics statistics = statistics_of(7);
      fill(run, a, 7 * 256, 100);
      fill_masks(run, masks, COUNT(masks));
      set->observe_rows(a, 256, 7, keys, masked ? masks : NULL, 4, row_max, row_sum, &statistics);
      keep_rows(run, a, 7, keys, 256);
      keep(run, row_max, 7);
      keep_statistics(run, 7);
    }
}

static void check_merge_statistics(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t rows = 1; rows <= 40; rows += 13) {
    float *left = fill(run, a, 8 * rows, 50);
    left[0] = left[2 * rows + rows - 1] = -INFINITY;
    set->merge_statistics(rows, left, left + rows, left + 2 * rows, left + 3 * rows, left + 4 * rows, left + 5 * rows,
                          left + 6 * rows, left + 7 * rows);
    keep(run, left, 8 * rows);
    for (ptrdiff_t i = 0; i < rows; i++) left[rows + i] = fabsf(left[rows + i]), left[2 * rows + i] = fabsf(left[2 * rows + i]);
    set->finish_statistics(rows, left + rows, left + 2 * rows, left + 4 * rows, left + 5 * rows, b, c);
    keep(run, b, rows);
    keep(run, c, rows);
    for (ptrdiff_t size = 1; size <= 300; size += 23) {
      fill(run, c, 256, 1);
      set->add_block_sums(fill(run, b, 256, 1), 255 - size % 7, size, size, c);
      keep(run, c, 256);
    }
  }
}

static void check_modify_scores(const annulus_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 256; keys += 51)
    for (int parts = 0; parts < 8; parts++) {
      fill(run, b, 2 * 20 + 1, 3);
      set->modify_scores(fill(run, a, 7 * 256, 40), 256, 7, keys, keys & 1 ? 1 : 1.25f, parts & 1 ? 5 : 0,
                         parts & 2 ? b : NULL, 20, parts & 4 ? 0.3f : 0, 30 - 2 * keys, (float)ANNULUS_STEPS);
      keep_rows(run, a, 7, keys, 256);
    }
}

typedef struct {
  const char *name;
  void (*run)(const annulus_kernels *, Run *);
} Check;
static const Check checks[] = {
  {"panel_product", check_panel_product},
  {"masked_panel_product", check_masked_panel_product},
  {"softmax_rows", check_softmax_rows},
  {"merge_rows", check_merge_rows},
  {"normalize_rows", check_normalize_rows},
  {"packing", check_packing},
  {"add_bias", check_add_bias},
  {"gelu_bias", check_gelu},
  {"gelu_tanh_bias", check_gelu_tanh},
  {"silu_bias", check_silu},
  {"relu_bias", check_relu},
  {"tanh_bias", check_tanh_bias},
  {"gate_rows", check_gate_rows},
  {"layer_norm", check_layer_norm},
  {"rms_norm", check_rms_norm},
  {"receive_rows", check_receive_rows},
  {"exp", check_exp},
  {"log", check_log},
  {"erf", check_erf},
  {"tanh", check_tanh},
  {"attend_tile", check_attend_tile},
  {"observe_tile", check_observe_tile},
  {"observe_rows", check_observe_rows},
  {"merge_statistics", check_merge_statistics},
  {"modify_scores", check_modify_scores},
};

// ---- the same for gradients ---------------------------------------------------------------------

#if HAS_GRADIENTS
static void check_transposed_products(const annulus_gradient_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      for (ptrdiff_t width = 16; width <= 64; width += 16) {
        fill(run, a, *depth * (*rows + 3), 2), fill(run, b, *depth * width, 2), fill(run, c, *rows * width, 1);
        set->transposed_panel_product(a, *rows + 3, *rows, b, *depth, 16 * *depth, width, c, width, (int)(*rows % 3));
        keep(run, c, *rows * width);
      }
}

static void check_masked_transposed_products(const annulus_gradient_kernels *set, Run *run) {
  for (ptrdiff_t rows = 1; rows <= 64; rows += 9)
    for (ptrdiff_t width = 16; width <= 64; width += 16) {
      fill_masks(run, masks, COUNT(masks));
      fill(run, a, 250 * 64, 2)[0] = NAN;  // Not to be seen through a mask.
      fill(run, b, 250 * width, 2), fill(run, c, 64 * width, 1);
      set->masked_transposed_panel_product(a, 64, rows, b, 250, 16 * 250, width, c, width, (int)(rows % 2), masks, 1);
      keep(run, c, 64 * width);
    }
}

static void check_differentiate_rows(const annulus_gradient_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 64; keys += 21)
    for (int masked = 0; masked < 2; masked++) {
      fill(run, a, 40 * 64, 40), fill(run, b, 40 * 64, 2), fill(run, row_sum, 40, 1);
      for (int r = 0; r < 40; r++) row_max[r] = 50 + r;
      row_max[5] = -INFINITY, row_max[6] = NAN;
      fill_masks(run, masks, COUNT(masks));
      set->differentiate_rows(a, 64, b, 64, 40, keys, masked ? masks : NULL, 4, 1.25f, row_max, row_sum, c, 80, d, 64);
      keep_rows(run, c, 40, (keys + 15) / 16 * 16, 80);
      keep_rows(run, d, 40, (keys + 15) / 16 * 16, 64);
      set->uncap_rows(d, 64, 40, keys, masked ? masks : NULL, 4, fill(run, a, 40 * 64, 3), 64, 3.0f);
      keep_rows(run, d, 40, keys, 64);
    }
}

static void check_diagonals(const annulus_gradient_kernels *set, Run *run) {
  for (ptrdiff_t reach = 0; reach <= 90; reach += 30)
    for (ptrdiff_t keys = 1; keys <= 64; keys += 21)
      for (ptrdiff_t distance = -120; distance <= 120; distance += 40) {
        fill(run, b, 2 * reach + 1, 1);
        set->add_diagonals(fill(run, a, 40 * 64, 1), 64, 40, keys, distance, reach, b);
        keep(run, b, 2 * reach + 1);
      }
}

static void check_gradient_rows(const annulus_gradient_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, columns, depths) {
    fill(run, a, 40 * *columns, 2), fill(run, b, 40 * *columns, 2), fill(run, row_sum, 40, 1);
    set->dot_rows(40, *columns, a, *columns, b, *columns, c, 2);
    keep_rows(run, c, 40, 1, 2);
    set->scale_and_pack(a, *columns, 40, *columns, row_sum, d, c);
    keep(run, c, 40 * ((*columns + 15) / 16 * 16)), keep(run, d, 40 * *columns);
    set->widen_panels(a, *columns, 48, d);
    keep(run, d, *columns * 48);
  }
}

typedef struct {
  const char *name;
  void (*run)(const annulus_gradient_kernels *, Run *);
} GradientCheck;
static const GradientCheck gradient_checks[] = {
  {"transposed_panel_product", check_transposed_products},
  {"masked_transposed_panel_product", check_masked_transposed_products},
  {"differentiate_rows", check_differentiate_rows},
  {"add_diagonals", check_diagonals},
  {"gradient_rows", check_gradient_rows},
};
#endif

// ---- the same for bfloat16 ----------------------------------------------------------------------

#if HAS_BFLOAT16
// Strides and depths count pairs.
static void check_bfloat16_rounding(const annulus_bfloat16_kernels *set, Run *run) {
  for (uint64_t first = 0; first < (uint64_t)1 << 32; first += 1021 * 1049) {
    fill_patterns((uint32_t)first, a, 1021);
    set->round_rows(a, 1021, 1, 1021, 0.5f, c, 511);
    // Halves, so that a NaN is told from a number; which NaN it is may differ.
    for (int half = 0; half < 1022; half++) {
      uint16_t rounded;
      memcpy(&rounded, (const char *)c + 2 * half, sizeof rounded);
      const uint32_t widened = (uint32_t)rounded << 16;
      memcpy(d + half, &widened, sizeof widened);
    }
    keep(run, d, 1022);
  }
}

static void check_bfloat16_products(const annulus_bfloat16_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      for (ptrdiff_t width = 16; width <= 64; width += 16) {
        const ptrdiff_t pairs = (*depth + 1) / 2;
        set->round_rows(fill(run, a, *rows * *depth, 2), *depth, *rows, *depth, 1, c, pairs);
        set->pack_columns(fill(run, a, *depth * width, 2), width, *depth, width, d, 16 * pairs);
        fill(run, b, *rows * width, 1);
        set->panel_product(c, pairs, *rows, d, *depth, 16 * pairs, width, b, width, *rows & 1);
        keep(run, b, *rows * width);
      }
}

static void check_bfloat16_masked_products(const annulus_bfloat16_kernels *set, Run *run) {
  for (ptrdiff_t width = 16; width <= 64; width += 16) {
    fill_masks(run, masks, COUNT(masks));
    set->round_rows(fill(run, a, 40 * 250, 2), 250, 40, 250, 1, c, 125);
    set->pack_columns(fill(run, a, 250 * width, 2), width, 250, width, d, 16 * 125);
    set->masked_panel_product(c, 125, 40, d, 250, 16 * 125, width, fill(run, b, 40 * width, 1), width, 1, masks, 4);
    keep(run, b, 40 * width);
  }
}

static void check_bfloat16_softmax(const annulus_bfloat16_kernels *set, Run *run) {
  for (ptrdiff_t keys = 1; keys <= 256; keys += 51)
    for (int masked = 0; masked < 2; masked++) {
      fill_masks(run, masks, COUNT(masks));
      memset(masks + 4 * 7, 0, 4 * sizeof *masks);
      set->softmax_rows(fill(run, a, 40 * 256, 60), 256, 40, keys, masked ? masks : NULL, masked ? 4 : 0, 0.5f, row_max, row_sum);
      keep_rows(run, a, 40, (keys + 15) / 16 * 8, 256);
      keep(run, row_max, 40);
      keep(run, row_sum, 40);
    }
}

static void check_bfloat16_tiles(const annulus_bfloat16_kernels *set, Run *run) {
  static const ptrdiff_t key_counts[] = {1, 17, 64, 200, 256};
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      FOR_EACH(ptrdiff_t, keys, key_counts) {
        const ptrdiff_t width = (*depth + 15) / 16 * 16, pairs = (*depth + 1) / 2;
        set->pack_transposed(fill(run, a, *keys * *depth, 1), *depth, *keys, *depth, c, 16 * pairs);
        set->pack_columns(a, *depth, *keys, *depth, d, (*keys + 1) / 2 * 16);
        set->round_rows(fill(run, a, *rows * *depth, 3), *depth, *rows, *depth, 1, b, pairs);
        set->attend_tile(b, pairs, *rows, c, *depth, d, *depth, *keys, 0.25f, row_max, row_sum, a, width, scratch);
        keep(run, a, *rows * width);
        keep(run, row_max, *rows);
        keep(run, row_sum, *rows);
      }
}

static void check_bfloat16_statistics(const annulus_bfloat16_kernels *set, Run *run) {
  static const ptrdiff_t key_counts[] = {1, 17, 64, 200, 256};
  FOR_EACH(ptrdiff_t, keys, key_counts) {
    for (int masked = 0; masked < 2; masked++) {
      const annulus_statistics statistics = statistics_of(40);
      fill_masks(run, masks, COUNT(masks));
      set->observe_rows(fill(run, a, 40 * 256, 60), 256, 40, *keys, masked ? masks : NULL, masked ? 4 : 0, 0.5f, row_max, row_sum,
                        &statistics);
      keep_rows(run, a, 40, (*keys + 15) / 16 * 8, 256);
      keep_statistics(run, 40);
    }
    FOR_EACH(ptrdiff_t, rows, row_counts)
      FOR_EACH(ptrdiff_t, depth, depths) {
        const ptrdiff_t width = (*depth + 15) / 16 * 16, pairs = (*depth + 1) / 2;
        const annulus_statistics statistics = statistics_of(*rows);
        set->pack_transposed(fill(run, a, *keys * *depth, 1), *depth, *keys, *depth, c, 16 * pairs);
        set->pack_columns(a, *depth, *keys, *depth, d, (*keys + 1) / 2 * 16);
        set->round_rows(fill(run, a, *rows * *depth, 3), *depth, *rows, *depth, 1, b, pairs);
        set->observe_tile(b, pairs, *rows, c, *depth, d, *depth, *keys, 0.25f, row_max, row_sum, a, width, scratch, &statistics);
        keep(run, a, *rows * width);
        keep(run, row_max, *rows);
        keep(run, row_sum, *rows);
        keep_statistics(run, *rows);
      }
  }
}

// Halves of pairs about 2^exponent, whose products are at the edge of what is flushed; denormal ones, zeros and, where asked for,
// infinite ones and NaNs of every payload are among them.
static float *fill_pairs(Run *run, float *p, ptrdiff_t n, int exponent, int numbers_only) {
  for (ptrdiff_t i = 0; i < n; i++) {
    uint32_t word = 0;
    for (int half = 0; half < 2; half++) {
      run->state = run->state * 1664525u + 1013904223u;
      const uint32_t random = run->state >> 8, kind = random >> 8 & 63;
      uint32_t field = (uint32_t)(exponent + 127) + (random >> 14 & 3);
      if (kind < 2) field = 0;
      if (kind == 2 && !numbers_only) field = 255;
      word |= (kind == 3 ? 0 : (random & 0x7f) | field << 7 | (random >> 16 & 1) << 15) << (16 * half);
    }
    memcpy(p + i, &word, sizeof word);
  }
  return p;
}

// Sums at that edge, denormal ones among them; the smallest normal numbers are a quarter of them.
static void fill_edge(Run *run, float *p, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++) {
    run->state = run->state * 1664525u + 1013904223u;
    const uint32_t random = run->state >> 7;
    const uint32_t pattern = (random & 3 ? random >> 1 & 0x01ffffff : 0x00800000) | (random & 4) << 29;
    memcpy(p + i, &pattern, sizeof pattern);
  }
}

// Whether denormal numbers are numbers again, as they were before.
static void keep_mode(Run *run) {
  volatile float tiny = 0x1p-130f, half = 0.5f;
  const float results[2] = {tiny * half, 0x1p-126f * half};
  keep(run, results, 2);
}

static void check_bfloat16_flushing(const annulus_bfloat16_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, depth, depths)
      for (int accumulate = 0; accumulate < 3; accumulate++)
        for (int exponent = -66; exponent <= -62; exponent += 2) {
          const ptrdiff_t pairs = (*depth + 1) / 2, width = 16 * (1 + (*rows + *depth) % 4);
          fill_pairs(run, a, *rows * pairs, exponent, exponent != -64);
          fill_pairs(run, d, pairs * width, exponent, exponent != -64);
          fill_edge(run, b, *rows * width);
          set->panel_product(a, pairs, *rows, d, *depth, 16 * pairs, width, b, width, accumulate);
          keep(run, b, *rows * width);
          keep_mode(run);
        }
}

static void fill_words(float *p, ptrdiff_t n, uint32_t word) {
  for (ptrdiff_t i = 0; i < n; i++) memcpy(p + i, &word, sizeof word);
}

// ±2⁻¹²⁶ less 2⁻¹⁶⁰ is tiny before it is rounded and not after: such sums stay what they are.
static void check_bfloat16_smallest(const annulus_bfloat16_kernels *set, Run *run) {
  FOR_EACH(ptrdiff_t, rows, row_counts)
    for (int signs = 0; signs < 4; signs++) {
      // ±2⁻⁸⁰ · 2⁻⁸⁰ in both halves of each pair.
      fill_words(a, *rows * 2, signs & 1 ? 0x97809780 : 0x17801780);
      fill_words(d, 2 * 64, 0x17801780);
      for (int masked = 0; masked < 2; masked++) {
        fill_words(b, *rows * 64, signs & 2 ? 0x80800000 : 0x00800000);
        for (ptrdiff_t r = 0; r < *rows; r++) masks[r] = (uint64_t)(15 - r % 4);
        if (masked) set->masked_panel_product(a, 2, *rows, d, 4, 32, 64, b, 64, ANNULUS_CONTINUE, masks, 1);
        else set->panel_product(a, 2, *rows, d, 4, 32, 64, b, 64, ANNULUS_CONTINUE);
        keep(run, b, *rows * 64);
        keep_mode(run);
      }
    }
  // 2⁻⁶³ · 2⁻⁶³ − 2⁻⁸⁰ · 2⁻⁸⁰, where a chain begins; added to 0, too.
  FOR_EACH(ptrdiff_t, rows, row_counts)
    for (int accumulate = ANNULUS_START; accumulate <= ANNULUS_ADD; accumulate += ANNULUS_ADD - ANNULUS_START) {
      fill_words(a, *rows, 0x20009780), fill_words(d, 64, 0x20001780), fill_words(b, *rows * 64, 0);
      set->panel_product(a, 1, *rows, d, 2, 16, 64, b, 64, accumulate);
      keep(run, b, *rows * 64);
      keep_mode(run);
    }
  // A tile of 64 keys whose scores are 2⁻¹²⁶ − 2⁻¹⁶⁰, odd ones less 5120, so that their weights are 2⁻⁴⁰; of the values, which only
  // odd ones have, the first is 2⁻⁸⁶ and the others are −2⁻¹²⁰.
  FOR_EACH(ptrdiff_t, rows, row_counts) {
    static const uint32_t query[2] = {0x20009780, 0x0000c280};
    for (ptrdiff_t r = 0; r < *rows; r++) memcpy(a + 2 * r, query, sizeof query);
    fill_words(c, 64, 0x20001780), fill_words(c + 64, 64, 0);
    for (int key = 1; key < 64; key += 2) fill_words(c + 64 + key, 1, 0x000042a0);
    fill_words(d, 16, 0x14800000), fill_words(d + 16, 31 * 16, 0x83800000);
    set->attend_tile(a, 2, *rows, c, 4, d, 16, 64, 0.25f, row_max, row_sum, b, 16, scratch);
    keep(run, b, *rows * 16);
    keep(run, row_max, *rows);
    keep(run, row_sum, *rows);
    keep_mode(run);
  }
}

static void check_bfloat16_masked_flushing(const annulus_bfloat16_kernels *set, Run *run) {
  for (ptrdiff_t width = 16; width <= 64; width += 16)
    for (int accumulate = 0; accumulate < 2; accumulate++)
      for (int exponent = -66; exponent <= -62; exponent += 2) {
        fill_masks(run, masks, COUNT(masks));
        fill_edge(run, b, 40 * width);
        set->masked_panel_product(fill_pairs(run, a, 40 * 125, exponent, exponent != -64), 125, 40,
                                  fill_pairs(run, d, 125 * width, exponent, exponent != -64), 250, 16 * 125, width, b, width, accumulate,
                                  masks, 4);
        keep(run, b, 40 * width);
        keep_mode(run);
      }
}

static void check_bfloat16_tiny_tiles(const annulus_bfloat16_kernels *set, Run *run) {
  static const ptrdiff_t key_counts[] = {17, 64, 200};
  FOR_EACH(ptrdiff_t, rows, row_counts)
    FOR_EACH(ptrdiff_t, keys, key_counts)
      for (ptrdiff_t depth = 2; depth <= 66; depth += 32)
        for (int parts = 0; parts < 4; parts++) {
          const ptrdiff_t width = (depth + 15) / 16 * 16, pairs = depth / 2, wide = (*keys + 15) / 16 * 16;
          fill_pairs(run, a, *rows * pairs, parts & 1 ? -64 : -2, 1);
          fill_pairs(run, c, pairs * wide, parts & 1 ? -64 : -2, 1);
          fill_pairs(run, d, (*keys + 1) / 2 * width, parts & 2 ? -124 : -2, 1);
          set->attend_tile(a, pairs, *rows, c, depth, d, depth, *keys, 0.25f, row_max, row_sum, b, width, scratch);
          keep(run, b, *rows * width);
          keep(run, row_max, *rows);
          keep(run, row_sum, *rows);
          keep_mode(run);
        }
}

typedef struct {
  const char *name;
  void (*run)(const annulus_bfloat16_kernels *, Run *);
} BFloat16Check;
static const BFloat16Check bfloat16_checks[] = {
  {"bfloat16_round_rows", check_bfloat16_rounding},
  {"bfloat16_panel_product", check_bfloat16_products},
  {"bfloat16_masked_panel_product", check_bfloat16_masked_products},
  {"bfloat16_softmax_rows", check_bfloat16_softmax},
  {"bfloat16_attend_tile", check_bfloat16_tiles},
  {"bfloat16_statistics", check_bfloat16_statistics},
  {"bfloat16_flushing", check_bfloat16_flushing},
  {"bfloat16_smallest", check_bfloat16_smallest},
  {"bfloat16_masked_flushing", check_bfloat16_masked_flushing},
  {"bfloat16_tiny_tiles", check_bfloat16_tiny_tiles},
};
#endif

// ---- comparison ---------------------------------------------------------------------------------

static Run reference, tested;

static void restart(Run *run) { run->state = 1, run->count = 0; }

// Whether the two runs hold the same bits; where they do not, says where first.
static int same(const char *set, const char *function) {
  if (reference.count != tested.count) {
    printf("%s: %s gives %zu results, the reference %zu\n", set, function, tested.count, reference.count);
    return 0;
  }
  for (size_t i = 0; i < reference.count; i++)
    if (reference.words[i] != tested.words[i]) {
      printf("%s: %s differs first at result %zu of %zu: %08" PRIx32 ", the reference %08" PRIx32 "\n", set, function, i,
             reference.count, tested.words[i], reference.words[i]);
      return 0;
    }
  return 1;
}

// FNV-1a over the reference's results.
static void record(FILE *file, const char *function) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < reference.count; i++) hash = (hash ^ reference.words[i]) * 1099511628211u;
  if (file) fprintf(file, "%s %016" PRIx64 " over %zu results\n", function, hash, reference.count);
}

int main(int count, char **arguments) {
  int passed = 0, failed = 0, found = 0;
  FILE *file = NULL;
  if (count > 2 && !(file = fopen(arguments[2], "w"))) {
    perror(arguments[2]);
    return 73;
  }
  for (int i = 1; annulus_kernels_available(i); i++)
    found |= count < 2 || !strcmp(arguments[1], annulus_kernels_available(i)->name);
  if (count > 1 && strcmp(arguments[1], "-") && !found) {
    printf("the kernel set %s is not among those of this processor\n", arguments[1]);
    failed++;
  }
  FOR_EACH(Check, check, checks) {
    restart(&reference);
    check->run(annulus_kernels_available(0), &reference);
    record(file, check->name);
    for (int i = 1; annulus_kernels_available(i); i++) {
      restart(&reference);
      check->run(annulus_kernels_reference_of(i), &reference);
      restart(&tested);
      check->run(annulus_kernels_available(i), &tested);
      *(same(annulus_kernels_available(i)->name, check->name) ? &passed : &failed) += 1;
    }
  }
#if HAS_GRADIENTS
  FOR_EACH(GradientCheck, check, gradient_checks) {
    restart(&reference);
    check->run(annulus_gradient_kernels_available(0), &reference);
    record(file, check->name);
    for (int i = 1; annulus_kernels_available(i); i++) {
      restart(&reference);
      check->run(annulus_gradient_kernels_reference_of(i), &reference);
      restart(&tested);
      check->run(annulus_gradient_kernels_available(i), &tested);
      *(same(annulus_kernels_available(i)->name, check->name) ? &passed : &failed) += 1;
    }
  }
#endif
#if HAS_BFLOAT16
  FOR_EACH(BFloat16Check, check, bfloat16_checks) {
    restart(&reference);
    check->run(annulus_bfloat16_kernels_available(0), &reference);
    record(file, check->name);
    for (int i = 1; annulus_kernels_available(i); i++) {
      restart(&reference);
      check->run(annulus_bfloat16_kernels_reference_of(i), &reference);
      restart(&tested);
      check->run(annulus_bfloat16_kernels_available(i), &tested);
      *(same(annulus_kernels_available(i)->name, check->name) ? &passed : &failed) += 1;
    }
  }
#endif
  if (file && fclose(file) != 0) {
    perror(arguments[2]);
    return 73;
  }
  printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed != 0;
}
