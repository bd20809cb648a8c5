// What the process does when it is told to end.

import Foundation

/// The signals by which a launcher, a batch system or a user asks a job to end.
enum Signals {
    /// Waits for signals on a thread of its own, so that plain code may answer them. Call before any other thread is
    /// made, since threads inherit what is blocked here.
    ///
    /// SIGTERM and SIGUSR1 (Slurm's warning) remove unfinished outputs and end the process with status
    /// `interrupted`; SIGINT and SIGHUP remove them and end the process as they would without this, unless the process
    /// was started to ignore them.
    /// - Parameters:
    ///   - isFirst: whether this process speaks for the job.
    ///   - isAlone: whether it is the only one. A launcher sends SIGTERM also after a rank has ended the job and said
    ///     so; only alone it is news.
    static func handle(isFirst: Bool, isAlone: Bool) {
        let signals = [SIGTERM, SIGUSR1] + [SIGINT, SIGHUP].filter { !isIgnored($0) }
        var set = set(of: signals)
        pthread_sigmask(SIG_BLOCK, &set, nil)
        let thread = Thread {
            var set = self.set(of: signals)
            let received = wait(for: &set)
            TemporaryFiles.removeAll()
            if received == SIGINT || received == SIGHUP {
                signal(received, SIG_DFL)
                pthread_sigmask(SIG_UNBLOCK, &set, nil)
                kill(getpid(), received)
            }
            if isFirst && (isAlone || received == SIGUSR1) {
                StandardError.writeFailure(
                    "interrupted by \(received == SIGUSR1 ? "SIGUSR1" : "SIGTERM"); nothing unfinished was kept")
            }
            _exit(ExitStatus.interrupted.rawValue)
        }
        thread.name = "signals"
        thread.stackSize = 512 << 10
        thread.start()
    }

    /// The next signal that somebody else sent. A crash report of the Swift runtime stops this process's own threads
    /// with SIGUSR1, one by one: that is no warning, and the crash must not be hidden behind it.
    private static func wait(for set: inout sigset_t) -> Int32 {
        while true {
            #if os(Linux)
            var info = siginfo_t()
            let received = sigwaitinfo(&set, &info)
            let sentToThread: Int32 = -6  // SI_TKILL
            if received > 0 && info.si_code != sentToThread { return received }
            #else
            var received: Int32 = 0
            if sigwait(&set, &received) == 0 { return received }
            #endif
        }
    }

    private static func set(of signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        return set
    }

    private static func isIgnored(_ signal: Int32) -> Bool {
        var action = sigaction()
        guard sigaction(signal, nil, &action) == 0 else { return false }
        #if canImport(Darwin)
        let handler = action.__sigaction_u.__sa_handler
        #else
        let handler = action.__sigaction_handler.sa_handler
        #endif
        return unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
