// JSON lines, to standard output as they come, or into a file that gets its name when all are there.

import Foundation
import RingAttention

/// Where the lines of a job go. All its functions are collective.
final class LineOutput {
    private let session: Session
    private let file: ParallelFile?
    private var nextByte = 0

    /// - Parameter path: the file; nil is standard output.
    init(_ path: String?, force: Bool, _ session: Session) throws {
        self.session = session
        file = try path.map { try ParallelFile.create($0, force: force, transport: session.transport) }
    }

    /// Writes rank 0's lines at once.
    func write(_ lines: String) throws {
        session.watchdog.progress(.writing)
        guard let file else { return try session.agree { try session.printLines(lines) } }
        try Array(lines.utf8).withUnsafeBytes { try file.write(session.isRoot && !$0.isEmpty ? [(nextByte, $0)] : []) }
        nextByte += lines.utf8.count
    }

    /// Gives the file its name.
    func finish() throws { try file?.commit() }
}
