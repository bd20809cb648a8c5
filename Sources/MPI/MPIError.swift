// The error of a failed MPI call: code, class, operation and the library's own message.

import CMPI

/// A failed MPI call.
///
/// Communicators made by this module have `MPI_ERRORS_RETURN` set, so that a failure comes back as
/// this value instead of ending the process (MPI 3.1 §8.3).
public struct MPIError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The class of an error, the portable part of its code (MPI 3.1 §8.4).
    public struct Class: RawRepresentable, Hashable, Sendable {
        /// The number that this MPI library gives the class; another may give it another.
        public let rawValue: Int32
        /// The class that has this number in this MPI library.
        public init(rawValue: Int32) { self.rawValue = rawValue }
    }

    /// The code the call returned; its meaning is the implementation's.
    public let code: Int32
    /// The portable class of the code. The corresponding C function is `MPI_Error_class`.
    public let errorClass: Class
    /// The C function that failed, for example `MPI_Isend`.
    public let operation: String
    /// What the library says about the code. The corresponding C function is `MPI_Error_string`.
    public let message: String

    /// The C function that failed, and what the library says.
    public var description: String { "\(operation): \(message)" }

    /// Wraps the code that a call of `operation` returned.
    init(code: Int32, operation: String) {
        var errorClass: Int32 = code
        if cmpi_error_class(code, &errorClass) != cmpi_success() { errorClass = code }
        let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1024) { text in
            text.initialize(repeating: 0)
            _ = cmpi_error_string(code, text.baseAddress, 1024)
            return String(cString: text.baseAddress!)
        }
        self.init(
            code: code, errorClass: Class(rawValue: errorClass), operation: operation,
            message: text.isEmpty ? "error code \(code)" : text)
    }

    /// An error found by this module, not by a call.
    init(_ errorClass: Class, operation: String, message: String) {
        self.init(code: errorClass.rawValue, errorClass: errorClass, operation: operation, message: message)
    }

    private init(code: Int32, errorClass: Class, operation: String, message: String) {
        self.code = code
        self.errorClass = errorClass
        self.operation = operation
        self.message = message
    }
}

extension MPIError.Class {
    /// An invalid buffer pointer. The corresponding C constant is `MPI_ERR_BUFFER`.
    public static var buffer: Self { Self(rawValue: cmpi_err_buffer()) }
    /// An invalid count. The corresponding C constant is `MPI_ERR_COUNT`.
    public static var count: Self { Self(rawValue: cmpi_err_count()) }
    /// An invalid datatype. The corresponding C constant is `MPI_ERR_TYPE`.
    public static var datatype: Self { Self(rawValue: cmpi_err_type()) }
    /// An invalid tag. The corresponding C constant is `MPI_ERR_TAG`.
    public static var tag: Self { Self(rawValue: cmpi_err_tag()) }
    /// An invalid communicator. The corresponding C constant is `MPI_ERR_COMM`.
    public static var communicator: Self { Self(rawValue: cmpi_err_comm()) }
    /// An invalid rank. The corresponding C constant is `MPI_ERR_RANK`.
    public static var rank: Self { Self(rawValue: cmpi_err_rank()) }
    /// An invalid request. The corresponding C constant is `MPI_ERR_REQUEST`.
    public static var request: Self { Self(rawValue: cmpi_err_request()) }
    /// A message of another size than its receive. The corresponding C constant is `MPI_ERR_TRUNCATE`.
    public static var truncate: Self { Self(rawValue: cmpi_err_truncate()) }
    /// No memory left inside the library. The corresponding C constant is `MPI_ERR_NO_MEM`.
    public static var noMemory: Self { Self(rawValue: cmpi_err_no_mem()) }
    /// A known error outside this list. The corresponding C constant is `MPI_ERR_OTHER`.
    public static var other: Self { Self(rawValue: cmpi_err_other()) }
    /// An error inside the library. The corresponding C constant is `MPI_ERR_INTERN`.
    public static var `internal`: Self { Self(rawValue: cmpi_err_intern()) }
}

/// Throws what a call of `operation` returned, unless it succeeded.
@inline(__always)
func check(_ code: Int32, _ operation: @autoclosure () -> String) throws(MPIError) {
    if code != cmpi_success() { throw MPIError(code: code, operation: operation()) }
}
