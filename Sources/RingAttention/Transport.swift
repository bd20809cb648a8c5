// How ranks exchange bytes, whatever carries them: what the executor runs on.

import Plans
import Tiles

/// A message to be sent: its pieces are gathered in order into one message.
///
/// The memory is read until the exchange returns.
public struct Outgoing {
    /// The rank that it goes to.
    public var to: Rank
    /// Where its bytes are, piece after piece.
    public var pieces: [UnsafeRawBufferPointer]
    /// What owns the memory: kept alive as long as the message is.
    private let owners: [AnyObject]

    /// - Parameters:
    ///   - to: the rank that the message goes to.
    ///   - pieces: where its bytes are, piece after piece.
    ///   - owners: what owns the memory, kept alive as long as the message is.
    public init(to: Rank, pieces: [UnsafeRawBufferPointer], keeping owners: [AnyObject] = []) {
        self.to = to
        self.pieces = pieces
        self.owners = owners
    }

    /// The message's length.
    public var byteCount: Int { pieces.reduce(0) { $0 + $1.count } }
}

/// A message to be received: its bytes are scattered in order to the pieces.
///
/// The memory is written until the exchange returns; pieces do not overlap.
public struct Incoming {
    /// The rank that it comes from.
    public var from: Rank
    /// Where its bytes go, piece after piece.
    public var pieces: [UnsafeMutableRawBufferPointer]
    /// What owns the memory: kept alive as long as the message is.
    private let owners: [AnyObject]

    /// - Parameters:
    ///   - from: the rank that the message comes from.
    ///   - pieces: where its bytes go, piece after piece.
    ///   - owners: what owns the memory, kept alive as long as the message is.
    public init(from: Rank, pieces: [UnsafeMutableRawBufferPointer], keeping owners: [AnyObject] = []) {
        self.from = from
        self.pieces = pieces
        self.owners = owners
    }

    /// The message's length.
    public var byteCount: Int { pieces.reduce(0) { $0 + $1.count } }
}

/// What one rank sent so far, in bytes and messages.
///
/// A message is one ``Outgoing``, also where its carrier splits it; one that a rank sends to itself counts.
public struct Traffic: Hashable, Sendable {
    /// Bytes sent through `exchange`.
    public var bytes = 0
    /// Messages sent through `exchange`.
    public var messages = 0
    /// Bytes this rank contributed to `allGather`.
    public var controlBytes = 0
    /// Calls of `allGather`.
    public var controlMessages = 0

    /// Nothing sent yet.
    public init() {}
}

/// A rank's connection to the ranks of its job.
///
/// Every rank calls the same collective operations in the same order; `exchange` calls match pair by pair.
public protocol Transport: AnyObject {
    /// This rank.
    var rank: Rank { get }
    /// How many ranks the job has.
    var size: Int { get }

    /// Posts all receives, then all sends, runs `work`, then waits for all.
    ///
    /// At most one message per ordered pair and call; the calls of a pair match in order. `work` calls its argument
    /// between units of work so that messages move: most carriers move none by themselves. The lengths of the two
    /// sides of a message agree by construction of the plan.
    /// - Throws: ``TransportError`` where a message has another length than its receive, where a pair appears twice
    ///   or a rank does not exist, and where a rank that owes a message has ended; the carrier's own error; and
    ///   whatever `work` throws, once the memory of the messages is no longer used. After an error the transport
    ///   is good for nothing but ending the job.
    func exchange(
        receive: [Incoming], send: [Outgoing], while work: (_ poll: () -> Void) throws -> Void
    ) throws

    /// Control traffic: every rank's bytes in rank order, of any lengths. Collective.
    func allGather(_ bytes: [UInt8]) throws -> [[UInt8]]

    /// What this rank sent so far.
    var traffic: Traffic { get }

    /// What is told when this rank did what; nil: nobody asks.
    var timeline: Timeline? { get set }

    /// Memory in which the ranks of a node see what each other writes: so many floats of this rank's. Collective over
    /// all ranks, each naming the ranks of its own node.
    /// - Throws: ``SharedMemoryRefused`` on all ranks, where the ranks of a node cannot have it; the carrier's own
    ///   error.
    func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory

    /// What tells the hosts apart that the ranks run on, in rank order. Collective.
    func hosts() throws -> [Int]

    /// The bytes that this host has left for shared memory; nil where there is no limit but that of all memory.
    var freeSharedMemory: Int? { get }
}

extension Transport {
    /// An exchange with nothing else to do meanwhile.
    public func exchange(receive: [Incoming], send: [Outgoing]) throws {
        try exchange(receive: receive, send: send, while: { _ in })
    }

    /// Returns once every rank has called it. Collective.
    public func barrier() throws { _ = try allGather([]) }

    /// Checks what every carrier demands of an exchange: ranks that exist, each pair once.
    package func validate(receive: [Incoming], send: [Outgoing]) throws(TransportError) {
        var seen = Set<Rank>()
        for message in receive {
            guard (0..<size).contains(message.from.index) else { throw .noSuchRank(message.from, size: size) }
            guard seen.insert(message.from).inserted else { throw .repeatedPair(from: message.from, to: rank) }
        }
        seen.removeAll(keepingCapacity: true)
        for message in send {
            guard (0..<size).contains(message.to.index) else { throw .noSuchRank(message.to, size: size) }
            guard seen.insert(message.to).inserted else { throw .repeatedPair(from: rank, to: message.to) }
        }
    }
}

/// What goes wrong between ranks, apart from the carrier's own errors.
public enum TransportError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A message has another length than its receive; the length is nil where the carrier does not tell it.
    case lengthMismatch(from: Rank, expected: Int, received: Int?)
    /// One exchange names an ordered pair twice.
    case repeatedPair(from: Rank, to: Rank)
    /// An exchange names a rank outside the job.
    case noSuchRank(Rank, size: Int)
    /// A rank ended with an error, described by `message`, and the job with it.
    case rankFailed(Rank, message: String)
    /// A rank ended without the message it owed.
    case missingMessage(from: Rank)
    /// Every rank left waits for another: the calls of the ranks do not match.
    case deadlock

    /// What went wrong, in one line.
    public var description: String {
        switch self {
        case .lengthMismatch(let from, let expected, let received):
            "rank \(from.index) sent \(received.map { "\($0) bytes" } ?? "another length") where \(expected) bytes were "
                + "expected"
        case .repeatedPair(let from, let to):
            "an exchange names the message from rank \(from.index) to rank \(to.index) twice"
        case .noSuchRank(let rank, let size):
            "an exchange names rank \(rank.index), and the job has \(size)"
        case .rankFailed(let rank, let message):
            "rank \(rank.index) failed: \(message)"
        case .missingMessage(let from):
            "rank \(from.index) ended without a message that it owed"
        case .deadlock:
            "every rank waits for a message that none will send"
        }
    }
}
