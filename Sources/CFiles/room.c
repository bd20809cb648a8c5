// Room for a file before it is written: fallocate(2), never its emulation by zeros, which posix_fallocate falls back to.
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "annulus_files.h"

static int64_t size_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > INT64_MAX) return INT64_MAX;
  return (int64_t)limit.rlim_cur;
}

static int64_t free_bytes(int descriptor) {
  struct statvfs status;
  if (fstatvfs(descriptor, &status) != 0) return INT64_MAX;
  const unsigned __int128 bytes = (unsigned __int128)status.f_bavail * status.f_frsize;
  return bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes;
}

int64_t annulus_room(int descriptor) {
  const int64_t limit = size_limit(), free = free_bytes(descriptor);
  return limit < free ? limit : free;
}

int annulus_reserve(int descriptor, int64_t bytes) {
  if (bytes <= 0) return 0;
  if (bytes > size_limit()) return EFBIG;
  int failure;
#if defined(__linux__)
  do failure = fallocate(descriptor, 0, 0, bytes) == 0 ? 0 : errno;
  while (failure == EINTR);
#elif defined(__APPLE__)
  fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, bytes, 0};
  failure = fcntl(descriptor, F_PREALLOCATE, &store) == 0 ? 0 : errno;
#else
  failure = EOPNOTSUPP;
#endif
  if (failure == 0 || failure == ENOSPC || failure == EDQUOT || failure == EFBIG) return failure;
  // It cannot reserve: what is free now is all that can be known.
  return free_bytes(descriptor) < bytes ? ENOSPC : 0;
}
