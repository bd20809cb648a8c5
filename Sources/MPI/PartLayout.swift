// Where the bytes of one part of a message lie, as MPI wants to be told.

import CMPI

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Origin, count and datatype of one part of a message. A single segment is plain bytes; several are an
/// indexed datatype of absolute addresses (MPI 3.1 §4.1.2, §4.1.12).
struct PartLayout: ~Copyable {
    let origin: UnsafeMutableRawPointer?
    let count: Int32
    private(set) var datatype: cmpi_datatype
    private let isDerived: Bool

    /// Segments are not empty and hold less than 1 GiB together.
    init(_ segments: [UnsafeRawBufferPointer]) throws(MPIError) {
        guard segments.count > 1 else {
            // The const is cast away for the C interface of receives; a send's memory is never written.
            origin = segments.first.flatMap { UnsafeMutableRawPointer(mutating: $0.baseAddress) }
            count = Int32(segments.first?.count ?? 0)
            datatype = cmpi_byte()
            isDerived = false
            return
        }
        var addresses: [MPI_Aint] = []
        for segment in segments {
            var address = MPI_Aint()
            try check(cmpi_get_address(segment.baseAddress, &address), "MPI_Get_address")
            addresses.append(address)
        }
        var made = cmpi_byte()
        try check(
            cmpi_type_create_hindexed(Int32(segments.count), segments.map { Int32($0.count) }, addresses, &made),
            "MPI_Type_create_hindexed")
        let code = cmpi_type_commit(&made)
        if code != cmpi_success() {
            _ = cmpi_type_free(&made)
            throw MPIError(code: code, operation: "MPI_Type_commit")
        }
        origin = cmpi_bottom()
        count = 1
        datatype = made
        isDerived = true
        OpenHandles.datatypes.make()
    }

    deinit {
        // A datatype may be freed as soon as the call that uses it has returned: the library keeps it until the
        // message is complete (MPI 3.1 §4.1.9).
        if isDerived {
            var datatype = datatype
            if cmpi_type_free(&datatype) == cmpi_success() { OpenHandles.datatypes.free() }
        }
    }
}

/// Lets another thread or process have the core.
func yieldCore() { _ = sched_yield() }
