// The timer that ends a job which no longer moves, from before MPI starts until the process is gone.

import Dispatch
import Foundation
import Pipelines
import Synchronization

/// Where a rank is in its work.
struct Position: Equatable, Sendable, CustomStringConvertible {
    var phase: Phase
    /// Negative where there is none.
    var layer: Int
    /// Negative where there is none.
    var tile: Int

    var description: String {
        var text = "phase '\(phase.name)'"
        if layer >= 0 { text += ", layer \(layer)" }
        if tile >= 0 { text += ", tile \(tile)" }
        return text
    }
}

/// A rank's own timer, and what it knows of the others: of those of its host through the ``Roster``, of all through the
/// ``ControlChannel``.
///
/// The work calls ``progress(_:layer:tile:)`` at every step, which costs a few stores. A thread looks several times a
/// second and ends the job
/// - where another rank of the host was at work and its process is gone, or has been silent for `limit`, whatever this
///   rank's own work does;
/// - where rank 0, on another host, has been silent for `limit`;
/// - where for `limit` nothing moves, neither here nor, as far as this rank hears, elsewhere;
/// - where the launcher is gone.
/// It depends on nothing but this process and its host, so it works before MPI starts, after it has ended, and while it
/// hangs. Time in which the process itself did not run, suspended by its user or its batch system, is not counted.
final class Watchdog: Monitor {
    /// How long a job may stand still, and a rank be silent; nil: for ever.
    let limit: Duration?
    let ending: Ending

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
    private let crashed = Atomic<Bool>(false)
    // When the timer last looked, and last found that it had not looked for long, in nanoseconds of `clock`.
    private let lastLook = Atomic<Int64>(.min)
    private let lastWake = Atomic<Int64>(.min)
    private let spansHosts = Atomic<Bool>(false)
    private let rootHost = Mutex("")
    private let rank: Int?
    private let expected: Int?
    /// Who this is, in words that a crash can use.
    private let placeText: Memory<UInt8>
    private let placeLength: Int

    /// How often the timer looks.
    static let tick = Duration.milliseconds(200)
    /// How much longer a rank waits than those that know better what is wrong: rank 0, and the ranks of a host for each
    /// other.
    private static let grace = Duration.seconds(1)
    /// How much longer a rank may be silent where it is said why the job ends: the report of a crash takes its time.
    static let reportTime = Duration.seconds(3)

    /// - Parameters:
    ///   - rank: this rank, in a job of several processes; nil for a process that is alone.
    ///   - expected: how many ranks the launcher starts on this host, where it says so.
    init(limit: Duration?, rank: Int? = nil, expected: Int? = nil, ending: Ending) {
        self.limit = limit
        self.rank = rank
        self.expected = expected
        self.ending = ending
        let text = Array((rank.map { "rank \($0) on \(LocalHost.name)" } ?? LocalHost.name).utf8.prefix(300))
        placeText = Memory(of: 0, count: text.count)
        placeLength = text.count
        placeText.pointer.update(from: text, count: text.count)
    }

    /// Starts the timer.
    func start() {
        if limit == nil && ending.roster == nil { return }
        let thread = Thread {
            Thread.current.name = "watchdog"
            self.run()
        }
        thread.stackSize = 512 << 10
        thread.start()
    }

    /// Tells that the work has come to a step. Callable from any thread at any time.
    func progress(_ phase: Phase, layer: Int, tile: Int) {
        self.phase.store(phase.rawValue, ordering: .relaxed)
        self.layer.store(layer, ordering: .relaxed)
        self.tile.store(tile, ordering: .relaxed)
        ending.roster?.note(Position(phase: phase, layer: layer, tile: tile))
        counter.wrappingAdd(1, ordering: .relaxed)
    }

    /// Tells that the work moves, at the step it was at.
    func progress() { counter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells that another rank moves.
    func noteOthersProgress() { othersCounter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells that rank 0 was heard of.
    func noteControl() { controlCounter.wrappingAdd(1, ordering: .relaxed) }

    /// Tells what the ranks have learnt of each other, once they are connected.
    func identify(rootHost: String, spansHosts: Bool) {
        self.rootHost.withLock { $0 = rootHost }
        self.spansHosts.store(spansHosts, ordering: .relaxed)
    }

    /// Tells that this process has crashed. Called in a signal's handler; other hosts get a moment to be told.
    func noteCrash() {
        crashed.store(true, ordering: .releasing)
        guard spansHosts.load(ordering: .relaxed) else { return }
        var moment = timespec(tv_sec: 0, tv_nsec: 400_000_000)
        nanosleep(&moment, nil)
    }

    /// Whether this process was stopped until now, or a moment ago. A launcher that ends a job wakes the ranks that
    /// are: what it says to them is no news, and they may be why.
    var wasStopped: Bool {
        guard rank != nil else { return false }
        let now = Self.now
        let look = lastLook.load(ordering: .relaxed)
        return look != .min
            && (now - look > Self.stopped || now - max(0, lastWake.load(ordering: .relaxed)) < 2 * Self.stopped)
    }

    private static var now: Int64 { Int64(clamping: DispatchTime.now().uptimeNanoseconds) }
    /// Time between two looks that only a process which did not run lets pass.
    private static let stopped: Int64 = 1_500_000_000

    var hasCrashed: Bool { crashed.load(ordering: .acquiring) }

    func beginWaiting() { waits.wrappingAdd(1, ordering: .relaxed) }

    func endWaiting() { waits.wrappingSubtract(1, ordering: .relaxed) }

    var progressCount: Int { counter.load(ordering: .relaxed) }

    var position: Position {
        Position(
            phase: Phase(rawValue: phase.load(ordering: .relaxed)) ?? .starting,
            layer: layer.load(ordering: .relaxed), tile: tile.load(ordering: .relaxed))
    }

    /// Who this is, as error lines name it.
    var place: String { rank.map { "rank \($0) on \(LocalHost.name)" } ?? LocalHost.name }
    /// The same, for a signal's handler.
    var crashPlace: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(start: placeText.pointer, count: placeLength) }

    /// Why the job ends, where a rank of this host is gone.
    func failure(_ lost: Roster.Entry) -> JobError {
        JobError(
            .internal,
            "rank \(lost.rank) on \(LocalHost.name) (process \(lost.process)) was killed from outside, by a user, the batch system or "
                + "the kernel for want of memory; it was last at \(lost.position)")
    }

    /// Why the job ends, where all has been done or said and the process of a rank of this host is still there.
    /// - Parameter status: what the job would have ended with.
    func unended(_ last: Roster.Entry, status: Int32) -> JobError {
        JobError(
            .internal,
            "rank \(last.rank) on \(LocalHost.name) (process \(last.process)) has not been heard of for \(Self.seconds(limit ?? .zero)); "
                + (status == 0 ? "the work was done, and so is the output" : "the job had failed with status \(status)")
        )
    }

    private var stagger: Duration { .milliseconds(min(1400, 600 * max(0, (rank ?? 0) - 1))) }

    // MARK: - The thread

    private func run() {
        let launcher = getppid()
        var silence = Silence()
        var rootSilence = Silence()
        var neighbours: [Int: (beats: Int, silence: Silence)] = [:]
        var last = (-1, -1, -1)
        while true {
            ending.roster?.beat()
            Thread.sleep(forTimeInterval: Self.tick.inSeconds)
            let time = Self.now
            let before = lastLook.exchange(time, ordering: .relaxed)
            if before != .min, time - before > Self.stopped { lastWake.store(time, ordering: .relaxed) }
            // Its report is not to be cut short.
            if hasCrashed { continue }
            if waits.load(ordering: .relaxed) > 0 { progress() }
            let now = (progressCount, othersCounter.load(ordering: .relaxed), controlCounter.load(ordering: .relaxed))
            silence.note(isAlive: now.0 != last.0 || now.1 != last.1)
            rootSilence.note(isAlive: now.2 != last.2)
            last = now
            if let roster = ending.roster { watch(roster, launcher, &neighbours) }
            guard var limit else { continue }
            if ending.isTold { limit += Self.reportTime }
            // Ranks of several hosts may notice it at once: one after the other, so that the first ends the others.
            if now.2 > 0, ending.isConnected, rootSilence.length >= limit + Self.grace + stagger {
                // Rank 0 answers as long as it runs, whatever its work does.
                ending.end(
                    JobError(
                        .internal,
                        "rank 0 on \(rootHost.withLock { $0 }) has not been heard of for \(Self.seconds(self.limit ?? limit)) by \(place), which is at "
                            + "\(position)"),
                    asksRoot: false)
            }
            if silence.length >= limit + (rank == nil ? .zero : Self.grace + stagger) {
                ending.end(
                    JobError(
                        .internal,
                        "\(place) has not moved for \(Self.seconds(limit)), at \(position)\(absent); raise --watchdog where that can be right"
                    ))
            }
        }
    }

    /// Looks at the ranks of this host, and at the launcher.
    private func watch(_ roster: Roster, _ launcher: Int32, _ neighbours: inout [Int: (beats: Int, silence: Silence)]) {
        let limit = ending.isTold ? limit.map { $0 + Self.reportTime } : limit
        if getppid() != launcher {
            ending.tell(
                JobError(
                    .internal,
                    "the launcher that started \(place) is gone (process \(launcher)); \(Interruption.keptWords)"))
            Self.removeSharedSegments()
            ending.leave(.internal)
        }
        if let lost = roster.lost.first {
            // A launcher that has seen it ends this rank, with a status of its own; a library that misses the rank may
            // sooner.
            Thread.sleep(forTimeInterval: 0.2)
            ending.tell(failure(lost))
            Thread.sleep(forTimeInterval: 0.8)
            ending.leave(.internal)
        }
        for other in roster.others {
            var known = neighbours[other.rank] ?? (other.beats - 1, Silence())
            // One that has finished owes nothing; one that leaves takes the job with it.
            known.silence.note(isAlive: known.beats != other.beats || other.state == .finished)
            known.beats = other.beats
            neighbours[other.rank] = known
            if let limit, known.silence.length >= limit, other.state == .working {
                ending.end(
                    JobError(
                        .internal,
                        "rank \(other.rank) on \(LocalHost.name) has not been heard of for \(Self.seconds(limit)); it was last at \(other.position)"
                    ))
            }
            if other.state == .leaving, known.silence.length >= .seconds(2) { ending.leave(.internal) }
        }
    }

    /// Removes the files of shared memory that this process has mapped, which MPI leaves to the launcher to remove.
    private static func removeSharedSegments() {
        guard let maps = FileManager.default.contents(atPath: "/proc/self/maps") else { return }
        let text = String(decoding: maps, as: UTF8.self)
        for line in text.split(separator: "\n") {
            guard let start = line.range(of: " /dev/shm/") else { continue }
            unlink(line[start.lowerBound...].trimmingCharacters(in: .whitespaces))
        }
    }

    /// Ranks that have not come yet, which the others may be waiting for.
    private var absent: String {
        guard let roster = ending.roster, let expected, roster.count < expected else { return "" }
        return "; \(expected - roster.count) of the \(expected) ranks of this host have not started"
    }

    private static func seconds(_ limit: Duration) -> String {
        let seconds = limit.inSeconds
        return seconds == seconds.rounded() ? "\(Int(seconds)) second\(seconds == 1 ? "" : "s")" : "\(seconds) seconds"
    }
}

/// How long something has given no sign of life, not counting time in which this process did not run.
struct Silence {
    private(set) var length = Duration.zero
    private var last = ContinuousClock.now

    /// To be called several times a second.
    mutating func note(isAlive: Bool) {
        let now = ContinuousClock.now
        // Between two looks pass some tenths of a second; many more mean that the process did not run.
        let passed = now - last
        length = isAlive ? .zero : length + (passed > .seconds(1) ? Watchdog.tick : passed)
        last = now
    }
}
