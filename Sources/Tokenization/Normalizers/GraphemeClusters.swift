// Grapheme clusters, which some normalizers replace as a whole.

/// Boundaries of extended grapheme clusters (UAX #29).
///
/// Flags are not paired (rules GB12 and GB13): their only use here is for clusters of fewer than 6 bytes, and a
/// regional indicator with anything else has more.
struct GraphemeClusters: Sequence, IteratorProtocol {
    /// The class of a scalar, as the table of the package numbers them.
    private struct Kind {
        private let number: UInt8

        /// Classes of every scalar, laid out once from the compact table.
        private static let numbers: [UInt8] = {
            let table = UnicodeTables.graphemes
            var numbers = [UInt8](repeating: 0, count: ScalarProperties.limit)
            for (position, entry) in table.enumerated() {
                let end = position + 1 < table.count ? Int(table[position + 1] >> 6) : numbers.count
                for scalar in Int(entry >> 6)..<end { numbers[scalar] = UInt8(entry & 63) }
            }
            return numbers
        }()

        init(_ scalar: UInt32) { number = Self.numbers[Int(scalar)] }

        private var breaking: UInt8 { number & 15 }
        private var conjunct: UInt8 { number >> 4 }

        var isOther: Bool { number == 0 }
        var isControl: Bool { breaking == 1 }
        var isExtend: Bool { breaking == 2 }
        var isJoiner: Bool { breaking == 3 }
        var isSpacingMark: Bool { breaking == 4 }
        var isPrepend: Bool { breaking == 5 }
        var isLeadingJamo: Bool { breaking == 6 }
        var isVowelJamo: Bool { breaking == 7 }
        var isTrailingJamo: Bool { breaking == 8 }
        var isPicture: Bool { breaking == 9 }
        var isConsonant: Bool { conjunct == 1 }
        var isLinker: Bool { conjunct == 2 }
        var extendsConjunct: Bool { conjunct == 3 }
    }

    private let scalars: [UInt32]
    private var position = 0

    init(_ scalars: [UInt32]) { self.scalars = scalars }

    mutating func next() -> Range<Int>? {
        guard position < scalars.count else { return nil }
        let start = position
        var previous = Kind(scalars[start])
        /// A picture and only extending scalars since.
        var isAfterPicture = previous.isPicture
        var joinsPicture = false
        /// A consonant and only linkers and extending scalars since; whether there was a linker.
        var isAfterConsonant = previous.isConsonant
        var isLinked = false
        position += 1
        while position < scalars.count {
            let kind = Kind(scalars[position])
            let joins =
                if scalars[position - 1] == 0xD, scalars[position] == 0xA {
                    true  // GB3
                } else if previous.isControl || kind.isControl {
                    false  // GB4, GB5
                } else {
                    kind.isExtend || kind.isJoiner || kind.isSpacingMark || previous.isPrepend  // GB9, GB9a, GB9b
                        || joinsHangul(previous, kind)
                        || isAfterConsonant && isLinked && kind.isConsonant  // GB9c
                        || joinsPicture && kind.isPicture  // GB11
                }
            guard joins else { break }
            joinsPicture = isAfterPicture && kind.isJoiner
            isAfterPicture = kind.isPicture || isAfterPicture && kind.isExtend
            isLinked = isAfterConsonant && !kind.isConsonant && (isLinked || kind.isLinker)
            isAfterConsonant = kind.isConsonant || isAfterConsonant && (kind.isLinker || kind.extendsConjunct)
            previous = kind
            position += 1
        }
        return start..<position
    }

    /// GB6, GB7, GB8.
    private func joinsHangul(_ previous: Kind, _ kind: Kind) -> Bool {
        let before = scalars[position - 1]
        let isSyllable = Hangul.syllables.contains(before)
        let hasTrailing = isSyllable && Hangul.hasTrailing(before)
        if previous.isLeadingJamo {
            return kind.isLeadingJamo || kind.isVowelJamo || Hangul.syllables.contains(scalars[position])
        }
        if previous.isVowelJamo || isSyllable && !hasTrailing { return kind.isVowelJamo || kind.isTrailingJamo }
        return (previous.isTrailingJamo || hasTrailing) && kind.isTrailingJamo
    }
}
