// Lines on standard error, whole and in order, with at most one progress line that is redrawn in place.

import Foundation
import Synchronization

/// Standard error: where messages, logs and progress go, so that standard output is the result alone.
enum StandardError {
    // Whether the cursor stands at the end of a line that the next output replaces; changed while `writing` is held.
    private static let hasTransientLine = Atomic<Bool>(false)
    private static let writing = Mutex(())

    static var isTerminal: Bool { isatty(2) != 0 }

    /// Writes a line in one piece, replacing a progress line that stands there.
    static func writeLine(_ line: String) {
        writing.withLock { _ in
            write("\(endOfTransientLine)\(line)\n")
            hasTransientLine.store(false, ordering: .relaxed)
        }
    }

    /// Writes the line by which a failure is known: one per job.
    static func writeFailure(_ message: String) { writeLine("annulus: \(message)") }

    /// Shows `line` in place of the progress line before it. An empty one takes it away.
    static func showTransient(_ line: String) {
        writing.withLock { _ in
            write("\(endOfTransientLine)\(line)")
            hasTransientLine.store(!line.isEmpty, ordering: .relaxed)
        }
    }

    /// What takes a progress line away that stands there.
    static var endOfTransientLine: StaticString { hasTransientLine.load(ordering: .relaxed) ? "\r\u{1B}[K" : "" }

    private static func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Foundation.write(2, $0.baseAddress, $0.count) }
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return }
                rest = rest.dropFirst(count)
            }
        }
    }
}
