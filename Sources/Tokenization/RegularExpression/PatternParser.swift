// Reads regular expressions in the syntax of Oniguruma, which the reference implementation uses.

/// Reads the part of Oniguruma's syntax that tokenizers use; what is not read is refused by name.
///
/// Read are literals, escapes, classes with ranges, nested classes, `&&` and POSIX brackets, `\p{…}` of general
/// categories and common scripts, groups, alternation, greedy, lazy and possessive quantifiers, anchors, lookahead,
/// lookbehind of one scalar, atomic groups, and the flags `i` (for ASCII letters) and `m`.
struct PatternParser {
    /// A pattern that is refused, and why.
    struct Refusal: Error { let reason: String }

    private let scalars: [Unicode.Scalar]
    private var position = 0
    private var depth = 0

    private struct Flags {
        var ignoresCase = false
        /// A full stop matches a newline too.
        var dotMatchesNewline = false
    }

    /// Deeper groups are refused, so that reading and compiling need no deep stack.
    private static let depthLimit = 64
    /// More quantifiers in a row are refused, for the same reason.
    private static let quantifierLimit = 3
    /// Larger counts are refused.
    private static let countLimit = 1000

    static func parse(_ text: String) throws(Refusal) -> Pattern {
        var parser = PatternParser(scalars: Array(text.unicodeScalars))
        let pattern = try parser.alternation(Flags())
        if parser.peek() != nil { throw Refusal(reason: "an unmatched )") }
        return pattern
    }

    private init(scalars: [Unicode.Scalar]) { self.scalars = scalars }

    private func peek(_ offset: Int = 0) -> Unicode.Scalar? {
        position + offset < scalars.count ? scalars[position + offset] : nil
    }

    private mutating func take(_ text: String) -> Bool {
        guard scalars[position...].starts(with: text.unicodeScalars) else { return false }
        position += text.unicodeScalars.count
        return true
    }

    private mutating func next(_ what: String) throws(Refusal) -> Unicode.Scalar {
        guard let scalar = peek() else { throw Refusal(reason: "an unfinished \(what)") }
        position += 1
        return scalar
    }

    // MARK: Alternatives, sequences, quantifiers

    private mutating func alternation(_ flags: Flags) throws(Refusal) -> Pattern {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw Refusal(reason: "groups nested deeper than \(Self.depthLimit)") }
        var alternatives = [try sequence(flags)]
        while take("|") { alternatives.append(try sequence(flags)) }
        return alternatives.count == 1 ? alternatives[0] : .alternation(alternatives)
    }

    private mutating func sequence(_ flags: Flags) throws(Refusal) -> Pattern {
        var parts: [Pattern] = []
        // The literal just before, lowercased, where case is ignored.
        var literal: Unicode.Scalar?
        while let scalar = peek(), scalar != "|", scalar != ")" {
            let start = position
            let atom = try atom(flags)
            let current = flags.ignoresCase && position == start + 1 && scalar.isASCII ? lowercased(scalar) : nil
            if let literal, let current { try refuseExpansions(literal, current) }
            let (quantified, count) = try quantified(atom)
            literal = count == 0 ? current : nil
            // What matches nothing takes no step, and a thousand thousand of it would be gone through one by one.
            if case .empty = quantified { continue }
            parts.append(quantified)
        }
        return parts.count == 1 ? parts[0] : parts.isEmpty ? .empty : .sequence(parts)
    }

    private func lowercased(_ scalar: Unicode.Scalar) -> Unicode.Scalar {
        ("A"..."Z").contains(scalar) ? Unicode.Scalar(UInt8(scalar.value) + 32) : scalar
    }

    /// Letters that one scalar, as ß or ﬁ, folds to when case is ignored.
    private func refuseExpansions(_ first: Unicode.Scalar, _ second: Unicode.Scalar) throws(Refusal) {
        let pair = "\(first)\(second)"
        if ["ss", "ff", "fi", "fl", "st"].contains(pair) {
            throw Refusal(reason: "'\(pair)' with case ignored, which single characters fold to")
        }
    }

    /// An atom with the quantifiers behind it, and how many these are.
    private mutating func quantified(_ atom: Pattern) throws(Refusal) -> (Pattern, count: Int) {
        var result = atom
        var count = 0
        while let (minimum, maximum, isInterval) = try quantifier() {
            if case .assertion = result { throw Refusal(reason: "a repeated anchor") }
            if case .look = result { throw Refusal(reason: "a repeated lookaround") }
            var greed = Pattern.Greed.greedy
            if take("?") {
                if isInterval, minimum == maximum { throw Refusal(reason: "a quantifier {n}?") }
                greed = .lazy
            } else if !isInterval, take("+") {
                greed = .possessive
            }
            count += 1
            guard count <= Self.quantifierLimit else {
                throw Refusal(reason: "more than \(Self.quantifierLimit) quantifiers in a row")
            }
            if case .empty = result { continue }
            result = maximum == 0 ? .empty : .repetition(result, minimum: minimum, maximum: maximum, greed)
        }
        return (result, count)
    }

    private mutating func quantifier() throws(Refusal) -> (minimum: Int, maximum: Int?, isInterval: Bool)? {
        if take("*") { return (0, nil, false) }
        if take("+") { return (1, nil, false) }
        if take("?") { return (0, 1, false) }
        guard peek() == "{" else { return nil }
        // A brace that begins no interval is a literal.
        let start = position
        position += 1
        let minimum = try number()
        let hasComma = take(",")
        let maximum = hasComma ? try number() : minimum
        guard take("}"), minimum != nil || hasComma && maximum != nil else {
            position = start
            return nil
        }
        if let minimum, let maximum, maximum < minimum {
            throw Refusal(reason: "an interval whose end is before its start")
        }
        return (minimum ?? 0, maximum, true)
    }

    private mutating func number() throws(Refusal) -> Int? {
        var value: Int?
        while let digit = peek(), ("0"..."9").contains(digit) {
            value = (value ?? 0) * 10 + Int(digit.value - 48)
            if let value, value > Self.countLimit { throw Refusal(reason: "a count above \(Self.countLimit)") }
            position += 1
        }
        return value
    }

    // MARK: Atoms

    private mutating func atom(_ flags: Flags) throws(Refusal) -> Pattern {
        let scalar = try next("pattern")
        switch scalar {
        case "(": return try group(flags)
        case "[": return .set(try bracket(flags))
        case ".": return .set(flags.dotMatchesNewline ? .all : .allButNewline)
        case "^": return .assertion(.lineStart)
        case "$": return .assertion(.lineEnd)
        case "\\": return try escape(flags)
        case "*", "+", "?": throw Refusal(reason: "a quantifier \(scalar) with nothing before it")
        default: return .set(try literal(scalar, flags))
        }
    }

    private func literal(_ scalar: Unicode.Scalar, _ flags: Flags) throws(Refusal) -> ScalarSet {
        try caseVariants(ScalarSet([scalar.value...scalar.value]), flags)
    }

    /// A set with the other case of its ASCII letters, and with ſ and K, which fold to s and k.
    private func caseVariants(_ set: ScalarSet, _ flags: Flags) throws(Refusal) -> ScalarSet {
        guard flags.ignoresCase else { return set }
        guard set.ranges.allSatisfy({ $0.upperBound < 0x80 }) else {
            throw Refusal(reason: "a character that is not ASCII with case ignored")
        }
        var ranges = set.ranges
        for letter in UInt32(0x61)...0x7A where set.contains(letter) || set.contains(letter - 32) {
            ranges += [letter...letter, letter - 32...letter - 32]
            if letter == 0x73 { ranges.append(0x17F...0x17F) }
            if letter == 0x6B { ranges.append(0x212A...0x212A) }
        }
        return ScalarSet(ranges)
    }

    private mutating func group(_ flags: Flags) throws(Refusal) -> Pattern {
        guard take("?") else { return try groupBody(flags) }
        if take(":") { return try groupBody(flags) }
        if take("=") { return .look(try groupBody(flags), ahead: true, negated: false) }
        if take("!") { return .look(try groupBody(flags), ahead: true, negated: true) }
        if take("<=") { return .look(try groupBody(flags), ahead: false, negated: false) }
        if take("<!") { return .look(try groupBody(flags), ahead: false, negated: true) }
        if take(">") { return .atomic(try groupBody(flags)) }
        if take("#") {
            while try next("comment") != ")" {}
            return .empty
        }
        if take("<") {
            while try next("group name") != ">" {}
            return try groupBody(flags)
        }
        return try flagGroup(flags)
    }

    private mutating func groupBody(_ flags: Flags) throws(Refusal) -> Pattern {
        let body = try alternation(flags)
        guard take(")") else { throw Refusal(reason: "an unmatched (") }
        return body
    }

    /// `(?i:…)`, and `(?i)…`, which reaches over alternatives to the end of the group around it.
    private mutating func flagGroup(_ flags: Flags) throws(Refusal) -> Pattern {
        var flags = flags
        var isOn = true
        while true {
            switch try next("group") {
            case "-": isOn = false
            case "i": flags.ignoresCase = isOn
            case "m": flags.dotMatchesNewline = isOn
            case ":": return try groupBody(flags)
            case ")": return try alternation(flags)
            case let other: throw Refusal(reason: "a group (?\(other)")
            }
        }
    }

    private mutating func escape(_ flags: Flags) throws(Refusal) -> Pattern {
        switch peek() {
        case "A": position += 1; return .assertion(.textStart)
        case "z": position += 1; return .assertion(.textEnd)
        case "Z": position += 1; return .assertion(.lastLineEnd)
        case "b": position += 1; return .assertion(.wordBoundary)
        case "B": position += 1; return .assertion(.noWordBoundary)
        default:
            let (set, isClass) = try escapedSet(word: CharacterClass.bareWord)
            return .set(isClass ? set : try caseVariants(set, flags))
        }
    }

    /// What an escape matches, and whether it stands for a class of scalars; `word` is what `\w` does.
    private mutating func escapedSet(word: ScalarSet) throws(Refusal) -> (ScalarSet, isClass: Bool) {
        let scalar = try next("escape")
        switch scalar {
        case "d": return (CharacterClass.digit, true)
        case "D": return (CharacterClass.digit.inverted, true)
        case "s": return (CharacterClass.space, true)
        case "S": return (CharacterClass.space.inverted, true)
        case "w": return (word, true)
        case "W": return (word.inverted, true)
        case "h": return (CharacterClass.hexadecimalDigit, true)
        case "H": return (CharacterClass.hexadecimalDigit.inverted, true)
        case "p", "P": return (try property(isNegated: scalar == "P", word: word), true)
        case "n": return (ScalarSet("\n"), false)
        case "r": return (ScalarSet("\r"), false)
        case "t": return (ScalarSet("\t"), false)
        case "f": return (ScalarSet("\u{C}"), false)
        case "v": return (ScalarSet("\u{B}"), false)
        case "a": return (ScalarSet("\u{7}"), false)
        case "e": return (ScalarSet("\u{1B}"), false)
        case "x":
            if take("{") {
                let value = try hexadecimal(1...8)
                guard take("}") else { throw Refusal(reason: "an unfinished \\x{…}") }
                return (value, false)
            }
            let value = try hexadecimal(1...2)
            guard !value.ranges.contains(where: { $0.upperBound >= 0x80 }) else {
                throw Refusal(reason: "a byte \\x80 to \\xFF")
            }
            return (value, false)
        case "u": return (try hexadecimal(4...4), false)
        case "0"..."9": throw Refusal(reason: "a back-reference or an octal escape \\\(scalar)")
        case "A"..."Z", "a"..."z": throw Refusal(reason: "the escape \\\(scalar)")
        default: return (ScalarSet([scalar.value...scalar.value]), false)
        }
    }

    private mutating func hexadecimal(_ digits: ClosedRange<Int>) throws(Refusal) -> ScalarSet {
        var value: UInt32 = 0
        var count = 0
        while count < digits.upperBound, let digit = peek().flatMap({ Character($0).hexDigitValue }),
            peek()?.isASCII == true
        {
            guard value < 0x1000_0000 else { throw Refusal(reason: "an escape beyond U+10FFFF") }
            value = value << 4 | UInt32(digit)
            count += 1
            position += 1
        }
        guard digits.contains(count), Unicode.Scalar(value) != nil else {
            throw Refusal(reason: "an escape that is no character")
        }
        return ScalarSet([value...value])
    }

    /// `\p{Name}`, `\p{^Name}` behind its first letter.
    private mutating func property(isNegated: Bool, word: ScalarSet) throws(Refusal) -> ScalarSet {
        guard take("{") else { throw Refusal(reason: "\\p without a name in braces") }
        let isInverted = take("^") != isNegated
        var name = ""
        while true {
            let scalar = try next("\\p{…}")
            if scalar == "}" { break }
            name.unicodeScalars.append(scalar)
        }
        guard let set = CharacterClass.property(name, word: word) else {
            throw Refusal(reason: "the property \\p{\(name)}")
        }
        return isInverted ? set.inverted : set
    }

    // MARK: Classes in brackets

    /// A class behind its opening bracket.
    private mutating func bracket(_ flags: Flags) throws(Refusal) -> ScalarSet {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw Refusal(reason: "classes nested deeper than \(Self.depthLimit)") }
        let isNegated = take("^")
        var whole: ScalarSet?
        var ranges: [ClosedRange<UInt32>] = []
        var isFirst = true
        while true {
            if take("&&") {
                let part = ScalarSet(ranges)
                whole = whole?.intersection(part) ?? part
                ranges = []
                continue
            }
            if !isFirst, take("]") { break }
            if isFirst, peek() == "]", !scalars[(position + 1)...].contains("]") {
                throw Refusal(reason: "an empty class")
            }
            isFirst = false
            let (set, isClass) = try bracketItem(flags)
            guard !isClass, let first = set.ranges.first?.lowerBound, peek() == "-", let behind = peek(1), behind != "]"
            else {
                ranges += try (isClass ? set : caseVariants(set, flags)).ranges
                continue
            }
            position += 1
            let (end, endIsClass) = try bracketItem(flags)
            guard !endIsClass, let last = end.ranges.first?.lowerBound else {
                throw Refusal(reason: "a range that ends in a class")
            }
            guard first <= last else { throw Refusal(reason: "a range whose end is before its start") }
            ranges += try caseVariants(ScalarSet([first...last]), flags).ranges
        }
        let part = ScalarSet(ranges)
        let set = whole?.intersection(part) ?? part
        return isNegated ? set.inverted : set
    }

    private mutating func bracketItem(_ flags: Flags) throws(Refusal) -> (ScalarSet, isClass: Bool) {
        if take("[:") {
            let isNegated = take("^")
            var name = ""
            while !take(":]") { name.unicodeScalars.append(try next("[:…:]")) }
            guard let set = CharacterClass.bracket(name) else { throw Refusal(reason: "the class [:\(name):]") }
            return (isNegated ? set.inverted : set, true)
        }
        let scalar = try next("class")
        switch scalar {
        case "[": return (try bracket(flags), true)
        case "\\":
            if take("b") { return (ScalarSet("\u{8}"), false) }
            return try escapedSet(word: CharacterClass.word)
        default: return (ScalarSet([scalar.value...scalar.value]), false)
        }
    }
}
