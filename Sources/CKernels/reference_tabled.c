// The reference of the sets whose softmax weights come out of a table, for tests alone.
#include "kernel_sets.h"
#if defined(__x86_64__)

#define TABLED_WEIGHTS
#define ANNULUS_SET reference_tabled
#define PANEL_VECTORS 1
#define ROWS_1 4
#define ACCUMULATORS 4
#include "kernels_generic.h"

#include "gradients_generic.h"

#include "bfloat16_generic.h"

#endif
