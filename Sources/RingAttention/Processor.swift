// Sharing the processor with other threads and processes.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Lets another thread or process have the core, for loops that wait for one of them.
func yieldProcessor() { _ = sched_yield() }
