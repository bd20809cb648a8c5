// The transport between the processes of an MPI job.

import MPI
import Plans
import Tiles

/// A rank's connection over MPI.
///
/// Pieces are gathered and scattered by MPI itself, without a copy. A message at or above the part limit travels in
/// parts. Messages move while `poll` is called or the exchange waits. One thread uses a transport at a time.
public final class MPITransport: Transport {
    /// This rank, as the communicator numbers it.
    public let rank: Rank
    /// How many ranks the communicator has.
    public let size: Int
    /// What this rank sent so far.
    public private(set) var traffic = Traffic()
    /// What is told when this rank did what; nil: nobody asks.
    public var timeline: Timeline?

    // The lengths that the receives of an exchange expect, at their tokens.
    private var expected: [Int] = []
    // Messages of a transport never mix with others of the same ranks.
    private let communicator: Communicator
    private let partLimit: Int
    private var requests: RequestSet

    /// How long messages are still moved after `work` has thrown, so that ranks that did not fail can finish theirs.
    private static let drainLimit = Duration.seconds(2)

    /// A transport over the ranks of `communicator`. Collective.
    /// - Parameters:
    ///   - communicator: is duplicated, so that its other messages never mix with those of the transport.
    ///   - partLimit: the largest part of a message in bytes, the same on every rank.
    public init(_ communicator: borrowing Communicator, partLimit: Int = RequestSet.partLimit) throws {
        self.communicator = try communicator.duplicate()
        self.partLimit = partLimit
        rank = Rank(communicator.rank)
        size = communicator.size
        requests = RequestSet(partLimit: partLimit)
    }

    /// Posts all receives, then all sends, and moves messages when `work` polls and while it waits for them.
    ///
    /// The corresponding C functions are `MPI_Irecv` and `MPI_Isend` (MPI 3.1 §3.7.2) and `MPI_Testsome` (§3.7.5).
    /// - Throws: ``TransportError``, `MPIError` and what `work` throws, after a moment in which messages under way may
    ///   complete.
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

    /// Every rank's bytes in rank order, of any lengths, below 2 GiB together. Collective.
    ///
    /// The corresponding C functions are `MPI_Allgather`, of the lengths, and `MPI_Allgatherv` (MPI 3.1 §5.7).
    /// - Throws: `MPIError`.
    public func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] {
        let start = ContinuousClock.now
        defer { timeline?.add(.meeting, "all ranks", from: start, to: .now) }
        let count = withUnsafeBytes(of: Int64(bytes.count)) { Array($0) }
        let counts = try communicator.allGather(count).withUnsafeBytes { all in
            (0..<size).map { Int(all.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) }
        }
        traffic.controlBytes += count.count + bytes.count
        traffic.controlMessages += 1
        return try communicator.allGather(bytes, counts: counts)
    }

    /// For each rank the lowest rank of its host, in rank order. Collective.
    ///
    /// The corresponding C function is `MPI_Comm_split_type` with `MPI_COMM_TYPE_SHARED` (MPI 3.1 §6.4.2).
    /// - Throws: `MPIError`.
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

    /// The bytes that are free in this host's `/dev/shm`; nil where there is no such place.
    public var freeSharedMemory: Int? { HostProcess.freeSharedMemory }

    /// A segment for each rank of a node, in a file in memory that all of them map: `SharedWindow`. Collective over
    /// all ranks.
    /// - Throws: ``SharedMemoryRefused`` on all ranks, where the ranks of a node cannot have it; `MPIError`.
    public func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory {
        let byteCount = SharedMemory.byteCount(floats: floats)
        let node = try communicator.split(color: ranks.lowerBound)
        let window = try SharedWindow(byteCount: byteCount, over: node)
        // A node that has not got it leaves the others without theirs: all ranks plan anew.
        let mine = [window == nil ? 1 : 0, ranks.lowerBound, ranks.upperBound, byteCount, freeSharedMemory ?? 0]
        let all = try allGather(mine.withUnsafeBytes { Array($0) }).map { bytes in
            bytes.withUnsafeBytes { bytes in
                mine.indices.map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Int.self) }
            }
        }
        let refusals = all.indices.filter { all[$0][0] == 1 && all[$0][1] == $0 }.map { first in
            let node = all[first][1]..<all[first][2]
            return SharedMemoryRefused.Node(
                ranks: node, needed: node.reduce(0) { $0 + all[$1][3] }, free: all[first][4])
        }
        guard refusals.isEmpty, let window else { throw SharedMemoryRefused(nodes: refusals) }
        return SharedMemory(
            ranks: ranks, segments: window.segments.compactMap(\.baseAddress), owners: [window],
            pulse: { _ in yieldProcessor() })
    }

    /// Returns once every rank is done with its transport. Collective; call it last, before MPI ends.
    public func close() throws { try barrier() }

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
