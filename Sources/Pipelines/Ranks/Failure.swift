// What ends a job early: a status for the shell and a message for its user.

import Attention
import Files
import Foundation
import RingAttention
import Tiles

/// The statuses that a job leaves with, as `sysexits.h` has them.
public enum ExitStatus: Int32, Sendable {
    /// All is done.
    case done = 0
    /// The command line is wrong.
    case usage = 64
    /// A model or an input is wrong.
    case badInput = 65
    /// A file is missing.
    case missingFile = 66
    /// A fault of the program, or a job that was ended because it no longer moved.
    case `internal` = 70
    /// The job would need more memory than there is.
    case memory = 71
    /// An output cannot be created.
    case cannotCreate = 73
    /// An output cannot be written.
    case cannotWrite = 74
    /// Interrupted, and can be resumed.
    case interrupted = 75
    /// The environment is wrong: the launcher, MPI, the machine.
    case environment = 78
}

/// An error in words, with a status. The message names the file, tensor, byte or line, and what to do.
public struct JobError: Error, Equatable, CustomStringConvertible {
    /// The class of error, and the status that a process ends with for it.
    public var status: ExitStatus
    /// One line, ready to be shown to whoever started the program.
    public var message: String

    package init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    /// Any error, as the status and the words it ends a job with.
    package init(_ error: any Error) {
        switch error {
        case let error as JobError: self = error
        case let error as AgreedFailure: self.init(error.status, error.message)
        case let error as FileError: self.init(ExitStatus(rawValue: error.exitStatus) ?? .internal, error.description)
        case let error as MaskSyntaxError: self.init(.usage, error.description)
        default: self.init(.internal, "\(error)")
        }
    }

    /// The message, without the status.
    public var description: String { message }
}

/// An error that every rank knows of: all leave with it in good order, and one of them says so.
package struct AgreedFailure: Error, Equatable, CustomStringConvertible {
    package let status: ExitStatus
    package let message: String

    package init(status: ExitStatus, message: String) {
        self.status = status
        self.message = message
    }

    package var description: String { message }
}

/// The agreement on whether all ranks may go on.
package enum Failure {
    /// Every rank's value, or the same error on all of them where any failed. Collective: every rank reaches it.
    ///
    /// The error is that of the lowest rank that failed. Its message names the rank and host where the ranks differ.
    /// - Throws: ``AgreedFailure``; the transport's error.
    package static func agree<Value>(_ transport: any Transport, _ result: Result<Value, any Error>) throws -> Value {
        if case .failure(let error) = result, error is AgreedFailure || error is TransportError { throw error }
        var mine: [UInt8] = []
        if case .failure(let error) = result {
            let error = JobError(error)
            let host = Array(LocalHost.name.utf8)
            mine = [UInt8(error.status.rawValue), UInt8(clamping: host.count)] + host.prefix(255)
            mine += Array(error.message.utf8)
        }
        let all = try transport.allGather(mine)
        guard let lowest = all.firstIndex(where: { !$0.isEmpty }) else { return try result.get() }
        let reports = all.map(Report.init)
        let first = reports[lowest]!
        let isCommon = reports.allSatisfy { $0?.status == first.status && $0?.message == first.message }
        throw AgreedFailure(
            status: first.status,
            message: isCommon ? first.message : "\(first.message) (rank \(lowest) on \(first.host))")
    }

    /// Runs `work` on every rank and agrees on its outcome. Collective.
    package static func agree<Value>(_ transport: any Transport, _ work: () throws -> Value) throws -> Value {
        try agree(transport, Result(catching: work))
    }

    private struct Report {
        let status: ExitStatus
        let host: String
        let message: String

        init?(_ bytes: [UInt8]) {
            guard bytes.count >= 2, let status = ExitStatus(rawValue: Int32(bytes[0])) else { return nil }
            let hostEnd = min(2 + Int(bytes[1]), bytes.count)
            self.status = status
            host = String(decoding: bytes[2..<hostEnd], as: UTF8.self)
            message = String(decoding: bytes[hostEnd...], as: UTF8.self)
        }
    }
}

/// The machine this process runs on.
package enum LocalHost {
    /// Its name, as its users know it. The corresponding C function is `gethostname`.
    package static let name: String = {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }()
}
