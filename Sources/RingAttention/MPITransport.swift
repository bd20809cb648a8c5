// The transport between the processes of an MPI job.

import MPI
import Tiles

/// A rank's connection over MPI.
///
/// Pieces are gathered and scattered by MPI itself, without a copy. A message at or above the part limit travels in
/// parts. Messages move while `poll` is called or the exchange waits. One thread uses a transport at a time.
public final class MPITransport: Transport {
    public let rank: Rank
    public let size: Int
    public private(set) var traffic = Traffic()

    // Messages of a transport never mix with others of the same ranks.
    private let communicator: Communicator
    private let partLimit: Int
    private var requests: RequestSet

    /// How long messages are still moved after `work` has thrown, so that ranks that did not fail can finish theirs.
    private static let drainLimit = Duration.seconds(2)
    private static let tag: Tag = 0

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
            for message in receive {
                try requests.receive(message.pieces, from: message.from.index, tag: Self.tag, over: communicator)
            }
            for message in send {
                try requests.send(message.pieces, to: message.to.index, tag: Self.tag, over: communicator)
                traffic.bytes += message.byteCount
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

    /// Moves messages along, keeping the first failure for the end of the exchange.
    private func advance(_ failure: inout (any Error)?) {
        guard failure == nil, requests.active > 0 else { return }
        do {
            var mismatch: TransportError?
            try requests.test { arrival in
                if arrival.bytes != arrival.expected {
                    mismatch = .lengthMismatch(
                        from: Rank(arrival.source), expected: arrival.expected, received: arrival.bytes)
                }
            }
            failure = mismatch
        } catch {
            failure = error
        }
    }

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
