// A text with the words that it is split into so far.

/// Words as ranges of a text, in order and disjoint; none is empty.
struct Words {
    private(set) var text: NormalizedText
    private(set) var ranges: [Range<Int>]

    /// The whole text as one word.
    init(_ text: NormalizedText) {
        self.text = text
        ranges = text.count > 0 ? [0..<text.count] : []
    }

    /// Splits each word at the scalars that have `delimiter`.
    mutating func split(at delimiter: ScalarFlags, _ behavior: SplitBehavior) {
        ScalarProperties.withFlags { table in split(behavior) { table[Int($0)].hasAny(delimiter) } }
    }

    /// Splits each word at a scalar.
    mutating func split(at delimiter: UInt32, _ behavior: SplitBehavior) {
        split(behavior) { $0 == delimiter }
    }

    @inline(__always)
    private mutating func split(_ behavior: SplitBehavior, at isDelimiter: (UInt32) -> Bool) {
        var joiner = PieceJoiner(behavior, capacity: ranges.count + text.count / 8)
        text.scalars.withUnsafeBufferPointer { scalars in
            for word in ranges {
                joiner.startWord()
                var start = word.lowerBound
                while start < word.upperBound {
                    var end = start
                    while end < word.upperBound, !isDelimiter(scalars[end]) { end += 1 }
                    if start < end { joiner.add(start..<end, isDelimiter: false) }
                    if end < word.upperBound { joiner.add(end..<end + 1, isDelimiter: true) }
                    start = end + 1
                }
            }
        }
        ranges = joiner.finish()
    }

    /// Splits each word at the matches of a pattern, each of which sees its word alone.
    mutating func split(at pattern: RegularExpression, _ behavior: SplitBehavior, isInverted: Bool) {
        var joiner = PieceJoiner(behavior, capacity: ranges.count + text.count / 8)
        text.scalars.withUnsafeBufferPointer { scalars in
            for word in ranges {
                joiner.startWord()
                var done = word.lowerBound
                for match in pattern.matches(in: scalars[word]) {
                    let start = word.lowerBound + match.lowerBound
                    if done < start { joiner.add(done..<start, isDelimiter: isInverted) }
                    done = word.lowerBound + match.upperBound
                    joiner.add(start..<done, isDelimiter: !isInverted)
                }
                if done < word.upperBound { joiner.add(done..<word.upperBound, isDelimiter: isInverted) }
            }
        }
        ranges = joiner.finish()
    }

    /// Splits each word into runs of `\w` and runs of what is neither `\w` nor whitespace; whitespace is dropped.
    mutating func splitClasses() {
        var result: [Range<Int>] = []
        ScalarProperties.withFlags { table in
            for word in ranges {
                var start = word.lowerBound
                while start < word.upperBound {
                    let kind = table[Int(text.scalars[start])].rawValue & ScalarFlags.wordOrSpace.rawValue
                    var end = start + 1
                    while end < word.upperBound,
                        table[Int(text.scalars[end])].rawValue & ScalarFlags.wordOrSpace.rawValue == kind
                    { end += 1 }
                    if kind & ScalarFlags.whitespace.rawValue == 0 { result.append(start..<end) }
                    start = end
                }
            }
        }
        ranges = result
    }

    /// Rewrites every word: `rewrite` appends what it becomes, which must not be empty, to a new text.
    mutating func rewrite(
        _ rewrite: (_ word: Range<Int>, _ text: NormalizedText, _ result: inout NormalizedText) -> Void
    ) {
        var result = NormalizedText()
        result.reserve(text.count + text.count / 8)
        for index in ranges.indices {
            let start = result.count
            rewrite(ranges[index], text, &result)
            ranges[index] = start..<result.count
        }
        text = result
    }
}
