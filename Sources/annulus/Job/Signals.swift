// What the process does when it is told to end.

import CMPI
import Foundation
import Pipelines

/// The signals by which a launcher, a batch system or a user asks a job to end.
enum Signals {
    /// Answers these signals by plain code on a thread of its own. Call before the work begins.
    ///
    /// A handler writes what has come into a pipe, from which that thread reads; so it does not matter which thread a
    /// signal meets, nor whether one was started before this call, by a library.
    /// SIGTERM and SIGUSR1 (Slurm's warning) remove unfinished outputs and end the process with status `interrupted`, or,
    /// where the work can be continued, SIGUSR1 has it save what is done and end by itself;
    /// SIGINT and SIGHUP remove them and end the process as they would without this, unless the process was started to
    /// ignore them. One line says so for the whole job, or which rank of this host was killed, where that is why the
    /// launcher ends it.
    /// - Parameters:
    ///   - watchdog: knows which rank this is and what it is busy with.
    ///   - ending: how the job ends.
    static func handle(_ watchdog: Watchdog, _ ending: Ending) {
        guard let pipe = SignalPipe.open() else { return }
        let signals = [SIGTERM, SIGUSR1] + [SIGINT, SIGHUP].filter { !isIgnored($0) }
        for number in signals {
            var action = sigaction()
            action.setHandler { number, info, _ in
                SignalPipe.write(number, sender: info.map { cmpi_signal_sender($0) } ?? 0)
            }
            action.sa_flags = SA_SIGINFO | SA_RESTART
            sigaction(number, &action, nil)
        }
        // Whoever started this process may have blocked them, as threads of a dispatch queue do.
        var set = sigset_t()
        sigemptyset(&set)
        for number in signals { sigaddset(&set, number) }
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
        let thread = Thread {
            Thread.current.name = "signals"
            while let received = SignalPipe.next(from: pipe) {
                // The runtime's report of a crash stops this process's own threads with a signal: that is no warning.
                if received.sender == getpid() { continue }
                // Work that can be continued is left to save what it has done.
                if received.number == SIGUSR1 && Interruption.ask() { continue }
                end(received, watchdog, ending)
            }
        }
        thread.stackSize = 512 << 10
        thread.start()
    }

    private static func end(_ received: SignalPipe.Received, _ watchdog: Watchdog, _ ending: Ending) {
        // Where all is done the process is about to end by itself.
        guard ending.decide() else { return }
        // A rank that was killed is why a launcher ends the others: asked before anything else, while all of them still
        // are.
        let lost = ending.roster?.lost.first
        ending.abandon()
        if let lost {
            ending.tell(watchdog.failure(lost), within: Ending.lastAnswerLimit)
        } else if !watchdog.wasStopped {
            ending.tellOfSignal(
                JobError(.interrupted, "\(words(received, watchdog, ending)); \(Interruption.keptWords)"))
        }
        ending.awaitOthers(alsoAtWork: true)
        if received.number == SIGINT || received.number == SIGHUP {
            signal(received.number, SIG_DFL)
            raise(received.number)
        }
        _exit(ExitStatus.interrupted.rawValue)
    }

    private static func words(_ received: SignalPipe.Received, _ watchdog: Watchdog, _ ending: Ending) -> String {
        let words = "\(watchdog.place) was interrupted by \(name(received.number)) at \(watchdog.position)"
        guard received.number == SIGTERM, received.sender == getppid(), ending.spansHosts else { return words }
        return words + ", as the launcher does where it is told to end, and where it has lost a rank or a host"
    }

    /// A signal's name, as shells and manuals have it.
    static func name(_ number: Int32) -> StaticString {
        switch number {
        case SIGTERM: "SIGTERM"
        case SIGUSR1: "SIGUSR1"
        case SIGINT: "SIGINT"
        case SIGHUP: "SIGHUP"
        case SIGSEGV: "SIGSEGV"
        case SIGBUS: "SIGBUS"
        case SIGILL: "SIGILL"
        case SIGTRAP: "SIGTRAP"
        case SIGFPE: "SIGFPE"
        case SIGABRT: "SIGABRT"
        default: "a signal"
        }
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

extension sigaction {
    /// Sets the function that is called, which may do what a handler may (signal-safety(7)) and nothing else.
    mutating func setHandler(
        _ handler: @escaping @convention(c) (Int32, UnsafeMutablePointer<siginfo_t>?, UnsafeMutableRawPointer?) -> Void
    ) {
        #if canImport(Darwin)
        __sigaction_u.__sa_sigaction = handler
        #else
        __sigaction_handler.sa_sigaction = handler
        #endif
    }
}
