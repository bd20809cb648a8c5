// Memory that the ranks of one node read and write directly.

import CMPI

/// A segment of memory for each rank of a communicator, which all of its ranks see (MPI 3.1 §11.2.3).
///
/// Who writes where and when is the caller's to order: nothing here does. Ranks on hosts of their own cannot make one.
public struct SharedWindow: ~Copyable, Sendable {
    private var handle: cmpi_window
    /// Each rank's segment: its place, an integer so that any thread may be handed it, and its bytes.
    private let places: [(address: UInt, byteCount: Int)]

    /// Each rank's segment.
    public var segments: [UnsafeMutableRawBufferPointer] {
        places.map { UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: $0.address), count: $0.byteCount) }
    }

    /// Makes the segments, this rank's of so many bytes. Collective.
    /// The corresponding C functions are `MPI_Win_allocate_shared` (MPI 3.1 §11.2.3), `MPI_Win_shared_query` and
    /// `MPI_Win_lock_all` (§11.5.3), which opens the memory to direct reading and writing.
    public init(byteCount: Int, over communicator: borrowing Communicator) throws(MPIError) {
        precondition(byteCount >= 0)
        var handle = cmpi_window_null()
        var base: UnsafeMutableRawPointer?
        try check(cmpi_win_allocate_shared(byteCount, communicator.handle, &base, &handle), "MPI_Win_allocate_shared")
        OpenHandles.windows.make()
        try check(cmpi_win_return_errors(handle), "MPI_Win_set_errhandler")
        var places: [(address: UInt, byteCount: Int)] = []
        for rank in 0..<communicator.size {
            var (bytes, unit): (MPI_Aint, Int32) = (0, 0)
            var start: UnsafeMutableRawPointer?
            try check(cmpi_win_shared_query(handle, Int32(rank), &bytes, &unit, &start), "MPI_Win_shared_query")
            places.append((UInt(bitPattern: start), bytes))
        }
        try check(cmpi_win_lock_all(handle), "MPI_Win_lock_all")
        self.handle = handle
        self.places = places
    }

    /// Gives the memory back. Collective.
    /// The corresponding C functions are `MPI_Win_unlock_all` and `MPI_Win_free` (MPI 3.1 §11.5.3, §11.2.5).
    public consuming func free() throws(MPIError) {
        try check(cmpi_win_unlock_all(handle), "MPI_Win_unlock_all")
        try check(cmpi_win_free(&handle), "MPI_Win_free")
        OpenHandles.windows.free()
    }
}
