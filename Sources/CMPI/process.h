// What a launcher decided about this process, asked of the Linux kernel: calls that the C library hides from Swift
// behind _GNU_SOURCE.
#pragma once
#if defined(__linux__)
#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// Writes the mask of processors this process may run on, least significant processor first; returns the number of
// bytes written, or -1. sched_getaffinity(2).
static inline long cmpi_process_affinity(unsigned char *mask, unsigned long capacity) {
  return syscall(SYS_sched_getaffinity, 0, capacity, mask);
}

// Tries to read a byte of the parent process at an address that is never mapped, and returns the error: EFAULT where
// reading is allowed. process_vm_readv(2).
static inline int cmpi_process_read_error(void) {
  char byte;
  struct iovec local = {&byte, 1}, remote = {(void *)8, 1};
  return syscall(SYS_process_vm_readv, (long)getppid(), &local, 1L, &remote, 1L, 0L) < 0 ? errno : 0;
}
#endif
