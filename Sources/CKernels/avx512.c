// The AVX-512 float32 kernels.
#include "kernel_sets.h"
#if defined(__x86_64__)
#include "avx512_blocks.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)

#define ANNULUS_SET avx512
#include "kernels_generic.h"

#include "gradients_generic.h"

#pragma clang attribute pop
#endif
