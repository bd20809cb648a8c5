// What ends a job early: a status for the shell and a message for its user.

import Foundation
import RingAttention
import Tiles

/// The statuses a job leaves with.
enum ExitStatus: Int32, Sendable {
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

/// An error that knows the status it ends a job with. Errors that do not conform end it with `internal`.
protocol ExitStatusProviding: Error {
    var exitStatus: ExitStatus { get }
}

/// An error in words, with a status. The message names the file, tensor, byte or line, and what to do.
struct JobError: ExitStatusProviding, Equatable, CustomStringConvertible {
    var status: ExitStatus
    var message: String

    init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    /// Any error, as the status and the words it ends a job with.
    init(_ error: any Error) {
        if let error = error as? JobError {
            self = error
        } else {
            self.init((error as? any ExitStatusProviding)?.exitStatus ?? .internal, "\(error)")
        }
    }

    var exitStatus: ExitStatus { status }
    var description: String { message }
}

/// An error that every rank knows of: all leave with it in good order, and one of them says so.
struct AgreedFailure: ExitStatusProviding, Equatable, CustomStringConvertible {
    let status: ExitStatus
    let message: String

    var exitStatus: ExitStatus { status }
    var description: String { message }
}

/// The agreement on whether all ranks may go on.
enum Failure {
    /// Every rank's value, or the same error on all of them where any failed. Collective: every rank reaches it.
    ///
    /// The error is that of the lowest rank that failed. Its message names the rank and host where the ranks differ.
    /// - Throws: ``AgreedFailure``; the transport's error.
    static func agree<Value>(_ transport: any Transport, _ result: Result<Value, any Error>) throws -> Value {
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
    static func agree<Value>(_ transport: any Transport, _ work: () throws -> Value) throws -> Value {
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
enum LocalHost {
    /// Its name, as its users know it. The corresponding C function is `gethostname`.
    static let name: String = {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }()
}
