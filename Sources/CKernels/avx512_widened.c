// The bfloat16 kernels of processors that have AVX-512 without its bfloat16 instructions.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include "avx512_blocks.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)

#include "flushing.h"

#define ANNULUS_SET avx512_widened
#include "bfloat16_generic.h"

#pragma clang attribute pop
#endif
