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
    /// Tokens that a document may have.
    package var limit = LengthLimit.positions
    /// What happens to a longer one.
    package var truncation = Truncation.error

    package init(paths: [String]) { self.paths = paths }
}

package enum InputFormat: String, CaseIterable, Sendable {
    case text, lines, jsonl, ids, fasta
}

/// How many tokens a document may have.
package enum LengthLimit: Sendable, Equatable {
    /// As many as the model has positions.
    case positions
    /// So many; where positions are computed, also more than that.
    case tokens(Int)
    /// As many as its files say that the model was trained for.
    case trained
}

/// What happens to a document over the limit.
package enum Truncation: String, CaseIterable, Sendable {
    /// It is refused.
    case error
    /// Its end is cut off; of a pair the longer text is cut first, then both are.
    case right
    /// Of a pair the first or the second text alone is cut.
    case first, second

    /// Cuts the tokens of a document down to `limit`, if there are more and it may be cut: special tokens stay, and of
    /// each text at least one token.
    /// - Parameter remedy: what the user may do instead of cutting, with a comma behind it.
    /// - Returns: whether any were cut.
    /// - Throws: `FileError` naming the document and the limit.
    package func apply(to encoding: inout Encoding, limit: Int, of source: String, remedy: String = "")
        throws(FileError) -> Bool
    {
        if encoding.count <= limit { return false }
        func failure(_ text: String) -> FileError {
            FileError(
                .malformed, path: source, "has \(encoding.count) tokens, and the limit is \(limit); \(remedy)\(text)")
        }
        if self == .error {
            throw failure("cut it with --truncate right, or use a model of more positions")
        }
        if encoding.sequences.isEmpty {
            // Ids that were given: there is nobody to say which are special.
            encoding = encoding.selecting(Array(0..<limit))
            return true
        }
        let counts = [0, 1].map { text in encoding.sequences.count { $0 == text } }
        let room = limit - encoding.sequences.count { $0 < 0 }
        guard let kept = kept(counts, room: room) else {
            let special = encoding.count - counts[0] - counts[1]
            throw failure(
                "--truncate \(rawValue) would leave nothing of \(counts[1] > 0 ? "one of its texts" : "it"), of which there are "
                    + "\(counts.filter { $0 > 0 }.map(String.init).joined(separator: " and ")) tokens and \(special) special ones; allow more with --max-length"
            )
        }
        var seen = [0, 0]
        let tokens = encoding.sequences.indices.filter { index in
            let text = Int(encoding.sequences[index])
            guard text >= 0 else { return true }
            seen[text] += 1
            return seen[text] <= kept[text]
        }
        encoding = encoding.selecting(tokens)
        return true
    }

    /// How many tokens of each text stay; nil where nothing would stay of one.
    private func kept(_ counts: [Int], room: Int) -> [Int]? {
        let excess = counts[0] + counts[1] - room
        var kept = counts
        switch self {
        case .error: return nil
        case .first: kept[0] -= excess
        case .second: kept[1] -= excess
        case .right:
            // The shorter one stays whole while the longer is longer; then both get half.
            let shorter = counts[0] <= counts[1] ? 0 : 1
            let half = max(0, room) / 2
            if counts[shorter] <= half {
                kept[1 - shorter] = room - counts[shorter]
            } else {
                kept[shorter] = half
                kept[1 - shorter] = room - half
            }
        }
        return zip(kept, counts).allSatisfy { $0 > 0 || $1 == 0 && $0 == 0 } ? kept : nil
    }
}
