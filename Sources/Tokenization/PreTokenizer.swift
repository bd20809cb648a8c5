// The second stage of a tokenizer: splitting normalised text into words.

import Checkpoints

/// A pre-tokenizer of `tokenizer.json`.
enum PreTokenizer: Sendable, Equatable {
    /// Whitespace is dropped, each punctuation mark is a word.
    case bert
    /// Runs of `\w` and runs of what is neither `\w` nor whitespace.
    case whitespace
    /// Whitespace is dropped.
    case whitespaceSplit
    case punctuation(SplitBehavior)
    case sequence([PreTokenizer])

    private static let supported = ["BertPreTokenizer", "Punctuation", "Sequence", "Whitespace", "WhitespaceSplit"]

    init(_ component: Component) throws(FileError) {
        switch try component.type() {
        case "BertPreTokenizer": self = .bert
        case "Whitespace": self = .whitespace
        case "WhitespaceSplit": self = .whitespaceSplit
        case "Punctuation":
            let name = try component.string("behavior", default: SplitBehavior.isolated.rawValue)
            guard let behavior = SplitBehavior(rawValue: name) else { throw component.malformed("has the unknown behavior '\(name)'") }
            self = .punctuation(behavior)
        case "Sequence":
            var parts: [PreTokenizer] = []
            for part in try component.elements("pretokenizers") { parts.append(try PreTokenizer(part)) }
            self = .sequence(parts)
        case let other: throw component.unsupported(other, supported: Self.supported)
        }
    }

    /// Splits every word of `words`, ranges of `text`, further. No word of the result is empty.
    func apply(to words: inout [Range<Int>], of text: NormalizedText) {
        switch self {
        case .bert:
            words = split(words, of: text, at: .whitespace, .removed)
            words = split(words, of: text, at: .punctuation, .isolated)
        case .whitespace: words = classRuns(words, of: text)
        case .whitespaceSplit: words = split(words, of: text, at: .whitespace, .removed)
        case .punctuation(let behavior): words = split(words, of: text, at: .punctuation, behavior)
        case .sequence(let parts):
            for part in parts { part.apply(to: &words, of: text) }
        }
    }

    private func classRuns(_ words: [Range<Int>], of text: NormalizedText) -> [Range<Int>] {
        var result: [Range<Int>] = []
        ScalarProperties.withFlags { table in
            for word in words {
                var start = word.lowerBound
                while start < word.upperBound {
                    let kind = table[Int(text.scalars[start])].rawValue & ScalarFlags.wordOrSpace.rawValue
                    var end = start + 1
                    while end < word.upperBound, table[Int(text.scalars[end])].rawValue & ScalarFlags.wordOrSpace.rawValue == kind { end += 1 }
                    if kind & ScalarFlags.whitespace.rawValue == 0 { result.append(start ..< end) }
                    start = end
                }
            }
        }
        return result
    }
}

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
}

/// Splits each word at the scalars that have `delimiter`.
private func split(_ words: [Range<Int>], of text: NormalizedText, at delimiter: ScalarFlags, _ behavior: SplitBehavior) -> [Range<Int>] {
    var result: [Range<Int>] = []
    result.reserveCapacity(words.count + text.count / 8)
    ScalarProperties.withFlags { table in
        text.scalars.withUnsafeBufferPointer { scalars in
            for word in words {
                let first = result.count
                var start = word.lowerBound
                var followsDelimiter = false
                while start < word.upperBound {
                    let isDelimiter = table[Int(scalars[start])].hasAny(delimiter)
                    var end = start + 1
                    if !isDelimiter {
                        while end < word.upperBound, !table[Int(scalars[end])].hasAny(delimiter) { end += 1 }
                    }
                    switch behavior {
                    case .removed:
                        if !isDelimiter { result.append(start ..< end) }
                    case .isolated:
                        result.append(start ..< end)
                    case .mergedWithPrevious where isDelimiter && !followsDelimiter && result.count > first,
                        .contiguous where isDelimiter && followsDelimiter,
                        // A word behind a delimiter takes it over: the one directly before it, no earlier one.
                        .mergedWithNext where !isDelimiter && followsDelimiter:
                        result[result.count - 1] = result[result.count - 1].lowerBound ..< end
                    default:
                        result.append(start ..< end)
                    }
                    followsDelimiter = isDelimiter
                    start = end
                }
            }
        }
    }
    return result
}
