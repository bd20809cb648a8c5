// The timer that ends a job which no longer moves, from before MPI starts until the process is gone.

import Dispatch
import Foundation
import Synchronization

/// What a rank is busy with, as the watchdog reports it.
enum Phase: Int, CaseIterable, Sendable {
    case starting, reading, tokenizing, planning, encoding, attention, dense, pooling, writing, finishing

    var description: String { "\(self)" }
}

/// Where a rank is in its work.
struct Position: Equatable, Sendable, CustomStringConvertible {
    var phase: Phase
    /// Negative where there is none.
    var layer: Int
    /// Negative where there is none.
    var tile: Int

    var description: String {
        var text = "phase '\(phase)'"
        if layer >= 0 { text += ", layer \(layer)" }
        if tile >= 0 { text += ", tile \(tile)" }
        return text
    }
}

/// A rank's own timer, and what it knows of the others through the ``ControlChannel``.
///
/// The work calls ``progress(_:layer:tile:)`` at every step, which costs a few stores. A thread looks at the count
/// several times a second: after `limit` without progress, neither here nor, as far as this rank hears, elsewhere, it
/// ends the process by itself with one line and status `internal`. It depends on nothing but this process, so it works
/// before MPI starts, after it has ended, and while it hangs.
/// Time in which the process itself did not run, suspended by its user or its batch system, is not counted.
final class Watchdog: Sendable {
    /// How long a job may stand still; nil: for ever.
    let limit: Duration?

    // The fields of a position are stored one by one: a report that mixes two neighbouring steps is good enough.
    private let counter = Atomic<Int>(0)
    private let phase = Atomic<Int>(Phase.starting.rawValue)
    private let layer = Atomic<Int>(-1)
    private let tile = Atomic<Int>(-1)
    // Counts the signs of life of the rest of the job.
    private let othersCounter = Atomic<Int>(0)
    // Counts the signs of life of rank 0's control thread.
    private let controlCounter = Atomic<Int>(0)
    private let waits = Atomic<Int>(0)
    private let identity = Mutex(Identity())

    private struct Identity {
        var rank = 0
        var size = 1
        var rootHost = ""
    }

    /// How often the timer looks.
    static let tick = Duration.milliseconds(200)
    /// How much longer a rank waits than rank 0 does, which knows better what is wrong.
    private static let grace = Duration.seconds(2)

    init(limit: Duration?) { self.limit = limit }

    /// Starts the timer.
    func start() {
        guard let limit else { return }
        let thread = Thread { self.run(limit) }
        thread.name = "watchdog"
        thread.stackSize = 512 << 10
        thread.start()
    }

    /// Tells that the work has come to a step. Callable from any thread at any time.
    func progress(_ phase: Phase, layer: Int = -1, tile: Int = -1) {
        self.phase.store(phase.rawValue, ordering: .relaxed)
        self.layer.store(layer, ordering: .relaxed)
        self.tile.store(tile, ordering: .relaxed)
        counter.wrappingAdd(1, ordering: .relaxed)
    }

    /// Tells that the work moves, at the step it was at.
    func progress() { counter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells that another rank moves.
    func noteOthersProgress() { othersCounter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells that rank 0 was heard of.
    func noteControl() { controlCounter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells which rank this is, once that is known.
    func identify(rank: Int, size: Int, rootHost: String) {
        identity.withLock { $0 = Identity(rank: rank, size: size, rootHost: rootHost) }
    }

    /// Runs `body`, which may stand still for as long as it likes: one that waits for a reader of standard output,
    /// or for a person.
    func whileWaiting<Result>(_ body: () throws -> Result) rethrows -> Result {
        waits.wrappingAdd(1, ordering: .relaxed)
        defer { waits.wrappingSubtract(1, ordering: .relaxed) }
        return try body()
    }

    var progressCount: Int { counter.load(ordering: .relaxed) }

    var position: Position {
        Position(
            phase: Phase(rawValue: phase.load(ordering: .relaxed)) ?? .starting,
            layer: layer.load(ordering: .relaxed), tile: tile.load(ordering: .relaxed))
    }

    private func run(_ limit: Duration) {
        var silence = Silence()
        var controlSilence = Silence()
        var last = (-1, -1, -1)
        while true {
            Thread.sleep(forTimeInterval: Self.tick.inSeconds)
            if waits.load(ordering: .relaxed) > 0 { progress() }
            let now = (
                progressCount, othersCounter.load(ordering: .relaxed), controlCounter.load(ordering: .relaxed)
            )
            silence.note(isAlive: now.0 != last.0 || now.1 != last.1)
            controlSilence.note(isAlive: now.2 != last.2)
            last = now
            let identity = identity.withLock { $0 }
            let (rank, size) = (identity.rank, identity.size)
            // One after the other, so that one line tells of it: the first to end ends the job, as soon as the
            // launcher notices.
            let patience = size == 1 ? limit : limit + Self.grace + .seconds(min(30, 2 * rank))
            guard silence.length >= patience else { continue }
            let place = size == 1 ? LocalHost.name : "rank \(rank) on \(LocalHost.name)"
            let seconds = Int(limit.inSeconds)
            // Rank 0 answers as long as it runs, so its silence says more than this rank's own stillness.
            let isRootSilent = rank > 0 && now.2 > 0 && controlSilence.length >= limit
            StandardError.writeFailure(
                isRootSilent
                    ? "rank 0 on \(identity.rootHost) has not been heard of for \(seconds) seconds by \(place), "
                        + "which is at \(position)"
                    : "\(place) has not moved for \(seconds) seconds, at \(position); "
                        + "raise --watchdog where that can be right")
            TemporaryFiles.removeAll()
            _exit(ExitStatus.internal.rawValue)
        }
    }
}

/// How long something has given no sign of life, not counting time in which this process did not run.
struct Silence {
    private(set) var length = Duration.zero
    private var last = ContinuousClock.now

    /// To be called several times a second.
    mutating func note(isAlive: Bool) {
        let now = ContinuousClock.now
        // Between two looks pass some tenths of a second; more means that the process was stopped.
        length = isAlive ? .zero : length + min(now - last, .seconds(1))
        last = now
    }
}
