// What becomes of the delimiters that a text is split at.

import Files

/// What becomes of the delimiters that a text is split at.
enum SplitBehavior: String, Sendable, Equatable {
    /// Dropped.
    case removed = "Removed"
    /// Each a word of its own.
    case isolated = "Isolated"
    /// The end of the word before; of several in a row only the first.
    case mergedWithPrevious = "MergedWithPrevious"
    /// The start of the word behind; of several in a row only the last.
    case mergedWithNext = "MergedWithNext"
    /// Runs of delimiters are words.
    case contiguous = "Contiguous"

    init(_ component: Component, default fallback: SplitBehavior? = nil) throws(FileError) {
        let name = try component.string("behavior", default: fallback?.rawValue)
        guard let behavior = SplitBehavior(rawValue: name) else {
            throw component.malformed("has the unknown behavior '\(name)'")
        }
        self = behavior
    }
}

/// Puts the pieces of words together as a behavior says: delimiters and what is between them, in order, as they come.
struct PieceJoiner {
    private let behavior: SplitBehavior
    private(set) var words: [Range<Int>] = []
    /// Where the pieces of the word under way start in ``words``.
    private var first = 0
    private var followsDelimiter = false

    init(_ behavior: SplitBehavior, capacity: Int) {
        self.behavior = behavior
        words.reserveCapacity(capacity)
    }

    /// Pieces that come now are those of another word.
    mutating func startWord() {
        dropEmpty()
        first = words.count
        followsDelimiter = false
    }

    /// Adds a piece; a delimiter may be empty.
    @inline(__always)
    mutating func add(_ piece: Range<Int>, isDelimiter: Bool) {
        switch behavior {
        case .removed:
            if !isDelimiter { words.append(piece) }
        case .isolated:
            words.append(piece)
        case .mergedWithPrevious where isDelimiter && !followsDelimiter && words.count > first,
            .contiguous where isDelimiter == followsDelimiter && words.count > first,
            // A word behind a delimiter takes it over: the one directly before it, no earlier one.
            .mergedWithNext where !isDelimiter && followsDelimiter:
            words[words.count - 1] = words[words.count - 1].lowerBound..<piece.upperBound
        default:
            words.append(piece)
        }
        followsDelimiter = isDelimiter
    }

    /// The words of all pieces, without empty ones.
    mutating func finish() -> [Range<Int>] {
        dropEmpty()
        return words
    }

    private mutating func dropEmpty() {
        guard words[first...].contains(where: \.isEmpty) else { return }
        let kept = words[first...].filter { !$0.isEmpty }
        words.replaceSubrange(first..., with: kept)
    }
}
