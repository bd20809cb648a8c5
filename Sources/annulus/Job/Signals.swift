// What the process does when it is told to end.

import Foundation

/// The signals by which a launcher or a batch system asks a job to end.
enum Signals {
    /// Waits for SIGTERM and SIGUSR1 (Slurm's warning) on a thread of its own, so that plain code may answer them:
    /// unfinished outputs are removed and the process ends with status `interrupted`. Call before any other thread
    /// is made, since threads inherit what is blocked here.
    static func handle() {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGTERM)
        sigaddset(&signals, SIGUSR1)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        let thread = Thread {
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGTERM)
            sigaddset(&signals, SIGUSR1)
            var received: Int32 = 0
            while sigwait(&signals, &received) != 0 {}
            TemporaryFiles.removeAll()
            _exit(ExitStatus.interrupted.rawValue)
        }
        thread.name = "signals"
        thread.stackSize = 512 << 10
        thread.start()
    }
}
