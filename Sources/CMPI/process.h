// What a launcher decided about this process, asked of the kernel, and its own call stack: calls that the C library hides
// from Swift.
#pragma once
#include <signal.h>

#if defined(__GLIBC__) || defined(__APPLE__)
#include <execinfo.h>

// Writes the call stack of this thread to a descriptor, a line a frame, without taking memory; backtrace(3). The first
// call loads a library and takes memory, so make one (with descriptor -1: nothing is written) before it is needed.
static inline void cmpi_write_backtrace(int descriptor) {
  void *frames[64];
  const int count = backtrace(frames, 64);
  if (descriptor >= 0) backtrace_symbols_fd(frames, count, descriptor);
}
#else
static inline void cmpi_write_backtrace(int descriptor) { (void)descriptor; }
#endif

// The process that sent a signal. sigaction(2).
static inline int cmpi_signal_sender(const siginfo_t *info) { return info->si_pid; }
// The address of a fault. sigaction(2).
static inline unsigned long cmpi_fault_address(const siginfo_t *info) { return (unsigned long)info->si_addr; }

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
