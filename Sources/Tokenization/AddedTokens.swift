// Tokens that are found in the text as they stand, before the model sees it.

import Files

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
///
/// Time is at most the text's length times the longest token's.
struct AddedTokenMatcher: Sendable {
    private var tokens: [AddedToken] = []
    /// Positions in ``tokens`` by what stands for them in the text.
    private var patterns = PieceTrie()
    /// Whether special tokens are left in the text.
    private let splitsSpecial: Bool

    /// A stretch of the text: an added token, or text between them.
    struct Segment: Equatable {
        let range: Range<Int>
        /// The token's id, nil for text.
        let id: Int32?
    }

    /// - Parameter tokens: tokens with the scalars that stand for them in the text to be searched; of equal ones the
    ///   last counts.
    init(_ tokens: [(token: AddedToken, scalars: [UInt32])], splitsSpecial: Bool = false) {
        self.splitsSpecial = splitsSpecial
        for (token, scalars) in tokens where !scalars.isEmpty {
            // Beyond what a trie can address nothing is found; no vocabulary comes near.
            _ = patterns.add(scalars, id: Int32(self.tokens.count))
            self.tokens.append(token)
        }
    }

    /// The text cut at every match.
    func segments(of text: [UInt32]) -> [Segment] {
        guard !tokens.isEmpty else { return text.isEmpty ? [] : [Segment(range: 0..<text.count, id: nil)] }
        var segments: [Segment] = []
        var done = 0
        var position = 0
        // The end of the whitespace last looked through, so that no stretch is looked through twice.
        var spaceEnd = 0
        while position < text.count {
            guard let (token, length) = match(in: text, at: position) else {
                position += 1
                continue
            }
            var start = position
            var end = position + length
            position = end
            if splitsSpecial && token.isSpecial { continue }
            if token.isSingleWord, start > 0 && has(.word, text[start - 1]) || end < text.count && has(.word, text[end])
            {
                continue
            }
            if token.stripsLeft {
                while start > done, has(.whitespace, text[start - 1]) { start -= 1 }
                // White space that the token before took along is gone.
                start = max(start, done)
            }
            if token.stripsRight {
                if end >= spaceEnd {
                    spaceEnd = end
                    while spaceEnd < text.count, has(.whitespace, text[spaceEnd]) { spaceEnd += 1 }
                }
                end = max(end, spaceEnd)
            }
            // A token of white space alone may be gone as a whole.
            guard start < end else { continue }
            if done < start { segments.append(Segment(range: done..<start, id: nil)) }
            segments.append(Segment(range: start..<end, id: token.id))
            done = end
        }
        if done < text.count { segments.append(Segment(range: done..<text.count, id: nil)) }
        return segments
    }

    private func has(_ flag: ScalarFlags, _ scalar: UInt32) -> Bool {
        ScalarProperties.flags(of: scalar).hasAny(flag)
    }

    private func match(in text: [UInt32], at start: Int) -> (AddedToken, length: Int)? {
        var node = PieceTrie.root
        var position = start
        var longest: (Int32, length: Int)?
        while position < text.count, let child = patterns.child(of: node, text[position]) {
            node = child
            position += 1
            if let token = patterns.id(at: node) { longest = (token, position - start) }
        }
        return longest.map { (tokens[Int($0)], $1) }
    }
}
