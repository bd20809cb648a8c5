// A send and a receive that borrow their buffers for the length of a scope.

extension Communicator {
    /// Sends `outgoing` and receives `incoming` while `body` runs, then waits for both.
    ///
    /// While `body` runs the compiler forbids it to touch `incoming` and to write `outgoing`: the one is lent for
    /// writing, the other for reading. `body` calls its argument now and then so that the messages move, since few
    /// MPI libraries move them by themselves.
    /// The corresponding C functions are `MPI_Irecv` and `MPI_Isend` (MPI 3.1 §3.7.2).
    /// - Throws: `MPIError`, of class ``MPIError/Class/truncate`` where the message received is shorter than
    ///   `incoming`, or longer and the library says so; whatever `body` throws, once the messages no longer use the
    ///   buffers.
    /// - Precondition: both ranks are this communicator's.
    public func exchange<Out: BitwiseCopyable, In: BitwiseCopyable>(
        sending outgoing: borrowing Buffer<Out>, to destination: Int,
        receiving incoming: inout Buffer<In>, from source: Int, tag: Tag,
        while body: (_ poll: () throws(MPIError) -> Void) throws -> Void
    ) throws {
        // On any way out the set's deinit leaves nothing under way before the loans end.
        var requests = RequestSet()
        var mismatch: RequestSet.Arrival?
        try requests.receive([incoming.bytes], from: source, tag: tag, over: self)
        try requests.send([UnsafeRawBufferPointer(outgoing.bytes)], to: destination, tag: tag, over: self)
        try body { () throws(MPIError) in
            try requests.test { if $0.isMismatch { mismatch = $0 } }
        }
        while try !requests.test(onReceive: { if $0.isMismatch { mismatch = $0 } }) {
            if mismatch != nil { break }
            yieldCore()
        }
        if let mismatch { throw MPIError(lengthOf: mismatch) }
    }
}
