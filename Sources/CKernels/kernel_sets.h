// The tables that the kernel files define, for dispatch.c alone.
#ifndef ANNULUS_KERNEL_SETS_H
#define ANNULUS_KERNEL_SETS_H

#include <stdint.h>
#include <string.h>

#include "annulus_bfloat16_kernels.h"
#include "annulus_gradient_kernels.h"
#include "annulus_kernels.h"

extern const annulus_kernels annulus_kernels_reference;
extern const annulus_gradient_kernels annulus_gradient_kernels_reference;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_reference;
#if defined(__x86_64__)
extern const annulus_kernels annulus_kernels_reference_tabled;
extern const annulus_gradient_kernels annulus_gradient_kernels_reference_tabled;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_reference_tabled;
extern const annulus_kernels annulus_kernels_avx2;
extern const annulus_gradient_kernels annulus_gradient_kernels_avx2;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_avx2;
extern const annulus_kernels annulus_kernels_avx512;
extern const annulus_gradient_kernels annulus_gradient_kernels_avx512;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_avx512;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_avx512_widened;
#elif defined(__aarch64__)
extern const annulus_kernels annulus_kernels_neon;
extern const annulus_gradient_kernels annulus_gradient_kernels_neon;
extern const annulus_bfloat16_kernels annulus_bfloat16_kernels_neon;
#endif

#endif
