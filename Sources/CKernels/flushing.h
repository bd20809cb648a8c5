// How bfloat16_generic.h makes an x86 processor flush denormal numbers: DAZ and FTZ of the control register MXCSR, which is each
// thread's own and is put back.
#ifndef ANNULUS_FLUSHING_H
#define ANNULUS_FLUSHING_H

// The compiler may move arithmetic past these, but not a call.
static inline __attribute__((always_inline)) void not_flushing(uint32_t mxcsr) {
  __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}
static inline __attribute__((always_inline)) uint32_t flushing(void) {
  uint32_t before;
  __asm__ volatile("stmxcsr %0" : "=m"(before) : : "memory");
  not_flushing(before | 0x8040);
  return before;
}

#define FLUSHING flushing()
#define NOT_FLUSHING(before) not_flushing(before)

#endif
