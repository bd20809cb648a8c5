// JSON lines, to standard output as they come, or into a file that gets its name when all are there.

import Foundation
import RingAttention

/// Where the lines of a job go.
package enum LineDestination: Sendable {
    case file(OutputFile)
    /// Rank 0 hands them on at once.
    case stream(@Sendable (String) throws -> Void)
}

/// Writes lines. All its functions are collective.
package final class LineOutput {
    private let session: Session
    private let file: ParallelFile?
    private let write: @Sendable (String) throws -> Void
    private var nextByte = 0

    package init(_ destination: LineDestination, _ session: Session) throws {
        self.session = session
        switch destination {
        case .file(let output):
            file = try ParallelFile.create(output.path, force: output.mayReplace, transport: session.transport)
            write = { _ in }
        case .stream(let write):
            file = nil
            self.write = write
        }
    }

    /// Writes rank 0's lines at once.
    package func write(_ lines: String) throws {
        session.monitor.progress(.writing)
        guard let file else { return try session.agree { if session.isRoot { try write(lines) } } }
        try Array(lines.utf8).withUnsafeBytes { try file.write(session.isRoot && !$0.isEmpty ? [(nextByte, $0)] : []) }
        nextByte += lines.utf8.count
    }

    /// Gives the file its name.
    package func finish() throws { try file?.commit() }
}
