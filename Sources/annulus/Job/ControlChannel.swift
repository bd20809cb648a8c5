// The heartbeats between the ranks of a job, on a thread and a communicator of their own.

import Dispatch
import Foundation
import MPI
import Pipelines
import Synchronization

/// The star of heartbeats around rank 0, by which the job knows that all its ranks are alive.
///
/// A few times a second each rank tells rank 0 how far it is, and rank 0 tells each how far the job is. Rank 0 ends the
/// job, with one line, where a rank is silent for the watchdog's limit, where no rank moves for that long, and where a
/// rank reports a failure. A rank that waits for slower ones is no failure while any of them moves.
/// The thread sleeps between its looks: polling in earnest would cost the work a good part of a processor.
/// It needs `MPI_THREAD_MULTIPLE`.
final class ControlChannel: Sendable {
    private let communicator: Communicator
    private let watchdog: Watchdog
    private var ending: Ending { watchdog.ending }
    private let hosts: [String]
    /// Whether the ranks are on several hosts.
    let spansHosts: Bool
    /// Whether rank 0 is on another host than this rank.
    let isRootElsewhere: Bool
    // What this rank's own work reports, to be passed on.
    private let failure = Mutex<JobError?>(nil)
    private let isStopping = Atomic<Bool>(false)
    // Whether this rank is about to end, and waits for what the others have to say.
    private let isUrgent = Atomic<Bool>(false)
    private let wakeUp = DispatchSemaphore(value: 0)
    private let finished = DispatchSemaphore(value: 0)

    private static let beat = Duration.milliseconds(250)
    /// Open MPI looks at its sockets at every eighth call (`opal_progress`), and while a rank computes nobody else calls:
    /// with one call a beat a message from another host would lie there for two seconds.
    private static let callsToReachSockets = 8
    /// How long the last messages may take.
    private static let farewellLimit = Duration.seconds(10)
    /// How long a rank that failed waits for rank 0 to end the job.
    private static let reportLimit = Duration.seconds(2)
    /// A rank that has not been heard of for so long, some beats, is silent rather than slow.
    private static let doubt = Duration.milliseconds(750)
    /// Where no rank moves, how long until it is known which of them are silent.
    private static let confirmation = Duration.seconds(1)

    /// Connects the ranks of `communicator` and starts this rank's thread. Collective.
    init(_ communicator: borrowing Communicator, watchdog: Watchdog) throws {
        self.communicator = try communicator.duplicate()
        self.watchdog = watchdog
        // A host is known by its roster, or by its name where it has none.
        let name = Array(LocalHost.name.utf8.prefix(64))
        let identity = withUnsafeBytes(of: Int64(watchdog.ending.roster?.identity ?? 0)) { Array($0) }
        let length = identity.count + 64
        let all = try communicator.allGather(identity + name + [UInt8](repeating: 0, count: 64 - name.count))
        let entries = (0..<communicator.size).map { Array(all[$0 * length..<($0 + 1) * length]) }
        hosts = entries.map { String(decoding: $0.dropFirst(identity.count).prefix { $0 != 0 }, as: UTF8.self) }
        spansHosts = Set(entries).count > 1
        isRootElsewhere = entries[communicator.rank] != entries[0]
        // All ranks of this host have come.
        ending.roster?.removeName()
        watchdog.identify(rootHost: hosts[0], spansHosts: spansHosts)
        ending.connect(self)
        let thread = Thread {
            Thread.current.name = "control"
            do {
                if self.communicator.rank == 0 { try self.serve() } else { try self.report() }
            } catch {
                self.ending.end(JobError(.internal, "the control messages of the job failed: \(error)"))
            }
            self.finished.signal()
        }
        thread.stackSize = 512 << 10
        thread.start()
    }

    /// Ends the heartbeats once all ranks have called it, or the limit of patience is over. Call before MPI ends.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        wakeUp.signal()
        finished.wait()
        ending.connect(nil)
    }

    /// Has rank 0 end the job for `error`, which names this rank's host.
    func pass(_ error: JobError) {
        failure.withLock { $0 = $0 ?? error }
        hurry()
    }

    /// Listens without a pause from now on: this rank is about to end.
    func hurry() {
        isUrgent.store(true, ordering: .releasing)
        wakeUp.signal()
    }

    /// Ends the job for `error`, from this rank. Rank 0 says so, that one line may tell of it.
    func fail(_ error: JobError) -> Never {
        pass(named(error, communicator.rank))
        Thread.sleep(forTimeInterval: Self.reportLimit.inSeconds)
        // Rank 0 does not answer: this rank speaks for itself.
        ending.end(named(error, communicator.rank))
    }

    private func named(_ error: JobError, _ rank: Int) -> JobError {
        JobError(error.status, "\(error.message) (rank \(rank) on \(hosts[rank]))")
    }

    // MARK: - Rank 0

    private func serve() throws {
        let size = communicator.size
        let inbox = UnsafeMutableRawBufferPointer.allocate(byteCount: Heartbeat.byteCount * size, alignment: 8)
        let outbox = UnsafeMutableRawBufferPointer.allocate(byteCount: Reply.byteCount * size, alignment: 8)
        var incoming = RequestSet()
        var outgoing = RequestSet()
        var silences = [Silence](repeating: Silence(), count: size)
        var stillness = [Silence](repeating: Silence(), count: size)
        var counts = [Int](repeating: 0, count: size)
        var positions = [Position](repeating: watchdog.position, count: size)
        var left = Set<Int>()
        var dismissed = Set<Int>()
        var farewell: ContinuousClock.Instant?

        func post(_ rank: Int) throws {
            try incoming.receive(
                [Heartbeat.slot(rank, of: inbox)], from: rank, tag: 1, token: rank, over: communicator)
        }
        for rank in 1..<size { try post(rank) }

        while true {
            var heard: [Int] = []
            try listen(&incoming) { heard.append($0.token) }
            var moved = Set<Int>()
            for rank in heard {
                let beat = Heartbeat(Heartbeat.slot(rank, of: inbox))
                if case .failure(let error) = beat.kind { try end(error, &outgoing, outbox) }
                // Its own line stands already.
                if beat.kind == .crash { ending.noteTold() }
                if beat.count != counts[rank] { moved.insert(rank) }
                counts[rank] = beat.count
                positions[rank] = beat.position
                if beat.kind == .farewell { left.insert(rank) } else { try post(rank) }
            }
            if let error = failure.withLock({ $0 }) { try end(error, &outgoing, outbox) }
            if watchdog.progressCount != counts[0] { moved.insert(0) }
            counts[0] = watchdog.progressCount
            positions[0] = watchdog.position
            if moved.contains(where: { $0 > 0 }) { watchdog.noteOthersProgress() }

            for rank in 0..<size {
                silences[rank].note(isAlive: rank == 0 || left.contains(rank) || heard.contains(rank))
                stillness[rank].note(isAlive: moved.contains(rank))
            }
            if let limit = watchdog.limit, let error = judge(limit, silences, stillness, positions, left) {
                try end(error, &outgoing, outbox)
            }

            // One round of replies at a time: the memory of the last must be free. A rank that has nothing more to
            // do is kept until rank 0 has not either, so that its own timer hears that the job moves.
            let isStopping = isStopping.load(ordering: .acquiring)
            if try outgoing.test() {
                outgoing.removeAll()
                for rank in 1..<size where !dismissed.contains(rank) {
                    let isLast = isStopping && left.contains(rank)
                    let slot = Reply.slot(rank, of: outbox)
                    Reply(isLast: isLast, hasSpoken: ending.isTold, jobCount: counts.reduce(0, &+)).write(to: slot)
                    try outgoing.send([UnsafeRawBufferPointer(slot)], to: rank, tag: 2, over: communicator)
                    if isLast { dismissed.insert(rank) }
                }
            }
            if dismissed.count == size - 1 {
                let now = ContinuousClock.now
                farewell = farewell ?? now + Self.farewellLimit
                if try outgoing.test() || now > farewell! { break }
            }
            pause(isStopping: isStopping)
        }
        incoming.cancelReceives()
        outgoing.abandonSends()
        inbox.deallocate()
        // Replies that nobody took may still be read by the library: that memory stays.
    }

    /// Ends the job for `error`, and lets the other hosts know that it is said.
    private func end(_ error: JobError, _ outgoing: inout RequestSet, _ outbox: UnsafeMutableRawBufferPointer) throws
        -> Never
    {
        ending.tell(error)
        if spansHosts, (try? outgoing.test()) == true {
            outgoing.removeAll()
            for rank in 1..<communicator.size {
                let slot = Reply.slot(rank, of: outbox)
                Reply(isLast: false, hasSpoken: true, jobCount: 0).write(to: slot)
                try outgoing.send([UnsafeRawBufferPointer(slot)], to: rank, tag: 2, over: communicator)
            }
            let limit = ContinuousClock.now + .milliseconds(100)
            while try !outgoing.test() && ContinuousClock.now < limit { Thread.sleep(forTimeInterval: 0.002) }
        }
        ending.leave(error.status)
    }

    /// Why the job must end, if it must.
    private func judge(
        _ limit: Duration, _ silences: [Silence], _ stillness: [Silence], _ positions: [Position], _ left: Set<Int>
    ) -> JobError? {
        let seconds = "\(Int(limit.inSeconds)) seconds"
        func silent(_ rank: Int, _ words: String) -> JobError {
            JobError(
                .internal,
                "rank \(rank) on \(hosts[rank]) has not been heard of for \(words); it was last at \(positions[rank])")
        }
        guard let quietest = silences.indices.max(by: { silences[$0].length < silences[$1].length }) else { return nil }
        // The report of a crash takes its time, in which its rank is silent.
        let patience = ending.isTold ? limit + Watchdog.reportTime : limit
        if silences[quietest].length >= patience { return silent(quietest, seconds) }
        let working = stillness.indices.filter { !left.contains($0) }
        guard let last = working.max(by: { stillness[$0].length < stillness[$1].length }),
            working.allSatisfy({ stillness[$0].length >= patience + Self.confirmation })
        else { return nil }
        // All others may have stood still for longer, while they wait for one that is gone.
        if silences[quietest].length >= Self.doubt {
            return silent(quietest, "some time, and no rank has moved for \(seconds)")
        }
        return JobError(
            .internal,
            "no rank has moved for \(seconds); rank \(last) on \(hosts[last]) has stood still longest, at \(positions[last]); raise "
                + "--watchdog where that can be right")
    }

    // MARK: - The other ranks

    private func report() throws {
        let inbox = UnsafeMutableRawBufferPointer.allocate(byteCount: Reply.byteCount, alignment: 8)
        let outbox = UnsafeMutableRawBufferPointer.allocate(byteCount: Heartbeat.byteCount, alignment: 8)
        var incoming = RequestSet()
        var outgoing = RequestSet()
        var hasLeft = false
        var isDismissed = false
        var hasReported = false
        var jobCount = 0
        var nextBeat = ContinuousClock.now
        var farewell: ContinuousClock.Instant?
        try incoming.receive([inbox], from: 0, tag: 2, over: communicator)

        while !isDismissed {
            while !isDismissed, try listen(&incoming) {
                let reply = Reply(inbox)
                watchdog.noteControl()
                if reply.hasSpoken { ending.noteTold() }
                farewell = nil
                if reply.jobCount != jobCount { watchdog.noteOthersProgress() }
                jobCount = reply.jobCount
                isDismissed = reply.isLast
                if !isDismissed { try incoming.receive([inbox], from: 0, tag: 2, over: communicator) }
            }
            let isStopping = isStopping.load(ordering: .acquiring)
            let error = failure.withLock { $0 }
            let hasNews = isStopping || error != nil && !hasReported || ContinuousClock.now >= nextBeat
            if !hasLeft, hasNews, try outgoing.test() {
                outgoing.removeAll()
                hasReported = error != nil
                nextBeat = ContinuousClock.now + Self.beat
                hasLeft = error == nil && isStopping
                let kind =
                    error.map { Heartbeat.Kind.failure($0) }
                    ?? (watchdog.hasCrashed ? .crash : hasLeft ? .farewell : .beat)
                Heartbeat(kind: kind, count: watchdog.progressCount, position: watchdog.position).write(to: outbox)
                try outgoing.send([UnsafeRawBufferPointer(outbox)], to: 0, tag: 1, over: communicator)
            }
            if hasLeft, let limit = watchdog.limit {
                // From the last reply on, rank 0 may be silent for as long as the job may stand still.
                let now = ContinuousClock.now
                farewell = farewell ?? now + limit + Self.farewellLimit
                if now > farewell! { break }
            }
            pause(isStopping: isStopping)
        }
        incoming.cancelReceives()
        let isSent = (try? outgoing.test()) ?? false
        outgoing.abandonSends()
        inbox.deallocate()
        if isSent { outbox.deallocate() }
    }

    /// Moves messages along, those of other hosts too. Returns whether nothing is under way any more.
    @discardableResult
    private func listen(_ requests: inout RequestSet, onReceive: (RequestSet.Arrival) -> Void = { _ in }) throws
        -> Bool
    {
        for _ in 0..<(spansHosts ? Self.callsToReachSockets : 1) where try requests.test(onReceive: onReceive) {
            return true
        }
        return false
    }

    /// Sleeps until the next look: sooner where this rank has nothing else to do, or its work has something to say.
    private func pause(isStopping: Bool) {
        if isStopping || isUrgent.load(ordering: .acquiring) {
            Thread.sleep(forTimeInterval: 0.002)
        } else {
            _ = wakeUp.wait(timeout: .now() + Self.beat.inSeconds)
            // Several wake-ups at once are one.
            while wakeUp.wait(timeout: .now()) == .success {}
        }
    }
}

/// What a rank tells rank 0.
struct Heartbeat {
    enum Kind: Equatable {
        case beat, farewell, crash
        case failure(JobError)
    }

    var kind: Kind
    var count: Int
    var position: Position

    /// Seven numbers of eight bytes (kind, count, phase, layer, tile, status, length of text), then the text. Small
    /// enough to be sent without waiting for the receiver.
    static let byteCount = 2048
    private static let textStart = 56

    init(kind: Kind, count: Int, position: Position) {
        self.kind = kind
        self.count = count
        self.position = position
    }

    init(_ slot: UnsafeMutableRawBufferPointer) {
        let numbers = (0..<7).map { Int(slot.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) }
        count = numbers[1]
        position = Position(phase: Phase(rawValue: numbers[2]) ?? .starting, layer: numbers[3], tile: numbers[4])
        switch numbers[0] {
        case 1: kind = .farewell
        case 2:
            let length = min(max(0, numbers[6]), Self.byteCount - Self.textStart)
            let text = String(decoding: slot[Self.textStart..<Self.textStart + length], as: UTF8.self)
            kind = .failure(JobError(ExitStatus(rawValue: Int32(clamping: numbers[5])) ?? .internal, text))
        case 3: kind = .crash
        default: kind = .beat
        }
    }

    func write(to slot: UnsafeMutableRawBufferPointer) {
        var text: [UInt8] = []
        var status: Int32 = 0
        var code = 0
        switch kind {
        case .beat: break
        case .farewell: code = 1
        case .crash: code = 3
        case .failure(let error):
            code = 2
            status = error.status.rawValue
            text = Array(error.message.utf8.prefix(Self.byteCount - Self.textStart))
        }
        let numbers = [
            code, count, position.phase.rawValue, position.layer, position.tile, Int(status), text.count,
        ]
        for (index, number) in numbers.enumerated() {
            slot.storeBytes(of: Int64(number), toByteOffset: 8 * index, as: Int64.self)
        }
        UnsafeMutableRawBufferPointer(rebasing: slot[Self.textStart...]).copyBytes(from: text)
    }

    /// The memory of one rank's message.
    static func slot(_ rank: Int, of memory: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[rank * byteCount..<(rank + 1) * byteCount])
    }
}

/// What rank 0 tells a rank: how far the job is, whether it is said why the job ends, and whether this is the last
/// reply.
struct Reply {
    var isLast: Bool
    var hasSpoken: Bool
    var jobCount: Int

    static let byteCount = 16

    init(isLast: Bool, hasSpoken: Bool, jobCount: Int) {
        self.isLast = isLast
        self.hasSpoken = hasSpoken
        self.jobCount = jobCount
    }

    init(_ slot: UnsafeMutableRawBufferPointer) {
        let flags = slot.loadUnaligned(as: Int64.self)
        isLast = flags & 1 != 0
        hasSpoken = flags & 2 != 0
        jobCount = Int(slot.loadUnaligned(fromByteOffset: 8, as: Int64.self))
    }

    func write(to slot: UnsafeMutableRawBufferPointer) {
        slot.storeBytes(of: (isLast ? 1 : 0) | (hasSpoken ? 2 : 0), toByteOffset: 0, as: Int64.self)
        slot.storeBytes(of: Int64(jobCount), toByteOffset: 8, as: Int64.self)
    }

    static func slot(_ rank: Int, of memory: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[rank * byteCount..<(rank + 1) * byteCount])
    }
}
