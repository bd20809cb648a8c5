// A digest that is a sum over words, so that whoever reads a part of a tensor adds what that part gives.
//
// Per 32 bytes: two widening multiplications, two additions, and three operations to find infinities and NaNs, so a pass over
// words that are in the cache costs a small part of what copying them there did.
#include "annulus_files.h"

#include <string.h>

enum { block_words = 1024 };

typedef uint64_t wide __attribute__((vector_size(32)));
typedef uint32_t narrow __attribute__((vector_size(32)));

static const uint32_t exponent_bits = 0x7F800000;

// Steele, Lea and Flood's SplitMix64 (2014): what it gives for different numbers has nothing in common.
static inline uint64_t mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// Odd, so that no difference of one word is lost.
static inline uint64_t multiplier(uint64_t block) { return mix(~block) | 1; }

static uint32_t keys[block_words] __attribute__((aligned(32)));

__attribute__((constructor)) static void make_keys(void) {
  for (int i = 0; i < block_words; i++) keys[i] = (uint32_t)mix((uint64_t)i) | 1;
}

static inline __attribute__((always_inline)) annulus_digest digest(const unsigned char *words, size_t count, uint64_t first) {
  const wide low = {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF};
  narrow special = {0};
  uint64_t sum = 0;
  size_t done = 0;
  uint32_t is_special = 0;
  while (done < count) {
    const uint64_t place = first + done;
    if (place % block_words == 0 && count - done >= block_words) {
      wide even = {0}, odd = {0};
      for (int i = 0; i < block_words; i += 8) {
        wide x, key;
        memcpy(&x, words + 4 * (done + i), sizeof x);
        memcpy(&key, keys + i, sizeof key);
        even += (x & low) * (key & low);
        odd += (x >> 32) * (key >> 32);
        special |= (narrow)(((narrow)x & exponent_bits) == exponent_bits);
      }
      const wide both = even + odd;
      sum += (both[0] + both[1] + both[2] + both[3]) * multiplier(place / block_words);
      done += block_words;
    } else {
      uint32_t word;
      memcpy(&word, words + 4 * done, sizeof word);
      sum += (uint64_t)word * keys[place % block_words] * multiplier(place / block_words);
      is_special |= (word & exponent_bits) == exponent_bits;
      done++;
    }
  }
  for (int i = 0; i < 8; i++) is_special |= special[i];
  return (annulus_digest){sum, is_special != 0};
}

static inline __attribute__((always_inline)) int any_special(const float *values, size_t count) {
  narrow special = {0};
  size_t done = 0;
  for (; done + 8 <= count; done += 8) {
    narrow x;
    memcpy(&x, values + done, sizeof x);
    special |= (narrow)((x & exponent_bits) == exponent_bits);
  }
  uint32_t found = 0;
  for (; done < count; done++) {
    uint32_t word;
    memcpy(&word, values + done, sizeof word);
    found |= (word & exponent_bits) == exponent_bits;
  }
  for (int i = 0; i < 8; i++) found |= special[i];
  return found != 0;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static annulus_digest digest_avx2(const unsigned char *words, size_t count, uint64_t first) {
  return digest(words, count, first);
}
__attribute__((target("avx2"))) static int any_special_avx2(const float *values, size_t count) { return any_special(values, count); }
#endif

annulus_digest annulus_digest_words(const void *words, size_t count, uint64_t first) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return digest_avx2(words, count, first);
#endif
  return digest(words, count, first);
}

int annulus_any_special(const float *values, size_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return any_special_avx2(values, count);
#endif
  return any_special(values, count);
}
