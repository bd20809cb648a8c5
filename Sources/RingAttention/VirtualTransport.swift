// The transport between virtual ranks: threads of one process that share mailboxes.

import Dispatch
import Foundation
import Matrices
import Plans
import Synchronization
import Tiles

/// A virtual rank's connection to the others of its process.
///
/// It stays on the thread that ``VirtualRanks`` made for its rank. Messages are copied when sent. Among the messages
/// that could be delivered the seed chooses which is and when, so that nothing can come to depend on their order.
public final class VirtualTransport: Transport {
    /// This rank, by its number in the process.
    public let rank: Rank
    /// How many virtual ranks the process has.
    public let size: Int
    /// What this rank sent so far.
    public private(set) var traffic = Traffic()
    /// What is told when this rank did what; nil: nobody asks.
    public var timeline: Timeline?

    private let mailboxes: Mailboxes
    private var random: SplitMix64
    private let fillsReceives: Bool
    private var gathers = 0

    init(rank: Rank, size: Int, mailboxes: Mailboxes, seed: UInt64, fillsReceives: Bool) {
        self.rank = rank
        self.size = size
        self.mailboxes = mailboxes
        self.fillsReceives = fillsReceives
        random = SplitMix64(state: seed &+ UInt64(rank.index) &* Stride.number)
    }

    /// Copies what is sent to the mailboxes of its receivers, then takes what is to be received, when `work` polls and
    /// after it. The seed says in which order.
    /// - Throws: ``TransportError``; what `work` throws.
    public func exchange(
        receive: [Incoming], send: [Outgoing], while work: (_ poll: () -> Void) throws -> Void
    ) throws {
        try validate(receive: receive, send: send)
        if fillsReceives {
            for piece in receive.flatMap(\.pieces) { _ = piece.initializeMemory(as: UInt8.self, repeating: 0xFF) }
        }
        for message in send.shuffled(using: &random) {
            var bytes: [UInt8] = []
            bytes.reserveCapacity(message.byteCount)
            for piece in message.pieces { bytes.append(contentsOf: piece) }
            traffic.bytes += bytes.count
            traffic.messages += 1
            mailboxes.post(bytes, from: rank, to: message.to)
            // Lets the scheduler interleave the ranks differently from run to run.
            if random.next() & 3 == 0 { yieldProcessor() }
        }
        var waiting = receive.shuffled(using: &random)
        var failure: (any Error)?
        try work {
            guard failure == nil, let next = waiting.last else { return }
            // Every other poll delivers nothing, so that what has arrived when differs.
            guard random.next() & 1 == 0 else { return }
            do {
                guard let bytes = try mailboxes.take(from: next.from, to: rank) else {
                    waiting.shuffle(using: &random)
                    return
                }
                try deliver(bytes, to: next)
                waiting.removeLast()
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        while let next = waiting.popLast() {
            try deliver(mailboxes.waitAndTake(from: next.from, to: rank), to: next)
        }
    }

    /// Every rank's bytes in rank order, of any lengths. Collective.
    /// - Throws: ``TransportError`` where a rank has failed or ended, or where all wait for each other.
    public func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] {
        let start = ContinuousClock.now
        defer { timeline?.add(.meeting, "all ranks", from: start, to: .now) }
        traffic.controlBytes += bytes.count
        traffic.controlMessages += 1
        gathers += 1
        return try mailboxes.gather(bytes, from: rank, turn: gathers - 1)
    }

    /// A segment for each rank of a node, in memory of the process, which is never refused. Collective over all ranks.
    /// - Throws: ``TransportError`` where a rank has failed or ended, or where all wait for each other.
    public func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory {
        let all = try mailboxes.share(MemoryBlock(byteCount: SharedMemory.byteCount(floats: floats)), of: rank) {
            try barrier()
        }
        let node = Array(all[ranks])
        return SharedMemory(
            ranks: ranks, segments: node.map(\.pointer), owners: node,
            pulse: { [mailboxes] rank in
                try mailboxes.checkRuns(rank)
                yieldProcessor()
            })
    }

    /// The same number for every rank: all run on one host.
    public func hosts() -> [Int] { Array(repeating: 0, count: size) }

    /// Nil: threads of a process share all of its memory.
    public var freeSharedMemory: Int? { nil }

    private func deliver(_ bytes: [UInt8], to message: Incoming) throws(TransportError) {
        guard bytes.count == message.byteCount else {
            throw .lengthMismatch(from: message.from, expected: message.byteCount, received: bytes.count)
        }
        bytes.withUnsafeBytes { bytes in
            var offset = 0
            for piece in message.pieces where !piece.isEmpty {
                piece.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + piece.count]))
                offset += piece.count
            }
        }
    }
}

/// A job of several ranks inside one process.
public enum VirtualRanks {
    /// Runs `body` once for each of `count` ranks, each on a thread of its own, and returns the results in rank order.
    ///
    /// A single rank runs on the calling thread. A rank that throws ends the others: their next wait throws
    /// ``TransportError/rankFailed(_:message:)``. A rank that returns while another still waits for its message
    /// makes that wait throw ``TransportError/missingMessage(from:)``, and where all ranks wait for each other the
    /// waits throw ``TransportError/deadlock``; so no mistake in a plan can hang the process. (Ranks that share memory and
    /// wait for each other's clocks in a circle would; a clock waits for what came before it in the plan, never after.)
    /// - Parameters:
    ///   - count: how many ranks the job has.
    ///   - seed: chooses the order in which messages are delivered.
    ///   - stackSize: bytes of each thread's stack.
    ///   - fillsReceives: whether memory is overwritten when a receive is posted, so that a rank that reads before
    ///     the message has arrived cannot pass unnoticed. For tests.
    ///   - body: what a rank does, given its connection to the others.
    /// - Throws: the error that started the failure, of the lowest rank where there are several.
    /// - Precondition: `count` is positive.
    public static func run<Result: Sendable>(
        count: Int, seed: UInt64 = 0, stackSize: Int = 8 << 20, fillsReceives: Bool = false,
        body: @escaping @Sendable (VirtualTransport) throws -> Result
    ) throws -> [Result] {
        precondition(count > 0, "a job has at least one rank")
        let mailboxes = Mailboxes(size: count)
        let runRank: @Sendable (Rank) -> Swift.Result<Result, any Error> = { rank in
            let transport = VirtualTransport(
                rank: rank, size: count, mailboxes: mailboxes, seed: seed, fillsReceives: fillsReceives)
            let result = Swift.Result { try body(transport) }
            switch result {
            case .success: mailboxes.end(rank, failure: nil)
            case .failure(let error): mailboxes.end(rank, failure: "\(error)")
            }
            return result
        }
        if count == 1 { return [try runRank(Rank(0)).get()] }

        let results = ResultTable<Result>(count: count)
        let finished = DispatchSemaphore(value: 0)
        for index in 0..<count {
            let thread = Thread {
                Thread.current.name = "rank \(index)"
                results.set(runRank(Rank(index)), at: index)
                finished.signal()
            }
            thread.stackSize = stackSize
            thread.start()
        }
        for _ in 0..<count { finished.wait() }
        return try results.get()
    }
}

/// What each rank returned or threw.
private final class ResultTable<Value: Sendable>: Sendable {
    private let entries: Mutex<[Result<Value, any Error>?]>

    init(count: Int) { entries = Mutex(Array(repeating: nil, count: count)) }

    func set(_ result: Result<Value, any Error>, at index: Int) { entries.withLock { $0[index] = result } }

    /// All values, or the error that started the failure: one that only tells of another rank's comes last.
    func get() throws -> [Value] {
        let results = entries.withLock { $0.compactMap { $0 } }
        let errors = results.compactMap { result -> (any Error)? in
            if case .failure(let error) = result { error } else { nil }
        }
        let first = errors.first { error in
            if case .rankFailed = error as? TransportError { false } else { true }
        }
        if let error = first ?? errors.first { throw error }
        return try results.map { try $0.get() }
    }
}

/// The messages between the virtual ranks of a process.
///
/// One lock guards all; each rank sleeps on a semaphore of its own. A rank marks itself as waiting under the lock,
/// and whoever posts something for it clears the mark under the lock, so "all ranks left are marked" is exactly a
/// deadlock and is found by the last one to be marked.
final class Mailboxes: Sendable {
    private enum Status {
        case running, waiting, ended
    }

    private struct State {
        var status: [Status]
        // Messages not yet taken, at from · size + to, oldest first.
        var queues: [[[UInt8]]]
        var gathers: [Int: [[UInt8]?]] = [:]
        var gathersRead: [Int: Int] = [:]
        // What each rank shares in the round of sharing that is under way.
        var shared: [MemoryBlock?]
        var failure: TransportError?
    }

    private let size: Int
    private let state: Mutex<State>
    private let wakeUps: [DispatchSemaphore]

    init(size: Int) {
        self.size = size
        state = Mutex(
            State(
                status: Array(repeating: .running, count: size),
                queues: Array(repeating: [], count: size * size), shared: Array(repeating: nil, count: size)))
        wakeUps = (0..<size).map { _ in DispatchSemaphore(value: 0) }
    }

    /// The blocks of all ranks, this one's among them.
    /// - Parameter barrier: waits for all ranks.
    func share(_ block: MemoryBlock, of rank: Rank, barrier: () throws -> Void) throws -> [MemoryBlock] {
        state.withLock { $0.shared[rank.index] = block }
        try barrier()
        let all = state.withLock { $0.shared.compactMap { $0 } }
        // Nobody begins another round before all have read this one.
        try barrier()
        return all
    }

    /// - Throws: where a rank has failed, and where this one has ended.
    func checkRuns(_ rank: Rank) throws(TransportError) {
        try state.withLock { state throws(TransportError) in
            if let failure = state.failure { throw failure }
            if state.status[rank.index] == .ended { throw .missingMessage(from: rank) }
        }
    }

    func post(_ bytes: [UInt8], from: Rank, to: Rank) {
        let wakes = state.withLock { state in
            state.queues[from.index * size + to.index].append(bytes)
            return Self.rouse(to.index, &state)
        }
        if wakes { wakeUps[to.index].signal() }
    }

    /// The oldest message of a pair, or nil where none has been sent yet.
    func take(from: Rank, to: Rank) throws(TransportError) -> [UInt8]? {
        try state.withLock { state throws(TransportError) in
            try self.take(from, to, &state)
        }
    }

    /// The oldest message of a pair, once there is one.
    func waitAndTake(from: Rank, to: Rank) throws(TransportError) -> [UInt8] {
        try wait(to) { state throws(TransportError) in try self.take(from, to, &state) }
    }

    /// Every rank's bytes of the `turn`-th gathering, once all have come.
    func gather(_ bytes: [UInt8], from: Rank, turn: Int) throws(TransportError) -> [[UInt8]] {
        let woken = state.withLock { state -> [Int] in
            state.gathers[turn, default: Array(repeating: nil, count: size)][from.index] = bytes
            guard state.gathers[turn]!.allSatisfy({ $0 != nil }) else { return [] }
            return (0..<size).filter { Self.rouse($0, &state) }
        }
        for index in woken { wakeUps[index].signal() }
        return try wait(from) { state throws(TransportError) in
            let entries = state.gathers[turn]!
            let all = entries.compactMap { $0 }
            guard all.count == self.size else {
                if let failure = state.failure { throw failure }
                if let missing = entries.indices.first(where: { entries[$0] == nil && state.status[$0] == .ended }) {
                    throw .missingMessage(from: Rank(missing))
                }
                return nil
            }
            state.gathersRead[turn, default: 0] += 1
            if state.gathersRead[turn] == self.size {
                state.gathers[turn] = nil
                state.gathersRead[turn] = nil
            }
            return all
        }
    }

    /// Marks a rank as ended, with an error or without, and wakes all, since some may wait for it.
    func end(_ rank: Rank, failure: String?) {
        state.withLock { state in
            state.status[rank.index] = .ended
            if let failure { state.failure = state.failure ?? .rankFailed(rank, message: failure) }
            for index in 0..<size { _ = Self.rouse(index, &state) }
        }
        for wakeUp in wakeUps { wakeUp.signal() }
    }

    private func take(_ from: Rank, _ to: Rank, _ state: inout State) throws(TransportError) -> [UInt8]? {
        let queue = from.index * size + to.index
        if !state.queues[queue].isEmpty { return state.queues[queue].removeFirst() }
        if let failure = state.failure { throw failure }
        if state.status[from.index] == .ended { throw .missingMessage(from: from) }
        return nil
    }

    /// Sleeps until `attempt` has a value.
    private func wait<Value: Sendable>(
        _ rank: Rank, _ attempt: (inout State) throws(TransportError) -> Value?
    ) throws(TransportError) -> Value {
        while true {
            let (value, stuck) = try state.withLock { state throws(TransportError) -> (Value?, Bool) in
                if let value = try attempt(&state) { return (value, false) }
                state.status[rank.index] = .waiting
                guard state.status.contains(.running) else {
                    state.failure = .deadlock
                    for index in 0..<size { _ = Self.rouse(index, &state) }
                    return (nil, true)
                }
                return (nil, false)
            }
            if let value { return value }
            if stuck {
                for wakeUp in wakeUps { wakeUp.signal() }
            } else {
                wakeUps[rank.index].wait()
            }
        }
    }

    private static func rouse(_ index: Int, _ state: inout State) -> Bool {
        guard state.status[index] == .waiting else { return false }
        state.status[index] = .running
        return true
    }
}
