// The reference kernels: the generic source with no instruction set assumed. Slow where the
// compiler's baseline lacks fused multiply-adds (each becomes a call of fmaf), right everywhere.
#include "kernel_sets.h"

#define ANNULUS_SET reference
#define PANEL_VECTORS 1
#define ROWS_1 4
#define ACCUMULATORS 4
#include "kernels_generic.h"

#include "gradients_generic.h"

#include "bfloat16_generic.h"
