// The one way in which a job ends before its time: one line for the whole job, nothing unfinished, every rank.

import Foundation
import MPI
import Pipelines
import Synchronization

/// How a process of a job ends early, whoever notices that it must: its work, a timer, the control channel, a signal.
///
/// Several ranks may notice the same failure, and its end is news to the others in turn (a launcher sends SIGTERM to
/// all); still it is told once. On a host the ``Roster`` holds the right to speak. A host that rank 0 is not on has
/// rank 0 speak, through the control channel, and speaks for itself only where rank 0 does not answer.
final class Ending: Sendable {
    /// The ranks of this host; nil for a process that has no others.
    let roster: Roster?
    /// What the roster holds, for a process that has none.
    private let ownSpeech = Atomic<Int>(Roster.Speech.none.rawValue)
    /// Whether it is decided how this process ends.
    private let isDecided = Atomic<Bool>(false)
    private let channel = Mutex<ControlChannel?>(nil)

    /// How long rank 0 may take to speak for another host.
    static let answerLimit = Duration.milliseconds(1500)
    /// How long where a launcher ends the job, which gives its processes a second.
    static let lastAnswerLimit = Duration.milliseconds(600)
    /// How long a rank that is about to be gone waits for those of its host that are about to speak.
    private static let companyLimit = Duration.milliseconds(300)
    /// How long MPI may take to end the job's other processes, after which this one goes alone.
    private static let abortSeconds: UInt32 = 2

    init(roster: Roster?) { self.roster = roster }

    /// The control channel, from where it connects all ranks until it is stopped.
    func connect(_ control: ControlChannel?) { channel.withLock { $0 = control } }

    var isConnected: Bool { channel.withLock { $0 != nil } }

    /// Decides that this process ends, through with its work or told to by a signal: true for the first to ask. Who
    /// comes second leaves it to the first.
    func decide() -> Bool { !isDecided.exchange(true, ordering: .acquiringAndReleasing) }

    /// Does not return where a signal is ending this process: what fails now may fail for that.
    func standAside() { while isDecided.load(ordering: .acquiring) { sleep(1) } }

    /// Whether anybody of this host has said why the job ends, or is about to.
    var isTold: Bool { speech != .none }

    private var speech: Roster.Speech { roster?.speech ?? Roster.Speech(ownSpeech) }

    /// Says why the job ends by what `write` does, unless that is said already.
    func speak(_ write: () -> Void) {
        guard roster?.claimSpeech() ?? Roster.Speech.claim(ownSpeech) else { return }
        write()
        if let roster { roster.finishSpeech() } else { Roster.Speech.finish(ownSpeech) }
    }

    /// Says why the job ends, unless that is said already.
    func speak(_ error: JobError) { speak { StandardError.writeFailure(error.message) } }

    /// Tells that it is said elsewhere why the job ends.
    func noteTold() { speak {} }

    /// Says why the job ends, unless that is said already.
    /// - Parameters:
    ///   - asksRoot: whether rank 0, where it is on another host, is asked to say it.
    ///   - limit: how long it may take.
    func tell(_ error: JobError, asksRoot: Bool = true, within limit: Duration = answerLimit) {
        if asksRoot, let control = remoteChannel {
            control.pass(error)
            wait(limit)
        }
        speak(error)
    }

    /// Has rank 0 say that this rank was told to end, where it is on another host, and says it here otherwise.
    ///
    /// A launcher that ends a job tells all ranks, for whatever reason: where rank 0 does not answer, it has said why,
    /// or there is nobody left who could.
    func tellOfSignal(_ error: JobError) {
        guard let control = remoteChannel else {
            // What other hosts have to say comes first: it may be the reason.
            if let control = channel.withLock({ $0 }), control.spansHosts {
                control.hurry()
                wait(.milliseconds(500))
            }
            speak(error)
            return
        }
        control.pass(error)
        wait(Self.lastAnswerLimit)
    }

    private func wait(_ limit: Duration) {
        let end = ContinuousClock.now + limit
        while !isTold && ContinuousClock.now < end { Thread.sleep(forTimeInterval: 0.01) }
    }

    /// Whether the job's ranks are on several hosts, as far as they know of each other.
    var spansHosts: Bool { channel.withLock { $0?.spansHosts ?? false } }

    /// The channel by which rank 0 is asked to speak; nil where it is this rank or one of this host.
    private var remoteChannel: ControlChannel? {
        channel.withLock { $0.flatMap { $0.isRootElsewhere ? $0 : nil } }
    }

    /// Ends the job for `error`: says so where nobody has, removes what is unfinished, and ends all ranks.
    /// - Parameter asksRoot: see ``tell(_:asksRoot:within:)``.
    func end(_ error: JobError, asksRoot: Bool = true) -> Never {
        tell(error, asksRoot: asksRoot)
        leave(error.status)
    }

    /// Returns once nobody of this host is about to speak.
    /// - Parameter alsoAtWork: whether also once all its ranks have removed what they left unfinished.
    ///
    /// Open MPI gives a job that it ends a second, but only until the first of a host's processes is gone: that wakes
    /// its sleep, and the others are killed at once.
    func awaitOthers(alsoAtWork: Bool) {
        let end = ContinuousClock.now + Self.companyLimit
        while speech == .claimed || (alsoAtWork && roster?.isAnyAtWork ?? false), ContinuousClock.now < end {
            Thread.sleep(forTimeInterval: 0.002)
        }
    }

    /// Ends this process, and with it the job, without a word.
    func leave(_ status: ExitStatus) -> Never {
        abandon()
        awaitOthers(alsoAtWork: false)
        // The library asks the launcher to end the others, who may be gone or not answer.
        LastResort.arm(seconds: Self.abortSeconds, status: status)
        MPIEnvironment.abort(status: status.rawValue)
    }

    /// Removes what this process has left unfinished, and lets the others of the host know that it leaves.
    func abandon() {
        roster?.leave()
        TemporaryFiles.close()
    }
}

/// A timer of the system's that ends this process whatever its threads are doing.
private enum LastResort {
    private static let status = Atomic<Int32>(ExitStatus.internal.rawValue)

    static func arm(seconds: UInt32, status: ExitStatus) {
        self.status.store(status.rawValue, ordering: .relaxed)
        signal(SIGALRM) { _ in _exit(LastResort.status.load(ordering: .relaxed)) }
        alarm(seconds)
    }
}
