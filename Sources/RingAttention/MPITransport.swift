// The transport between the processes of an MPI job.

import MPI
import Synchronization
import Tiles

/// A rank's connection over MPI.
///
/// Pieces are gathered and scattered by MPI itself, without a copy. A message at or above the part limit travels in
/// parts. Messages move while `poll` is called or the exchange waits. One thread uses a transport at a time.
public final class MPITransport: Transport {
    public let rank: Rank
    public let size: Int
    public private(set) var traffic = Traffic()

    // The lengths that the receives of an exchange expect, at their tokens.
    private var expected: [Int] = []
    // Messages of a transport never mix with others of the same ranks.
    private let communicator: Communicator
    private let partLimit: Int
    private var requests: RequestSet
    // Windows are made and freed by all ranks of a node together, so they are freed where the next one is made.
    private let retired = RetiredWindows()
    // How many there were so far.
    private var windows = 0

    /// How long messages are still moved after `work` has thrown, so that ranks that did not fail can finish theirs.
    private static let drainLimit = Duration.seconds(2)

    /// A transport over the ranks of `communicator`. Collective.
    /// - Parameter partLimit: the largest part of a message in bytes, the same on every rank.
    public init(_ communicator: borrowing Communicator, partLimit: Int = RequestSet.partLimit) throws {
        self.communicator = try communicator.duplicate()
        self.partLimit = partLimit
        rank = Rank(communicator.rank)
        size = communicator.size
        requests = RequestSet(partLimit: partLimit)
    }

    public func exchange(
        receive: [Incoming], send: [Outgoing], while work: (_ poll: () -> Void) throws -> Void
    ) throws {
        try validate(receive: receive, send: send)
        var failure: (any Error)?
        do {
            expected = receive.map(\.byteCount)
            for (token, message) in receive.enumerated() {
                try requests.receive(
                    message.pieces, from: message.from.index, tag: nil, token: token, over: communicator)
            }
            for message in send {
                let count = message.byteCount
                try requests.send(message.pieces, to: message.to.index, tag: Self.tag(count), over: communicator)
                traffic.bytes += count
                traffic.messages += 1
            }
            try work { advance(&failure) }
        } catch {
            drain()
            throw error
        }
        while failure == nil && requests.active > 0 {
            advance(&failure)
            if requests.active > 0 { yieldProcessor() }
        }
        if let failure {
            drain()
            throw failure
        }
        requests.removeAll()
    }

    public func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] {
        let count = withUnsafeBytes(of: Int64(bytes.count)) { Array($0) }
        let counts = try communicator.allGather(count).withUnsafeBytes { all in
            (0..<size).map { Int(all.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) }
        }
        traffic.controlBytes += count.count + bytes.count
        traffic.controlMessages += 1
        return try communicator.allGather(bytes, counts: counts)
    }

    public func hosts() throws -> [Int] {
        let node = try communicator.splitBySharedMemory()
        // A host is known by its first rank.
        let first = try node.allGather(withUnsafeBytes(of: Int64(rank.index)) { Array($0) }).withUnsafeBytes {
            $0.loadUnaligned(as: Int64.self)
        }
        return try allGather(withUnsafeBytes(of: first) { Array($0) }).map { bytes in
            Int(bytes.withUnsafeBytes { $0.loadUnaligned(as: Int64.self) })
        }
    }

    public var freeSharedMemory: Int? { HostProcess.freeSharedMemory }

    public func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory {
        try close()
        // The library aligns no segment but the first.
        let bytes = (SharedMemory.byteCount(floats: floats) + 63) & ~63
        let node = try communicator.split(color: ranks.lowerBound)
        let window = NodeWindow(try SharedWindow(byteCount: bytes + 64, over: node), over: node, number: windows, in: retired)
        windows += 1
        return SharedMemory(ranks: ranks, segments: window.segments, owners: [window], pulse: yieldProcessor)
    }

    /// Frees the windows that no rank uses any more. Collective; call it last when none is of use, before MPI ends.
    public func close() throws {
        // Ranks may let go of their windows in different orders; and some not yet.
        let mine = retired.numbers
        let all = try allGather(mine.withUnsafeBytes { Array($0) }).map { bytes in
            bytes.withUnsafeBytes { bytes in Set((0..<bytes.count / 8).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Int.self) }) }
        }
        for number in mine.sorted() where all.allSatisfy({ $0.contains(number) }) { try retired.free(number) }
    }

    /// Moves messages along, keeping the first failure for the end of the exchange.
    private func advance(_ failure: inout (any Error)?) {
        guard failure == nil, requests.active > 0 else { return }
        do {
            var mismatch: TransportError?
            try requests.test { arrival in
                let length = expected[arrival.token]
                if arrival.isMismatch || arrival.tag != Self.tag(length) {
                    let isWhole = arrival.expected == length && !arrival.isMisplaced && arrival.bytes < length
                    mismatch = .lengthMismatch(
                        from: Rank(arrival.source), expected: length, received: isWhole ? arrival.bytes : nil)
                }
            }
            failure = mismatch
        } catch {
            failure = error
        }
    }

    /// A message's tag tells its length, as far as a tag can (a remainder by a prime): a library may cut a message
    /// that is longer than its receive without a word, and Open MPI 4.1 does. Receives take any tag, so that a
    /// wrong length is found rather than waited for.
    private static func tag(_ byteCount: Int) -> Tag { Tag(byteCount % 16381) }

    /// Gives the messages under way a moment to complete, then takes receives back and lets go of sends: a rank
    /// that does not receive within that time will not, and the job is about to be aborted.
    private func drain() {
        let clock = ContinuousClock()
        let end = clock.now + Self.drainLimit
        var failure: (any Error)?
        while requests.active > 0 && failure == nil && clock.now < end {
            advance(&failure)
            yieldProcessor()
        }
        requests.cancelReceives()
        requests.abandonSends()
        requests.removeAll()
    }
}

/// A window with the communicator that it was made over; put aside when nobody uses it any more, for freeing it takes all
/// ranks of the node.
private final class NodeWindow: Sendable {
    private let parts: Mutex<Parts?>
    private let number: Int
    private let retired: RetiredWindows

    struct Parts: ~Copyable, Sendable {
        let window: SharedWindow
        let node: Communicator

        consuming func free() throws { try window.free() }
    }

    init(_ window: consuming SharedWindow, over node: consuming Communicator, number: Int, in retired: RetiredWindows) {
        parts = Mutex(Parts(window: window, node: node))
        self.number = number
        self.retired = retired
    }

    /// The first aligned byte of each rank's segment.
    var segments: [UnsafeMutableRawPointer] {
        parts.withLock { ($0?.window.segments ?? []).map { $0.baseAddress!.alignedUp(toMultipleOf: 64) } }
    }

    deinit { retired.add(parts.withLock { $0.take() }, number: number) }
}

/// Windows to be freed, by the number of each, which is the same on every rank.
private final class RetiredWindows: Sendable {
    private final class Entry: Sendable {
        private let parts: Mutex<NodeWindow.Parts?>
        init(_ parts: consuming sending NodeWindow.Parts?) { self.parts = Mutex(parts) }

        func free() throws {
            let open = parts.withLock { $0.take() }
            try open?.free()
        }
    }

    private let entries = Mutex<[Int: Entry]>([:])

    var numbers: [Int] { entries.withLock { Array($0.keys) } }

    func add(_ parts: consuming sending NodeWindow.Parts?, number: Int) {
        let entry = Entry(parts)
        entries.withLock { $0[number] = entry }
    }

    func free(_ number: Int) throws { try entries.withLock { $0.removeValue(forKey: number) }?.free() }
}
