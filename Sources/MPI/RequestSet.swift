// Non-blocking messages under way, completed together.

import CMPI

/// Non-blocking sends and receives under way, on memory that the caller vouches for.
///
/// This is the foundation of the safe forms (``PendingSend``, ``PendingReceive``,
/// ``Communicator/exchange(sending:to:receiving:from:tag:while:)``); use it directly only where memory is laid out by
/// other means. The memory handed over must stay valid and untouched until ``waitAll(onReceive:)`` returns or
/// the set is gone.
///
/// A message of several segments is gathered from them, or scattered to them, without a copy. One at or above
/// the limit travels in parts that are matched in order; an empty one travels as an empty message.
public struct RequestSet: ~Copyable {
    /// A receive that has completed.
    public struct Arrival: Sendable {
        /// What `receive` returned when this was posted.
        public let token: Int
        /// The rank it came from.
        public let source: Int
        /// The tag it was sent with.
        public let tag: Tag
        /// Bytes expected by this part of the message.
        public let expected: Int
        /// Bytes that came. A shorter message than its receive differs here; a longer one is an error of the
        /// library's or, with Open MPI 4.1 and a receive posted before the message came, cut without a word.
        public let bytes: Int
        /// Whether this is the last part of a message on the receiver's side but not on the sender's, or the
        /// other way round.
        public let isMisplaced: Bool

        /// Whether the part is known to have another length than its receive.
        public var isMismatch: Bool { bytes != expected || isMisplaced }
    }

    /// The largest part of a message, in bytes: below 1 GiB, so that every count fits an `int` with room to spare.
    public static let partLimit = (1 << 30) - (1 << 16)

    private struct Expectation {
        var token: Int
        var bytes: Int
        var isLast: Bool
    }

    private let partLimit: Int
    private var requests: [cmpi_request] = []
    // Parallel to `requests`; nil for a send.
    private var expectations: [Expectation?] = []
    private var indices: [Int32] = []
    private var statuses: [MPI_Status] = []

    /// How many requests are still under way.
    public private(set) var active = 0

    /// - Parameter partLimit: the largest part of a message in bytes; both sides of a message must agree on it.
    public init(partLimit: Int = RequestSet.partLimit) {
        precondition(
            partLimit > 0 && partLimit <= RequestSet.partLimit, "a part has 1 ... \(RequestSet.partLimit) bytes")
        self.partLimit = partLimit
    }

    deinit {
        // The library may still read or write the caller's memory, which is about to be reused: so nothing may
        // be left under way. A receive can always be taken back. A send in general cannot, and is waited for.
        var requests = requests
        for index in requests.indices where cmpi_request_is_null(requests[index]) == 0 {
            if expectations[index] != nil { _ = cmpi_cancel(&requests[index]) }
            var status = MPI_Status()
            _ = cmpi_wait(&requests[index], &status)
            OpenHandles.requests.free()
        }
    }

    /// Starts a message gathered from `segments` in order.
    /// The corresponding C functions are `MPI_Isend` (MPI 3.1 §3.7.2) and, for several segments,
    /// `MPI_Type_create_hindexed` (§4.1.2).
    public mutating func send(
        _ segments: [UnsafeRawBufferPointer], to rank: Int, tag: Tag, over communicator: borrowing Communicator
    ) throws(MPIError) {
        let rank = communicator.checkedRank(rank)
        let parts = Self.split(segments, limit: partLimit)
        for (index, part) in parts.enumerated() {
            let tag = index == parts.count - 1 ? tag.final : tag.leading
            let layout = try PartLayout(part)
            var request = cmpi_request_null()
            try check(
                cmpi_isend(layout.origin, layout.count, layout.datatype, rank, tag, communicator.handle, &request),
                "MPI_Isend")
            append(request, nil)
        }
    }

    /// Starts the receive of a message scattered to `segments` in order, whose lengths must add up to its length.
    /// Without a tag it takes the next message of `rank`, whatever its tag.
    /// The corresponding C functions are `MPI_Irecv` (MPI 3.1 §3.7.2) and, for several segments,
    /// `MPI_Type_create_hindexed` (§4.1.2).
    public mutating func receive(
        _ segments: [UnsafeMutableRawBufferPointer], from rank: Int, tag: Tag?, token: Int = 0,
        over communicator: borrowing Communicator
    ) throws(MPIError) {
        let rank = communicator.checkedRank(rank)
        let parts = Self.split(segments.map { UnsafeRawBufferPointer($0) }, limit: partLimit)
        for (index, part) in parts.enumerated() {
            let isLast = index == parts.count - 1
            let tag = tag.map { isLast ? $0.final : $0.leading } ?? cmpi_any_tag()
            let layout = try PartLayout(part)
            var request = cmpi_request_null()
            try check(
                cmpi_irecv(layout.origin, layout.count, layout.datatype, rank, tag, communicator.handle, &request),
                "MPI_Irecv")
            append(request, Expectation(token: token, bytes: part.reduce(0) { $0 + $1.count }, isLast: isLast))
        }
    }

    /// Moves messages along and tells which receives completed. Returns whether nothing is under way any more.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5).
    @discardableResult
    public mutating func test(onReceive: (Arrival) -> Void = { _ in }) throws(MPIError) -> Bool {
        guard active > 0 else { return true }
        // A library may forget to say MPI_ERR_IN_STATUS where a later request of the same call succeeded (Open MPI
        // 4.1), and may leave the field alone on success (MPICH): so it is preset, and always read.
        for slot in statuses.indices { statuses[slot].MPI_ERROR = cmpi_success() }
        var completed: Int32 = 0
        let code = cmpi_testsome(Int32(requests.count), &requests, &completed, &indices, &statuses)
        if code != cmpi_err_in_status() { try check(code, "MPI_Testsome") }
        guard completed != cmpi_undefined() else {
            ended(active)
            return true
        }
        var failure: MPIError?
        for slot in 0..<Int(completed) {
            ended(1)
            if statuses[slot].MPI_ERROR != cmpi_success() {
                failure = failure ?? MPIError(code: statuses[slot].MPI_ERROR, operation: "MPI_Testsome")
                // A request that failed may be left allocated; it is complete, and must not be reported again.
                let index = Int(indices[slot])
                if cmpi_request_is_null(requests[index]) == 0 { _ = cmpi_request_free(&requests[index]) }
                continue
            }
            guard let expectation = expectations[Int(indices[slot])] else { continue }
            var bytes: Int32 = 0
            let code = cmpi_get_count(&statuses[slot], &bytes)
            if code != cmpi_success() {
                failure = failure ?? MPIError(code: code, operation: "MPI_Get_count")
                continue
            }
            let (tag, isLast) = Tag.parse(statuses[slot].MPI_TAG)
            onReceive(
                Arrival(
                    token: expectation.token, source: Int(statuses[slot].MPI_SOURCE), tag: tag,
                    expected: expectation.bytes, bytes: Int(bytes), isMisplaced: isLast != expectation.isLast))
        }
        if let failure { throw failure }
        return active == 0
    }

    /// Waits until nothing is under way, giving the core to others between tests.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5), repeated: `MPI_Waitall` would hold the
    /// core from the threads it waits for where there are more ranks than cores.
    public mutating func waitAll(onReceive: (Arrival) -> Void = { _ in }) throws(MPIError) {
        while try !test(onReceive: onReceive) { yieldCore() }
    }

    /// Takes back the receives still under way; sends are left as they are.
    /// The corresponding C function is `MPI_Cancel` (MPI 3.1 §3.8.4).
    public mutating func cancelReceives() {
        for index in requests.indices
        where expectations[index] != nil && cmpi_request_is_null(requests[index]) == 0 {
            var status = MPI_Status()
            _ = cmpi_cancel(&requests[index])
            _ = cmpi_wait(&requests[index], &status)
            ended(1)
        }
    }

    /// Lets go of the sends still under way without waiting for them. For a process that is about to abort the
    /// job only: the library may read their memory until then.
    /// The corresponding C function is `MPI_Request_free` (MPI 3.1 §3.7.3).
    public mutating func abandonSends() {
        for index in requests.indices
        where expectations[index] == nil && cmpi_request_is_null(requests[index]) == 0 {
            _ = cmpi_request_free(&requests[index])
            ended(1)
        }
    }

    /// Forgets completed requests, so that the set's memory serves the next messages.
    /// - Precondition: nothing is under way.
    public mutating func removeAll() {
        precondition(active == 0, "messages are still under way")
        requests.removeAll(keepingCapacity: true)
        expectations.removeAll(keepingCapacity: true)
    }

    private mutating func append(_ request: cmpi_request, _ expectation: Expectation?) {
        requests.append(request)
        expectations.append(expectation)
        if indices.count < requests.count {
            indices.append(0)
            statuses.append(MPI_Status())
        }
        active += 1
        OpenHandles.requests.make()
    }

    /// So many requests are no longer under way.
    private mutating func ended(_ count: Int) {
        active -= count
        OpenHandles.requests.free(count)
    }

    /// The segments cut into parts of at most `limit` bytes; an empty message is one empty part.
    static func split(_ segments: [UnsafeRawBufferPointer], limit: Int) -> [[UnsafeRawBufferPointer]] {
        var parts: [[UnsafeRawBufferPointer]] = [[]]
        var room = limit
        for segment in segments where !segment.isEmpty {
            var rest = segment[...]
            while !rest.isEmpty {
                if room == 0 {
                    parts.append([])
                    room = limit
                }
                let count = min(room, rest.count)
                parts[parts.count - 1].append(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
                room -= count
                rest = rest.dropFirst(count)
            }
        }
        return parts
    }
}
