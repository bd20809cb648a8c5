// Tokens that are found in the text as they stand, before the model sees it.

import Checkpoints

/// One entry of `added_tokens`.
struct AddedToken: Sendable, Equatable {
    var content: String
    var id: Int32
    /// Matches only where no word character touches it.
    var isSingleWord: Bool
    /// Takes the whitespace before it along.
    var stripsLeft: Bool
    /// Takes the whitespace behind it along.
    var stripsRight: Bool
    /// Matched in normalised text, itself normalised, instead of in the text as given.
    var isNormalized: Bool
    var isSpecial: Bool

    init(_ component: Component) throws(FileError) {
        content = try component.string("content")
        id = try component.id("id")
        isSingleWord = try component.bool("single_word", default: false)
        stripsLeft = try component.bool("lstrip", default: false)
        stripsRight = try component.bool("rstrip", default: false)
        isSpecial = try component.bool("special", default: false)
        isNormalized = try component.bool("normalized", default: !isSpecial)
    }
}

/// Finds a set of added tokens in text: of those that start leftmost, the longest; then on behind it.
struct AddedTokenMatcher: Sendable {
    private struct Pattern: Sendable {
        let scalars: [UInt32]
        let token: AddedToken
    }

    /// Patterns by first scalar, longest first.
    private var patterns: [UInt32: [Pattern]] = [:]
    /// Whether any pattern starts with an ASCII scalar, the common case, without hashing.
    private var startsInASCII = [Bool](repeating: false, count: 128)

    /// A stretch of the text: an added token, or text between them.
    struct Segment: Equatable {
        let range: Range<Int>
        /// The token's id, nil for text.
        let id: Int32?
    }

    /// - Parameter tokens: tokens with the scalars that stand for them in the text to be searched.
    init(_ tokens: [(token: AddedToken, scalars: [UInt32])]) {
        for (token, scalars) in tokens {
            guard let first = scalars.first else { continue }
            var same = patterns[first, default: []]
            same.removeAll { $0.scalars == scalars }
            same.append(Pattern(scalars: scalars, token: token))
            same.sort { $0.scalars.count > $1.scalars.count }
            patterns[first] = same
            if first < 128 { startsInASCII[Int(first)] = true }
        }
    }

    /// The text cut at every match.
    func segments(of text: [UInt32]) -> [Segment] {
        guard !patterns.isEmpty else { return text.isEmpty ? [] : [Segment(range: 0 ..< text.count, id: nil)] }
        var segments: [Segment] = []
        var done = 0
        var position = 0
        // The end of the whitespace last looked through, so that no stretch is looked through twice.
        var spaceEnd = 0
        while position < text.count {
            guard let pattern = match(in: text, at: position) else {
                position += 1
                continue
            }
            var start = position
            var end = position + pattern.scalars.count
            position = end
            let token = pattern.token
            if token.isSingleWord, start > 0 && has(.word, text[start - 1]) || end < text.count && has(.word, text[end]) { continue }
            if token.stripsLeft {
                while start > done, has(.whitespace, text[start - 1]) { start -= 1 }
            }
            if token.stripsRight {
                if end >= spaceEnd {
                    spaceEnd = end
                    while spaceEnd < text.count, has(.whitespace, text[spaceEnd]) { spaceEnd += 1 }
                }
                end = max(end, spaceEnd)
            }
            if done < start { segments.append(Segment(range: done ..< start, id: nil)) }
            segments.append(Segment(range: start ..< end, id: token.id))
            done = end
        }
        if done < text.count { segments.append(Segment(range: done ..< text.count, id: nil)) }
        return segments
    }

    private func has(_ flag: ScalarFlags, _ scalar: UInt32) -> Bool {
        ScalarProperties.flags(of: scalar).hasAny(flag)
    }

    private func match(in text: [UInt32], at position: Int) -> Pattern? {
        let first = text[position]
        if first < 128, !startsInASCII[Int(first)] { return nil }
        return patterns[first]?.first { pattern in
            position + pattern.scalars.count <= text.count && text[position ..< position + pattern.scalars.count].elementsEqual(pattern.scalars)
        }
    }
}
