// Tells ThreadSanitizer of Swift's Mutex. Its quick way is compiled into our code and seen; the way by the kernel, where a lock is
// contended, is in the runtime's library, which is not compiled with the sanitizer. Preloaded by Tests/Sanitizers/run.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

extern void __tsan_acquire(void *) __attribute__((weak));
extern void __tsan_release(void *) __attribute__((weak));

#define SWIFT __attribute__((swiftcall))
typedef SWIFT void (*lock_slow)(uint32_t, __attribute__((swift_context)) void *);
typedef SWIFT void (*unlock_slow)(__attribute__((swift_context)) void *);

// Synchronization._MutexHandle._lockSlow(Swift.UInt32) -> ()
SWIFT void locked(uint32_t thread, __attribute__((swift_context)) void *mutex)
    __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
SWIFT void locked(uint32_t thread, __attribute__((swift_context)) void *mutex) {
  lock_slow next = (lock_slow)dlsym(RTLD_NEXT, "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
  next(thread, mutex);
  if (__tsan_acquire) __tsan_acquire(mutex);
}

// Synchronization._MutexHandle._unlockSlow() -> ()
SWIFT void unlocked(__attribute__((swift_context)) void *mutex)
    __asm__("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
SWIFT void unlocked(__attribute__((swift_context)) void *mutex) {
  unlock_slow next = (unlock_slow)dlsym(RTLD_NEXT, "$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
  if (__tsan_release) __tsan_release(mutex);
  next(mutex);
}
