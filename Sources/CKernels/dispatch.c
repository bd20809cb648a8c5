// Which kernel sets this machine can run.
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

const annulus_kernels *annulus_kernels_reference_of(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
#if defined(__x86_64__)
  if (set == &annulus_kernels_avx512) return &annulus_kernels_reference_tabled;
#endif
  return set ? &annulus_kernels_reference : NULL;
}

const annulus_gradient_kernels *annulus_gradient_kernels_available(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
  if (!set) return NULL;
#if defined(__x86_64__)
  if (set == &annulus_kernels_avx2) return &annulus_gradient_kernels_avx2;
  if (set == &annulus_kernels_avx512) return &annulus_gradient_kernels_avx512;
#elif defined(__aarch64__)
  if (set == &annulus_kernels_neon) return &annulus_gradient_kernels_neon;
#endif
  return &annulus_gradient_kernels_reference;
}

const annulus_gradient_kernels *annulus_gradient_kernels_reference_of(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
#if defined(__x86_64__)
  if (set == &annulus_kernels_avx512) return &annulus_gradient_kernels_reference_tabled;
#endif
  return set ? &annulus_gradient_kernels_reference : NULL;
}

const annulus_bfloat16_kernels *annulus_bfloat16_kernels_reference_of(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
#if defined(__x86_64__)
  if (set == &annulus_kernels_avx512) return &annulus_bfloat16_kernels_reference_tabled;
#endif
  return set ? &annulus_bfloat16_kernels_reference : NULL;
}

const annulus_bfloat16_kernels *annulus_bfloat16_kernels_widened(int index) {
#if defined(__x86_64__)
  const annulus_kernels *set = annulus_kernels_available(index);
  if (set == &annulus_kernels_avx512) return &annulus_bfloat16_kernels_avx512_widened;
  if (set == &annulus_kernels_avx2) return &annulus_bfloat16_kernels_avx2;
#elif defined(__aarch64__)
  if (annulus_kernels_available(index) == &annulus_kernels_neon) return &annulus_bfloat16_kernels_neon;
#else
  (void)index;
#endif
  return NULL;
}

const annulus_bfloat16_kernels *annulus_bfloat16_kernels_available(int index) {
  const annulus_kernels *set = annulus_kernels_available(index);
  if (!set) return NULL;
#if defined(__x86_64__)
  // Intel's cores do half as many products with the instruction as on widened operands (docs/ladder.md), which give its bits.
  if (set == &annulus_kernels_avx512 && __builtin_cpu_supports("avx512bf16") && !__builtin_cpu_is("intel"))
    return &annulus_bfloat16_kernels_avx512;
#endif
  const annulus_bfloat16_kernels *widened = annulus_bfloat16_kernels_widened(index);
  if (widened) return widened;
  return &annulus_bfloat16_kernels_reference;
}
