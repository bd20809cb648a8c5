// The C microkernels: plain pointers, one job each, no decisions. Every function of a kernel set is
// row-independent: the bits of row r of a result depend on row r of the operands (and on the
// shared panel) only, never on how many rows travel in one call.
//
// Panels. A matrix B of depth × n columns is stored as panels of 16 columns; panel p is a dense
// row-major block [depth][16], the last one's padding columns are zero. `stride` floats lie between the starts
// of two panels: 16·depth, or more where only some terms of all are meant. Sixteen columns of a product's terms
// are one piece of memory, of which the first-level cache loses nothing. K tiles are packed transposed (columns are keys,
// depth is the head dimension), V tiles as they are (columns are value channels, depth is keys), and weights [out][in] of a
// dense layer transposed (columns are output features, depth is input features).
//
// Steps. Scores that become weights count steps of ln2/32, in which 32 steps double a weight: the exponential then needs no
// multiplication to find its powers of two. Whoever makes the scores multiplies them by ANNULUS_STEPS, best together with the scale
// that they need anyway. A row's maximum stays in steps until normalize_rows gives the log-sum-exp in natural units.
//
// Bits. Every set gives the same, but for the weights of the softmax, of which there are two kinds: those of AVX-512 come out of a
// table, which costs it one instruction, those of all others out of a polynomial. They differ by 3·10⁻⁷ of themselves at most.
//
// Masks. Bit c of word p of a row's mask says that column 64·p + c is visible. A masked column is
// never multiplied into a result, not even by zero.
#ifndef ANNULUS_KERNELS_H
#define ANNULUS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "annulus_machine.h"

#ifdef __cplusplus
extern "C" {
#endif

// The columns of a panel, and of those that one product takes at most.
enum { ANNULUS_PANEL_WIDTH = 16, ANNULUS_PRODUCT_COLUMNS = 64 };

// The rows of scores that the scratch of attend_tile holds, each of the keys rounded up to 16: no kernel set takes more at a time.
enum { ANNULUS_SCRATCH_ROWS = 24 };

// What a product does with what C holds: it starts anew; it goes on with C's chains as if they had not been interrupted;
// or it adds its own chains, each rounded once more, which keeps chains short.
enum { ANNULUS_START = 0, ANNULUS_CONTINUE = 1, ANNULUS_ADD = 2 };

// Steps in a natural unit of a score: 32/ln 2.
static const double ANNULUS_STEPS = 46.166241308446828;

// What the statistics of some rows against a tile of keys read and write; see observe_rows.
typedef struct annulus_statistics {
  float *weighted;     // [rows]: Σ weight·(score − row_max), in steps; a score of −∞ adds nothing
  float *distances;    // [rows]: Σ weight·|δ|, δ = distance + j − r for row r and key j
  ptrdiff_t distance;  // of the first key from the first row
  ptrdiff_t count;     // how many keys of largest score are kept of a row; at least 1
  float *best;         // [rows][count], in and out: the largest scores of the row so far, descending, −∞ where there are none
  int32_t *best_keys;  // [rows][count], in and out: their keys, all below first_key at first
  float *scores;       // [rows][count]: those of this tile's scores that belong to them, in steps, descending; −∞ where none
  int32_t *keys;       // [rows][count]: their keys, counted from first_key, ascending where scores are equal; −1 where none
  int32_t first_key;
} annulus_statistics;

typedef struct annulus_kernels {
  const char *name;    // "reference", "avx2", "avx512", "neon"
  int tabled_weights;  // whether softmax weights come out of a table

  // C[rows][columns] = (accumulate ? C : 0) + A[rows][depth] · so many columns of panels, which are one, two, three or four.
  // One fused multiply-add chain per element, depth ascending; `accumulate` is one of the three above.
  void (*panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                        const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                        float *c, ptrdiff_t c_stride, int accumulate);

  // The same, but term k of row r is left out (not multiplied by zero) where bit k of
  // mask[r · mask_stride + k / 64] is clear. It cannot add.
  void (*masked_panel_product)(const float *a, ptrdiff_t a_stride, ptrdiff_t rows,
                               const float *panels, ptrdiff_t depth, ptrdiff_t stride, ptrdiff_t columns,
                               float *c, ptrdiff_t c_stride, int accumulate,
                               const uint64_t *mask, ptrdiff_t mask_stride);

  // In place: S[r][j], in steps, becomes the weight 2^((S[r][j] − row_max[r])/32), but never less than 2⁻¹²⁵, for
  // visible j < keys, and 0 for masked j and for the padding up to keys rounded up to 16. row_max is the
  // largest visible score, in steps, row_sum the sum of the weights (16 lane sums, then a fixed tree). A row
  // with no visible key above −∞: row_max = −∞, row_sum = 0. A visible NaN makes both NaN. mask may be NULL: all visible.
  void (*softmax_rows)(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                       const uint64_t *mask, ptrdiff_t mask_stride,
                       float *row_max, float *row_sum);

  // target[r][0..columns) = source[r][0..columns) · factor.
  void (*scale_rows)(const float *source, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, float factor,
                     float *target, ptrdiff_t target_stride);

  // Merges the partial softmax statistics of the right operand into the left, row by row:
  // m = max(mL, mR), in steps; l = lL·2^((mL−m)/32) + lR·2^((mR−m)/32); O likewise. A side with m = −∞ leaves
  // the other's bits untouched. width is a multiple of 16.
  void (*merge_rows)(ptrdiff_t rows, ptrdiff_t width,
                     float *left_max, float *left_sum, float *left_output, ptrdiff_t left_stride,
                     const float *right_max, const float *right_sum,
                     const float *right_output, ptrdiff_t right_stride);

  // output[r][0..columns) = O[r] / row_sum[r] (zeros where row_max is −∞);
  // log_sum_exp[r] = row_max·ln2/32 + ln(row_sum), −∞ where no key was visible. log_sum_exp may be NULL.
  void (*normalize_rows)(ptrdiff_t rows, ptrdiff_t columns,
                         const float *row_max, const float *row_sum, const float *o, ptrdiff_t o_stride,
                         float *output, ptrdiff_t output_stride, float *log_sum_exp, ptrdiff_t log_sum_exp_stride);

  // Panels of the transpose of source[n][depth]: columns of the packed matrix are the rows of source.
  void (*pack_transposed)(const float *source, ptrdiff_t source_stride, ptrdiff_t n, ptrdiff_t depth, float *panels,
                          ptrdiff_t stride);
  // Panels of source[depth][n] itself.
  void (*pack_columns)(const float *source, ptrdiff_t source_stride, ptrdiff_t depth, ptrdiff_t n, float *panels, ptrdiff_t stride);

  // Element-wise, rows × columns; x and y may be the same buffer. bias may be NULL.
  void (*add_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);
  void (*gelu_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);       // x·Φ(x), through erf
  void (*gelu_tanh_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);  // the tanh form
  void (*silu_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);       // x/(1 + e^(−x))
  void (*relu_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);       // max(x, 0); NaN stays
  void (*tanh_bias)(ptrdiff_t rows, ptrdiff_t columns, float *x, ptrdiff_t stride, const float *bias);
  void (*gate_rows)(ptrdiff_t rows, ptrdiff_t columns, const float *x, const float *gate, ptrdiff_t stride,
                    float *y, ptrdiff_t y_stride);  // y = x·gate
  // y = layer_norm(x + bias + residual)·gamma + beta over each row; bias, residual, beta may be NULL.
  // Mean, then the mean of squared deviations (two passes), lane sums in fixed order.
  void (*layer_norm)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *bias,
                     const float *residual, ptrdiff_t residual_stride,
                     const float *gamma, const float *beta, float epsilon, float *y, ptrdiff_t y_stride);
  // The same without a mean: y = (x + bias + residual)/√(mean square + epsilon)·gamma + beta.
  void (*rms_norm)(ptrdiff_t rows, ptrdiff_t columns, const float *x, ptrdiff_t x_stride, const float *bias,
                   const float *residual, ptrdiff_t residual_stride,
                   const float *gamma, const float *beta, float epsilon, float *y, ptrdiff_t y_stride);

  // Element-wise functions over arrays, our own, the same bits in every kernel set.
  void (*exp)(const float *x, float *y, ptrdiff_t n);
  void (*log)(const float *x, float *y, ptrdiff_t n);
  void (*erf)(const float *x, float *y, ptrdiff_t n);
  void (*tanh)(const float *x, float *y, ptrdiff_t n);

  // Runs `iterations` rounds of independent fused multiply-adds and returns the floating-point
  // operations done: the peak that this set's instructions can reach. *sink keeps the work alive.
  double (*peak)(ptrdiff_t iterations, float *sink);

  // Attention of `rows` queries, which give scores in steps, over one tile of keys that all of them see, unnormalised:
  // the bits of panel_product over the K panels, softmax_rows, and panel_product over the V panels, some rows at a
  // time. o has value_columns rounded up to 16 columns. scratch holds ANNULUS_SCRATCH_ROWS rows of scores, 64-byte aligned
  // for speed. ahead is the tile that comes next, or this one: it may be fetched into the second-level cache meanwhile,
  // and is not read.
  void (*attend_tile)(const float *q, ptrdiff_t q_stride, ptrdiff_t rows,
                      const float *k_panels, ptrdiff_t depth,
                      const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                      float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch, const float *ahead);

  // In place, for visible and masked scores alike: s·scale, then cap·tanh(s/cap) where cap > 0; then, with the
  // distance δ = distance + j − r of row r and key j, s + bias[reach + clamp(δ, −reach, reach)] where bias is
  // not NULL (2·reach + 1 floats), and s − slope·|δ| where slope ≠ 0; and the result, in natural units, times steps.
  void (*modify_scores)(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys, float scale, float cap,
                        const float *bias, ptrdiff_t reach, float slope, ptrdiff_t distance, float steps);

  // mass[j] += Σ over rows, ascending, of 2^((S[r][j]·scale − row_max[r])/32)·factor[r], but never less than 2⁻¹²⁵·factor[r], for
  // visible j < keys: one multiply-add a row. row_max, in steps, and factor are those of the whole row, not of these keys.
  // Scores become steps when they are multiplied by scale. mask may be NULL: all visible. A row whose row_max is −∞ sees nothing.
  void (*receive_rows)(const float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                       const uint64_t *mask, ptrdiff_t mask_stride, float scale,
                       const float *row_max, const float *factor, float *mass);

  // Statistics of attention.

  // softmax_rows, to the bit, and beside it what the same weights make of a row's statistics. Scores that only equal one of
  // `best` do not join them: tiles come in ascending order. A NaN makes weighted and distances NaN.
  void (*observe_rows)(float *s, ptrdiff_t s_stride, ptrdiff_t rows, ptrdiff_t keys,
                       const uint64_t *mask, ptrdiff_t mask_stride, float *row_max, float *row_sum,
                       const annulus_statistics *statistics);
  // attend_tile, to the bit, with the statistics of observe_rows.
  void (*observe_tile)(const float *q, ptrdiff_t q_stride, ptrdiff_t rows,
                       const float *k_panels, ptrdiff_t depth,
                       const float *v_panels, ptrdiff_t value_columns, ptrdiff_t keys,
                       float *row_max, float *row_sum, float *o, ptrdiff_t o_stride, float *scratch, const float *ahead,
                       const annulus_statistics *statistics);
  // Merges Σ weight·(score − row_max) and a sum that is linear in the weights, row by row, before merge_rows has changed
  // the maxima and sums: each side is shifted to the common maximum. A side with m = −∞ leaves the other's bits untouched.
  void (*merge_statistics)(ptrdiff_t rows, const float *left_max, const float *left_sum,
                           const float *right_max, const float *right_sum,
                           float *left_weighted, float *left_linear,
                           const float *right_weighted, const float *right_linear);
  // Makes the left lists, [rows][count], the largest scores of both, with their keys; of equals the left ones come first.
  void (*merge_best)(ptrdiff_t rows, ptrdiff_t count, float *left_scores, int32_t *left_keys,
                     const float *right_scores, const int32_t *right_keys);
  // Of whole rows, key_sum being the part of row_sum that keys have (not a sink): −Σ p·ln p over keys, p = weight/row_sum, and
  // distances/key_sum. Zeros for a row that sees no key; NaN for one that has one.
  void (*finish_statistics)(ptrdiff_t rows, const float *row_sum, const float *key_sum, const float *weighted,
                            const float *distances, float *entropy, float *mean_distance);
  // sums[(first + j) / size] += x[j] for j < n, each block of x summed first.
  void (*add_block_sums)(const float *x, ptrdiff_t n, ptrdiff_t first, ptrdiff_t size, float *sums);
} annulus_kernels;

// Kernel sets this machine can run, best last; index 0 is always the reference. NULL past the end.
const annulus_kernels *annulus_kernels_available(int index);
// Kernels without any instruction set that give the bits of that one: the reference, or, where softmax weights come out of a table,
// one that takes them from it too. For tests.
const annulus_kernels *annulus_kernels_reference_of(int index);

#ifdef __cplusplus
}
#endif

#endif
