// Which kernel sets this machine can run, and the ladder of what was tried in them.
//
// The ladder. Figures are fractions of the fused multiply-add peak measured just before and after, one
// thread, Zen 5 with AVX-512 float32, the best tenth of the runs in quiet moments of a shared machine
// (with neighbours at work the tiles lose up to .04, for their panels live in the second-level cache).
// The lines were measured by the loops of the benchmark, which prints the present state:
//   ANNULUS_KERNEL_BENCHMARK=1 swift test -c release --filter KernelBenchmark
//
//   attention tile, 256 keys, d =                                   32    64    128
//   1 strips of 6 rows; polynomial of degree 5; row after row      .68   .86   .89
//   2 strips of 12: fewer half-filled blocks at d = 32             .75   .86   .89
//   3 a table of 32 powers of two (vpermi2d) and degree 2: five
//     multiply-add slots an exponential, not eight                 .82   .89   .90
//   4 all maxima, then all weights, then all sums: the shuffles
//     that end a row overlap with the next row                     .83   .90   .92
//   5 exponentials of one strip woven into the scores of the next  .86   .92   .93
//     (three at a time .86 .91 .93; six at a time .83 .89 .92: too much waits in the schedulers)
//   Taken apart, the panel products alone reach .97 to .99 and the softmax of line 4 costs 5.0 cycles for
//   16 keys of a row: 3.4 for the exponentials, whose 11 vector operations share four pipes, 0.9 for the
//   maxima, the rest for the ends of rows. Woven, its five multiply-adds remain: 2.5 cycles, a limit
//   of .93, .96, .98 for d = 32, 64, 128.
//   No gain: prefetching the panel 1 to 4 KiB ahead (.90 → .90: the hardware does it), padding the rows
//   of scores against cache-set conflicts, splitting V panels so that half of one stays in the first-level
//   cache (−.01 to −.09 from the extra passes over the output), dropping the underflow comparison,
//   moving a product and the comparison of the exponential to the adders and the integer units, which
//   beside 24 multiply-adds run for nothing (the same when woven, slower alone: 3.9 to 5.9 cycles).
//
//   The same on Zen 4, whose peak is half (a 512-bit multiply-add a cycle):
//   5 as above                                                     .84   .91   .94
//   6 scores in steps of ln2/32, the queries multiplied by them:
//     three multiply-adds an exponential, not five; a maximum
//     instead of the comparison                                    .88   .93   .95
//   (line 5, the operations and what was of no gain by a scratch program of the same loops, which is not kept)
//   What an operation costs there beside 24 multiply-adds, in their slots: a comparison 1, a product 1, vpermi2d
//     1.5, an addition, integer operation, maximum, shift, vpermd or vscalefps nothing. Without any exponential line 6
//     would be at .94, .96, .97; without the shuffles that end a row it stays.
//   No gain: 16 powers of two (vpermd) and degree 3 (.87 .93 .95); 12, 8 or 4 places for exponentials instead of 24
//     (.88 .92 .94, .87 .92 .94, .83 .90 .93); the loops unrolled for d = 32 and 64 (.86 .91); 2 MiB pages for K and V.
//   Of a whole attention (`annulus bench attention`) the merges of the tree and the partials that wait in the second-level
//   cache take .01 more.
//   7 the value product's prefetches aimed at the next tile, which comes from the third-level cache: of a whole attention, d = 64,
//     .88 → .90 (medians of four runs in turn); of a tile alone nothing.
//   8 the same for values narrower than 64: of a whole attention, d = 32, .83 → .85 (the best of twelve runs in turn).
//   9 large pages for buffers of 4 MiB and more, for a query tile's rows lie 3 KiB apart: of a whole attention, d = 64,
//     .894 → .906 (medians of fourteen runs in turn).
//  10 tiles whose keys are no multiple of 64 woven up to their last panel: a tile of 217 keys, d = 32, .80 → .84, d = 64
//     .88 → .90 (medians of three runs in turn, by a scratch program, which is not kept).
//   No gain: merging a tile's rows into the waiting partials twelve at a time, while they are in the first-level cache
//     (`annulus bench merge`: the merges then take .026 instead of .010 to .021, for the rows' statistics come in sixteens).
//   What is left, d = 64: the product with K reaches .958 (.969 of a panel that stays in the first-level cache), that with V
//     .987, both together .972; the exponentials, of 4.5 slots each where 16 keys of a row have 128, leave .939 of it.
//     A tile reaches .93, and the merges and what comes from outside the second-level cache take the rest. (The products apart
//     by a scratch program, which is not kept; lines 8 and 9 by `annulus bench attention` of the builds before and after.)
//   An encoder of heads of 32 (6 × 384, 8,192 tokens: 78 % of its work is attention) is limited by .88 for a tile and .95 for a
//     dense layer to .89 of the peak; `scripts/peers/bench-kernels --only onnx-encoder --statistic fastest` reaches .85 of it.
//
//   Masked tiles, causal and window(512,512) at d = 64, whole attention on Zen 4:    causal   window
//   1 strips of 6 rows, panels of 64 keys, each row its own runs at the edge           .85      .77
//   2 line 6                                                                           .89      .79
//   3 scores in granules of 16 keys, edges of a few keys by all rows together with
//     what a row does not see selected away, panels that all see in one product        .89      .84
//
//   dense layer, 4096 rows                                 768→3072  3072→768  384→1536
//   1 blocks of 192 rows × 384 terms, panels innermost       .87       .92       .98
//   2 the terms innermost, so that a block of the result is
//     finished while it is in the cache                      .93       .92       .98
//   3 the next block of weights prefetched, a line a term    .95       .93       .98
//   4 blocks of 96 rows                                      .97       .96       .98
//   5 chains of 384 terms, added to the sum (line 4 in the
//     same minutes, which were noisy: .93, .93)              .92       .92
//   Line 5 is for exactness: with chains as long as a row the states of ModernBERT-base's shape were 1.8 times as far from
//   float64 as those of transformers in float32, and are 1.29 times as far now; with chains of 192, 1.04 times, and .91, .91.
//   (Medians of eight runs in turn; `annulus bench gemm` of the three builds. The errors by a scratch program, which is not
//   kept: the root mean square over the states of 777 tokens, random weights.)
//   No gain: large pages (±.01), blocks of 256, 512 or 768 terms, copying the rows of x together
//   first (.86 and .88: the copy costs more than it saves), prefetching into the first level, or the next block's rows of x.
//   What is left: blocks of 6 × 64 alone, one after the other in a small matrix, reach .985 over 192 terms, and .99 without
//   their loads. Blocks of 8 × 48, 9 × 48, 13 × 32 and 14 × 32 reach no more, though 32 columns fit the first-level cache.
//
//   The rest of an encoder on Zen 4, in cycles for 16 numbers, copying of 4 included: GELU 41 → 33 with the softmax's table for
//   its exponential (a division less would save 4); a norm of 384 with bias and residual 740 → 450 a row in the cache, 960 → 680
//   from memory, without branches in its loops and the residual fetched two rows ahead (by scratch programs, not kept).
//
//   AVX2: the product of a 6 × 16 block alone reaches .99; tiles .78 .87 .87 (16 registers leave no room
//   to weave, and a table look-up is nine instructions), dense layers .94 .94 .97.
#include "kernel_sets.h"

const annulus_kernels *annulus_kernels_available(int index) {
  const annulus_kernels *sets[4] = {&annulus_kernels_reference};
  int count = 1;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets[count++] = &annulus_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
      sets[count++] = &annulus_kernels_avx512;
  }
#elif defined(__aarch64__)
  sets[count++] = &annulus_kernels_neon;
#endif
  return index >= 0 && index < count ? sets[index] : NULL;
}

const annulus_bfloat16_kernels *annulus_bfloat16_kernels_available(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
  if (!set) return NULL;
#if defined(__x86_64__)
  if (set == &annulus_kernels_avx512 && __builtin_cpu_supports("avx512bf16")) return &annulus_bfloat16_kernels_avx512;
  if (set != &annulus_kernels_reference) return &annulus_bfloat16_kernels_avx2;
#elif defined(__aarch64__)
  if (set == &annulus_kernels_neon) return &annulus_bfloat16_kernels_neon;
#endif
  return &annulus_bfloat16_kernels_reference;
}
