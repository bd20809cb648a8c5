// Messages that own their buffer while under way, and hand it back when complete.

extension Communicator {
    /// Starts sending `buffer`, which the returned request owns until ``PendingSend/wait()`` gives it back.
    /// The corresponding C function is `MPI_Isend` (MPI 3.1 §3.7.2).
    /// - Precondition: `rank` is one of this communicator's.
    public func send<Element: BitwiseCopyable>(
        _ buffer: consuming Buffer<Element>, to rank: Int, tag: Tag
    ) throws(MPIError) -> PendingSend<Element> {
        var requests = RequestSet()
        try requests.send([UnsafeRawBufferPointer(buffer.bytes)], to: rank, tag: tag, over: self)
        return PendingSend(requests: requests, buffer: buffer)
    }

    /// Starts receiving into `buffer`, which the returned request owns until ``PendingReceive/wait()`` gives it back.
    /// The corresponding C function is `MPI_Irecv` (MPI 3.1 §3.7.2).
    /// - Precondition: `rank` is one of this communicator's.
    public func receive<Element: BitwiseCopyable>(
        into buffer: consuming Buffer<Element>, from rank: Int, tag: Tag
    ) throws(MPIError) -> PendingReceive<Element> {
        var requests = RequestSet()
        try requests.receive([buffer.bytes], from: rank, tag: tag, over: self)
        return PendingReceive(requests: requests, buffer: buffer)
    }
}

/// A send under way. Dropping it waits for the message, because the library reads the buffer until then.
public struct PendingSend<Element: BitwiseCopyable>: ~Copyable {
    private var requests: RequestSet
    private var buffer: Buffer<Element>?

    init(requests: consuming RequestSet, buffer: consuming Buffer<Element>) {
        self.requests = requests
        self.buffer = consume buffer
    }

    deinit {
        // Fields go after this body: waiting here is what keeps the buffer alive for as long as the library reads
        // it. An error leaves nothing under way and has nobody to be reported to.
        var requests = requests
        try? requests.waitAll()
    }

    /// Moves the message along. Returns whether it is complete.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5).
    public mutating func test() throws(MPIError) -> Bool { try requests.test() }

    /// Waits for the message and gives the buffer back.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5), repeated.
    public consuming func wait() throws(MPIError) -> Buffer<Element> {
        try requests.waitAll()
        return buffer.take()!
    }
}

/// A receive under way. Dropping it takes the receive back, because the library would write the buffer after it
/// is gone.
public struct PendingReceive<Element: BitwiseCopyable>: ~Copyable {
    private var requests: RequestSet
    private var buffer: Buffer<Element>?
    private var mismatch: RequestSet.Arrival?

    init(requests: consuming RequestSet, buffer: consuming Buffer<Element>) {
        self.requests = requests
        self.buffer = consume buffer
    }

    deinit {
        // Fields go after this body: taking the receive back here is what keeps the buffer alive for as long as
        // the library may write it.
        var requests = requests
        requests.cancelReceives()
    }

    /// Moves the message along. Returns whether it is complete.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5).
    public mutating func test() throws(MPIError) -> Bool {
        var mismatch = mismatch
        let done = try requests.test { if $0.isMismatch { mismatch = $0 } }
        self.mismatch = mismatch
        return done
    }

    /// Waits for the message and gives the buffer, filled, back.
    /// The corresponding C function is `MPI_Testsome` (MPI 3.1 §3.7.5), repeated.
    /// - Throws: `MPIError` of class ``MPIError/Class/truncate`` where the message is shorter than the buffer, or
    ///   longer and the library says so (see ``RequestSet/Arrival/bytes``).
    public consuming func wait() throws(MPIError) -> Buffer<Element> {
        while try !test() {
            if mismatch != nil { break }
            yieldCore()
        }
        if let mismatch { throw MPIError(lengthOf: mismatch) }
        return buffer.take()!
    }
}

extension MPIError {
    init(lengthOf arrival: RequestSet.Arrival) {
        self.init(
            .truncate, operation: "MPI_Irecv",
            message: "rank \(arrival.source) sent \(arrival.bytes) bytes where \(arrival.expected) were expected")
    }
}
