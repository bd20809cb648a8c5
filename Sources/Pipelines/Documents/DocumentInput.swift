// Where documents come from, and what becomes of one that is too long.

import Files
import Tokenization

/// Where documents come from, and how long they may be.
package struct DocumentInput: Sendable {
    /// Files; `-` is standard input.
    package var paths: [String]
    /// nil: by a file's suffix; standard input is lines.
    package var format: InputFormat?
    /// The field of a jsonl object that holds the text.
    package var textField = "text"
    /// Tokens that a document may have; nil: as many as the model has positions.
    package var maximumLength: Int?
    /// What happens to a longer one.
    package var truncation = Truncation.error

    package init(paths: [String]) { self.paths = paths }
}

package enum InputFormat: String, CaseIterable, Sendable {
    case text, lines, jsonl, ids, fasta
}

/// What happens to a document over the limit.
package enum Truncation: String, CaseIterable, Sendable {
    case error, right

    /// Cuts the tokens of a document down to `limit`, if there are more and it may be cut.
    /// - Parameters:
    ///   - prefix: special tokens before the text.
    ///   - suffix: those behind it, which stay.
    ///   - remedy: what the user may do instead of cutting, with a comma behind it.
    /// - Returns: whether any were cut.
    /// - Throws: `FileError` naming the document and the limit.
    package func apply(
        to encoding: inout Encoding, limit: Int, prefix: Int, suffix: Int, of source: String, remedy: String = ""
    ) throws(FileError) -> Bool {
        if encoding.count <= limit { return false }
        guard self == .right, limit > prefix + suffix else {
            throw FileError(
                .malformed, path: source,
                "has \(encoding.count) tokens, and the limit is \(limit); \(remedy)cut it with --truncate right, or use a model "
                    + "of more positions")
        }
        encoding = encoding.selecting(
            Array(0..<limit - suffix) + Array(encoding.count - suffix..<encoding.count))
        return true
    }
}
