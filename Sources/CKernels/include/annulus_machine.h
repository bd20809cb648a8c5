// What the C library tells about this machine and Swift's overlay of it does not.
#ifndef ANNULUS_MACHINE_H
#define ANNULUS_MACHINE_H

// The cores that the calling process may run on, by its affinity mask; at least 1.
int annulus_cores(void);

#endif
