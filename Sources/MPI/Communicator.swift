// A group of processes that can talk to each other, freed once.

import CMPI

/// A group of ranks with a space of messages of its own (MPI 3.1 §6).
///
/// The world communicator is only ever lent by ``MPIEnvironment/run(threadSupport:_:)``, so it cannot be
/// freed or outlive its scope. Others are owned and freed once, when their owner lets go; since freeing is
/// collective, every rank should let go at the same point of the program.
/// A communicator may be used from several threads where the environment runs with
/// ``ThreadSupport/multiple``; with less, the limits of MPI 3.1 §12.4.3 are the caller's to keep.
public struct Communicator: ~Copyable, Sendable {
    let handle: cmpi_communicator
    private let isOwned: Bool

    /// This process's number within the communicator, in 0 ..< ``size``.
    /// The corresponding C function is `MPI_Comm_rank` (MPI 3.1 §6.4.1), called once.
    public let rank: Int
    /// How many processes the communicator has. The corresponding C function is `MPI_Comm_size`
    /// (MPI 3.1 §6.4.1), called once.
    public let size: Int

    init(world handle: cmpi_communicator) throws(MPIError) {
        try self.init(handle: handle, isOwned: false)
    }

    private init(handle: cmpi_communicator, isOwned: Bool) throws(MPIError) {
        var rank: Int32 = 0
        var size: Int32 = 0
        try check(cmpi_comm_return_errors(handle), "MPI_Comm_set_errhandler")
        try check(cmpi_comm_rank(handle, &rank), "MPI_Comm_rank")
        try check(cmpi_comm_size(handle, &size), "MPI_Comm_size")
        self.handle = handle
        self.isOwned = isOwned
        self.rank = Int(rank)
        self.size = Int(size)
        if isOwned { OpenHandles.communicators.make() }
    }

    deinit {
        // After MPI_Finalize the library has freed everything, and calling it would be an error. A failure
        // here has nobody to be reported to: the communicator is gone either way.
        if isOwned && MPIEnvironment.isRunning {
            var handle = handle
            if cmpi_comm_free(&handle) == cmpi_success() { OpenHandles.communicators.free() }
        }
    }

    /// A communicator of the same ranks whose messages never mix with this one's. Collective.
    /// The corresponding C function is `MPI_Comm_dup` (MPI 3.1 §6.4.2).
    public func duplicate() throws(MPIError) -> Communicator {
        var copy = cmpi_comm_null()
        try check(cmpi_comm_dup(handle, &copy), "MPI_Comm_dup")
        return try Communicator(handle: copy, isOwned: true)
    }

    /// The communicator of the ranks that share memory with this one, in this one's order. Collective.
    /// The corresponding C function is `MPI_Comm_split_type` with `MPI_COMM_TYPE_SHARED` (MPI 3.1 §6.4.2).
    public func splitBySharedMemory() throws(MPIError) -> Communicator {
        var part = cmpi_comm_null()
        try check(cmpi_comm_split_shared(handle, Int32(rank), &part), "MPI_Comm_split_type")
        return try Communicator(handle: part, isOwned: true)
    }

    /// The communicator of the ranks that name the same `color`, ordered by `key`, then by rank. Collective.
    /// The corresponding C function is `MPI_Comm_split` (MPI 3.1 §6.4.2).
    /// - Precondition: `color` is not negative.
    public func split(color: Int, key: Int = 0) throws(MPIError) -> Communicator {
        precondition(color >= 0 && color <= Int(Int32.max), "a color is a non-negative 32-bit number")
        var part = cmpi_comm_null()
        try check(cmpi_comm_split(handle, Int32(color), Int32(clamping: key), &part), "MPI_Comm_split")
        return try Communicator(handle: part, isOwned: true)
    }

    /// Traps unless `rank` is one of this communicator's: a wrong one is a mistake of the program.
    func checkedRank(_ rank: Int) -> Int32 {
        precondition(rank >= 0 && rank < size, "rank \(rank) is outside 0 ..< \(size)")
        return Int32(rank)
    }
}

/// What tells the messages between two ranks of one communicator apart (MPI 3.1 §3.2.3).
public struct Tag: Hashable, Sendable, ExpressibleByIntegerLiteral {
    /// Half of what the standard guarantees: the other half marks the leading parts of a split message.
    public static let range = 0..<16384

    /// The number that messages carry, within ``range``.
    public let value: Int

    /// - Precondition: `value` is within ``range``; another is a mistake of the program and traps.
    public init(_ value: Int) {
        precondition(Tag.range.contains(value), "tag \(value) is outside \(Tag.range)")
        self.value = value
    }

    /// A tag written as a number.
    /// - Precondition: `value` is within ``range``.
    public init(integerLiteral value: Int) { self.init(value) }

    /// The tag of the last part of a message, or of a message that travels whole.
    var final: Int32 { Int32(value) }
    /// The tag of every other part, so that a message of another length than its receive cannot pass as it.
    var leading: Int32 { Int32(value + Tag.range.count) }

    /// The tag that a part travelled under, and whether it was the last part of its message.
    static func parse(_ value: Int32) -> (tag: Tag, isLast: Bool) {
        let count = range.count
        return (Tag(Int(value) & (count - 1)), Int(value) < count)
    }
}
