// The NEON kernels: 6 rows × 16 columns are 24 of the 32 registers.
#include "kernel_sets.h"
#if defined(__aarch64__)
#include "neon_terms.h"

#define ANNULUS_SET neon
#define PANEL_VECTORS 1
#define ROWS_1 6
#define ACCUMULATORS 6
#include "kernels_generic.h"

#include "gradients_generic.h"

#include "flushing.h"

#include "bfloat16_generic.h"

#endif
