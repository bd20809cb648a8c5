// The AVX2 + FMA kernels: 6 rows × 16 columns are 12 of the 16 registers.
#include "kernel_sets.h"
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)

#define ANNULUS_SET avx2
#define PANEL_VECTORS 1
#define ROWS_1 6
#define ACCUMULATORS 6
#include "kernels_generic.h"

#pragma clang attribute pop
#endif
