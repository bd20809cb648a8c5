// Classes, case and canonical forms of Unicode scalars, looked up in the project's own tables.

/// What the tokenizers ask of a scalar, one bit a question.
struct ScalarFlags: OptionSet {
    let rawValue: UInt16

    static let whitespace = ScalarFlags(rawValue: 1 << 0)
    /// Removed by cleaning: controls, formats, private use, U+FFFD, NUL.
    static let removed = ScalarFlags(rawValue: 1 << 1)
    static let punctuation = ScalarFlags(rawValue: 1 << 2)
    /// `\w` of a regular expression.
    static let word = ScalarFlags(rawValue: 1 << 3)
    /// Ideographs that become words of their own.
    static let ideograph = ScalarFlags(rawValue: 1 << 4)
    static let nonspacing = ScalarFlags(rawValue: 1 << 5)
    static let mark = ScalarFlags(rawValue: 1 << 6)
    /// Has a canonical decomposition, Hangul syllables included.
    static let decomposes = ScalarFlags(rawValue: 1 << 7)
    /// Has a canonical combining class other than 0.
    static let reorders = ScalarFlags(rawValue: 1 << 8)
    static let lowercases = ScalarFlags(rawValue: 1 << 9)
    /// Has a compatibility decomposition that is not the canonical one.
    static let isCompatible = ScalarFlags(rawValue: 1 << 10)
    static let numeric = ScalarFlags(rawValue: 1 << 11)
    /// Removed by the normalizer Nmt.
    static let nmtRemoved = ScalarFlags(rawValue: 1 << 12)
    /// Turned into a space by the normalizer Nmt.
    static let nmtSpace = ScalarFlags(rawValue: 1 << 13)

    /// What the regular expression of the whitespace splitter looks at.
    static let wordOrSpace = ScalarFlags(rawValue: word.rawValue | whitespace.rawValue)

    /// Whether any of `flags` is set: the question of the inner loops, without the generic set operations.
    @inline(__always)
    func hasAny(_ flags: ScalarFlags) -> Bool { rawValue & flags.rawValue != 0 }
}

/// Properties of scalars, in the versions of Unicode that the reference implementation's parts use.
enum ScalarProperties {
    static let limit = 0x110000

    /// The flags of every scalar, laid out once from the compact tables.
    private static let flags: [ScalarFlags] = {
        var flags = [ScalarFlags](repeating: [], count: limit)
        func mark(_ ranges: [UInt32], step: Int = 2, _ flag: ScalarFlags) {
            for position in stride(from: 0, to: ranges.count, by: step) {
                for scalar in ranges[position]...ranges[position + 1] { flags[Int(scalar)].insert(flag) }
            }
        }
        func markKeys(_ packed: [UInt32], _ flag: ScalarFlags) {
            var position = 0
            while position < packed.count {
                flags[Int(packed[position] & 0xFF_FFFF)].insert(flag)
                position += 1 + Int(packed[position] >> 24)
            }
        }
        mark(UnicodeTables.whitespace, .whitespace)
        mark(UnicodeTables.removed, .removed)
        mark(UnicodeTables.punctuation, .punctuation)
        mark(UnicodeTables.word, .word)
        mark(UnicodeTables.ideograph, .ideograph)
        mark(UnicodeTables.nonspacing, .nonspacing)
        mark(UnicodeTables.mark, .mark)
        mark(UnicodeTables.numeric, .numeric)
        mark([0x1, 0x8, 0xB, 0xB, 0xE, 0x1F, 0x7F, 0x7F, 0x8F, 0x8F, 0x9F, 0x9F], .nmtRemoved)
        mark(
            [
                0x9, 0xA, 0xC, 0xD, 0x1680, 0x1680, 0x200B, 0x200F, 0x2028, 0x2029, 0x2581, 0x2581, 0xFEFF, 0xFEFF,
                0xFFFD, 0xFFFD,
            ],
            .nmtSpace)
        mark(UnicodeTables.combiningClass, step: 3, .reorders)
        markKeys(UnicodeTables.decomposition, .decomposes)
        markKeys(UnicodeTables.compatibility, .isCompatible)
        mark([Hangul.syllables.lowerBound, Hangul.syllables.upperBound - 1], .decomposes)
        markKeys(UnicodeTables.lowercaseSeveral, .lowercases)
        let runs = UnicodeTables.lowercaseRuns
        for position in stride(from: 0, to: runs.count, by: 4) {
            for scalar in stride(from: runs[position], through: runs[position + 1], by: Int(runs[position + 2])) {
                flags[Int(scalar)].insert(.lowercases)
            }
        }
        return flags
    }()

    /// Calls `body` with the flags indexed by scalar value, for loops that ask for many.
    static func withFlags<Result>(_ body: (UnsafeBufferPointer<ScalarFlags>) -> Result) -> Result {
        flags.withUnsafeBufferPointer(body)
    }

    static func flags(of scalar: UInt32) -> ScalarFlags { flags[Int(scalar)] }

    /// Where a packed table (scalar with a count in the top byte, then that many values) keeps its scalars.
    private static func positions(in packed: [UInt32]) -> [UInt32: Int] {
        var positions: [UInt32: Int] = [:]
        var position = 0
        while position < packed.count {
            positions[packed[position] & 0xFF_FFFF] = position
            position += 1 + Int(packed[position] >> 24)
        }
        return positions
    }

    private static let decompositionPositions = positions(in: UnicodeTables.decomposition)
    private static let compatibilityPositions = positions(in: UnicodeTables.compatibility)
    private static let lowercasePositions = positions(in: UnicodeTables.lowercaseSeveral)

    /// The full decomposition of a scalar that is no Hangul syllable: canonical of one that ``ScalarFlags/decomposes``,
    /// compatible of one that ``ScalarFlags/isCompatible``.
    static func decomposition(of scalar: UInt32, isCompatible: Bool) -> ArraySlice<UInt32> {
        let table = isCompatible ? UnicodeTables.compatibility : UnicodeTables.decomposition
        guard let position = (isCompatible ? compatibilityPositions : decompositionPositions)[scalar] else {
            return [scalar]
        }
        return table[position + 1..<position + 1 + Int(table[position] >> 24)]
    }

    /// The canonical combining class of any scalar.
    static func combiningClass(of scalar: UInt32) -> UInt8 {
        let table = UnicodeTables.combiningClass
        guard let entry = lastEntry(in: table, width: 3, atMost: scalar), scalar <= table[entry + 1] else { return 0 }
        return UInt8(table[entry + 2])
    }

    /// Calls `emit` with each scalar of the lowercase of a scalar that ``ScalarFlags/lowercases``.
    static func lowercase(of scalar: UInt32, _ emit: (UInt32) -> Void) {
        if let position = lowercasePositions[scalar] {
            let count = Int(UnicodeTables.lowercaseSeveral[position] >> 24)
            for part in UnicodeTables.lowercaseSeveral[position + 1..<position + 1 + count] { emit(part) }
            return
        }
        let table = UnicodeTables.lowercaseRuns
        guard let entry = lastEntry(in: table, width: 4, atMost: scalar), scalar <= table[entry + 1] else {
            return emit(scalar)
        }
        emit(scalar &+ table[entry + 3])
    }

    /// The start of the last entry whose first number is at most `key`, in a table sorted by its first numbers.
    private static func lastEntry(in table: [UInt32], width: Int, atMost key: UInt32) -> Int? {
        var low = 0
        var high = table.count / width
        while low < high {
            let middle = (low + high) / 2
            if table[middle * width] <= key { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? nil : (low - 1) * width
    }

    private static let compositions: [UInt64: UInt32] = {
        var compositions: [UInt64: UInt32] = [:]
        let table = UnicodeTables.composition
        for position in stride(from: 0, to: table.count, by: 3) {
            compositions[UInt64(table[position]) << 32 | UInt64(table[position + 1])] = table[position + 2]
        }
        return compositions
    }()

    /// The primary composite of two scalars, or nil.
    static func composition(of first: UInt32, _ second: UInt32) -> UInt32? {
        Hangul.composition(of: first, second) ?? compositions[UInt64(first) << 32 | UInt64(second)]
    }
}

/// The arithmetic of Hangul syllables (Unicode Standard, section 3.12).
enum Hangul {
    static let syllables: Range<UInt32> = 0xAC00..<0xAC00 + 11172
    private static let leading: UInt32 = 0x1100
    private static let vowel: UInt32 = 0x1161
    private static let trailing: UInt32 = 0x11A7  // one before the first, so that 0 means none
    private static let vowels: UInt32 = 21
    private static let trailings: UInt32 = 28

    /// Calls `emit` with the two or three jamo of a syllable.
    static func decompose(_ syllable: UInt32, _ emit: (UInt32) -> Void) {
        let index = syllable - syllables.lowerBound
        emit(leading + index / (vowels * trailings))
        emit(vowel + index / trailings % vowels)
        if index % trailings != 0 { emit(trailing + index % trailings) }
    }

    /// Whether a syllable ends in a trailing consonant.
    static func hasTrailing(_ syllable: UInt32) -> Bool { (syllable - syllables.lowerBound) % trailings != 0 }

    static func composition(of first: UInt32, _ second: UInt32) -> UInt32? {
        if (leading..<leading + 19).contains(first), (vowel..<vowel + vowels).contains(second) {
            return syllables.lowerBound + ((first - leading) * vowels + second - vowel) * trailings
        }
        if syllables.contains(first), (first - syllables.lowerBound) % trailings == 0,
            (trailing + 1..<trailing + trailings).contains(second)
        {
            return first + second - trailing
        }
        return nil
    }
}
