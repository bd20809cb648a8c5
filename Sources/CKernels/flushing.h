// How bfloat16_generic.h makes a processor flush denormal numbers: by bits of its control register, which is each thread's own and is
// put back. The compiler may move arithmetic past these functions, but not a call.
#ifndef ANNULUS_FLUSHING_H
#define ANNULUS_FLUSHING_H

#if defined(__x86_64__)

// DAZ and FTZ of the MXCSR.
static inline __attribute__((always_inline)) void not_flushing(uint32_t mxcsr) {
  __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}
static inline __attribute__((always_inline)) uint32_t flushing(void) {
  uint32_t before;
  __asm__ volatile("stmxcsr %0" : "=m"(before) : : "memory");
  not_flushing(before | 0x8040);
  return before;
}

#elif defined(__aarch64__)

// FZ of the FPCR (Arm Architecture Reference Manual for A-profile, FPCR, FPSR, FPUnpack and FPRound). While it is set, denormal
// operands are zeros, as they are to be, and results that are tiny before rounding become zeros and set UFC of the FPSR, which
// stays set until it is cleared.
enum { FPCR_FZ = 1 << 24, FPSR_UFC = 1 << 3 };

static inline __attribute__((always_inline)) void not_flushing(uint32_t fpcr) {
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)fpcr) : "memory");
}
static inline __attribute__((always_inline)) uint32_t status_bits(void) {
  uint64_t fpsr;
  __asm__ volatile("mrs %0, fpsr" : "=r"(fpsr) : : "memory");
  return (uint32_t)fpsr;
}
static inline __attribute__((always_inline)) uint32_t flushing(void) {
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr" : "=r"(before) : : "memory");
  __asm__ volatile("msr fpsr, %0" : : "r"((uint64_t)(status_bits() & ~(uint32_t)FPSR_UFC)) : "memory");
  not_flushing((uint32_t)before | FPCR_FZ);
  return (uint32_t)before;
}

#define FLUSHED ((status_bits() & FPSR_UFC) != 0)

#endif

#define FLUSHING flushing()
#define NOT_FLUSHING(before) not_flushing(before)

#endif
