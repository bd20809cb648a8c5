#include "annulus_kernels.h"
const annulus_kernels *annulus_kernels_available(int index) { (void)index; return NULL; }
