// Sharing the processor with other threads and processes.

import CLibrary

/// Lets another thread or process have the core, for loops that wait for one of them.
func yieldProcessor() { _ = sched_yield() }
