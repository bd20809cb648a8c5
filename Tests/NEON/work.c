// Some strips of rows through the NEON kernels, for scripts/checks/neon-cycles to record.
//
// usage: neon-work attention|bfloat16-attention|dense|bfloat16-dense DEPTH
//   attention: 24 queries over one tile of 256 keys, heads of DEPTH; dense: 24 rows of DEPTH terms, 64 columns
#include <stdlib.h>
#include <string.h>

#include "annulus_bfloat16_kernels.h"
#include "annulus_kernels.h"

extern const annulus_kernels annulus_kernels_neon;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_neon;

enum { ROWS = 24, KEYS = 256, COLUMNS = 64, DEEPEST = 1024 };

static _Alignas(64) float rows[ROWS * DEEPEST], panels[KEYS * DEEPEST], values[KEYS * DEEPEST], results[ROWS * DEEPEST];
static _Alignas(64) float scratch[12 * KEYS], row_max[ROWS], row_sum[ROWS];

// Numbers in −1…1 by Numerical Recipes' generator, or pairs of them in bfloat16.
static void fill(float *p, ptrdiff_t n, int pairs) {
  uint32_t state = 1;
  for (ptrdiff_t i = 0; i < n; i++) {
    uint32_t halves[2];
    for (int half = 0; half < 2; half++) {
      state = state * 1664525u + 1013904223u;
      const float x = (float)(state >> 8) * 0x1p-23f - 1.0f;
      memcpy(halves + half, &x, sizeof x);
    }
    const uint32_t pattern = pairs ? halves[0] >> 16 | (halves[1] & 0xffff0000u) : halves[0];
    memcpy(p + i, &pattern, sizeof pattern);
  }
}

int main(int count, char **arguments) {
  if (count != 3) return 64;
  const char *work = arguments[1];
  const ptrdiff_t depth = atoi(arguments[2]);
  if (depth < 16 || depth > DEEPEST || depth % 16) return 64;
  const int rounded = !strncmp(work, "bfloat16-", 9);
  fill(rows, ROWS * DEEPEST, rounded), fill(panels, KEYS * DEEPEST, rounded), fill(values, KEYS * DEEPEST, rounded);
  const annulus_kernels *set = &annulus_kernels_neon;
  const annulus_bfloat16_kernels *narrow = &annulus_bfloat16_kernels_neon;
  if (!strcmp(work, "attention"))
    set->attend_tile(rows, depth, ROWS, panels, depth, values, depth, KEYS, row_max, row_sum, results, depth, scratch, panels);
  else if (!strcmp(work, "bfloat16-attention"))
    narrow->attend_tile(rows, depth / 2, ROWS, panels, depth, values, depth, KEYS, 0.125f, row_max, row_sum, results, depth, scratch);
  else if (!strcmp(work, "dense"))
    set->panel_product(rows, depth, ROWS, panels, depth, 16 * depth, COLUMNS, results, COLUMNS, ANNULUS_ADD);
  else if (!strcmp(work, "bfloat16-dense"))
    narrow->panel_product(rows, depth / 2, ROWS, panels, depth, 8 * depth, COLUMNS, results, COLUMNS, ANNULUS_ADD);
  else
    return 64;
  return 0;
}
