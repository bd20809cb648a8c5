// What the AVX-512 sets share: 6 rows × 64 columns are 24 of the 32 registers.
#include <immintrin.h>

#include "exp_table.h"

#define TABLE_LOOKUP(n)                                                                               \
  (i16)_mm512_permutex2var_epi32(_mm512_load_si512(exp_table), (__m512i)(n), _mm512_load_si512(exp_table + 16))
#define TABLED_WEIGHTS
// What names a sum here must have finished it: of many rows the compiler would fetch all elements first, and spill sums.
#define FINISH(sum) __asm__ volatile("" : "+v"(sum) : : "memory")
#define PANEL_VECTORS 4
#define ROWS_1 14
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#define ACCUMULATORS 24
