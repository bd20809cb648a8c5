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
    /// The job that is saved as it goes on, if it is.
    let job: ResumableJob?
    /// How many documents were done before; as many as there may be where nothing is left to do.
    let documentsBefore: Int
    private let write: @Sendable (String) throws -> Void
    private var nextByte = 0

    package init(_ destination: LineDestination, _ session: Session) throws {
        self.session = session
        switch destination {
        case .file(let output):
            write = { _ in }
            guard let request = output.resume else {
                file = try ParallelFile.create(output.path, force: output.mayReplace, transport: session.transport)
                (job, documentsBefore) = (nil, 0)
                return
            }
            job = try ResumableJob.begin(output, request, session)
            file = job?.file
            documentsBefore = job?.documents ?? .max
            guard let job else { return }
            try job.continueLines()
            nextByte = job.lineBytes
        case .stream(let write):
            (file, job, documentsBefore) = (nil, nil, 0)
            self.write = write
        }
    }

    /// Writes rank 0's lines at once.
    package func write(_ lines: String) throws {
        session.monitor.progress(.writing)
        guard let file else { return try session.agree { if session.isRoot { try write(lines) } } }
        try Array(lines.utf8).withUnsafeBytes {
            try file.write(session.isRoot && !$0.isEmpty ? [(nextByte, $0)] : [])
            job?.note(lines: $0)
        }
        nextByte += lines.utf8.count
    }

    /// Gives the file its name.
    package func finish() throws { if let job { try job.finish() } else { try file?.commit() } }
}
