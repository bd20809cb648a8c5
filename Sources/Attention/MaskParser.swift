// Mask expressions as they are written on the command line.

import Tiles

/// What is wrong with a mask expression, and where.
public struct MaskSyntaxError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The expression.
    public let expression: String
    /// The Unicode scalar at which the fault stands, from 0; the count of scalars for the end.
    public let place: Int
    /// What is wrong, in words that go before the place.
    public let reason: String

    /// Three lines: the reason, the expression, and a caret under the place.
    public var description: String {
        let shown = expression.unicodeScalars.map { $0.value < 0x20 ? " " : String($0) }.joined()
        return "mask: \(reason) at character \(place + 1)\n  \(shown)\n  \(String(repeating: " ", count: place))^"
    }
}

extension Mask {
    /// The masks that an expression can name, with their arguments, as help lists them.
    public static let names = [
        "full", "causal", "window(left,right) (-1: unlimited)", "documents(n1,n2,…) or documents(q…;k…)", "prefix(n)",
        "global(i,j,…)", "blocks(FILE.npy,SIZE)",
    ]

    /// Parses an expression: `full`, `causal`, `window(left,right)`, `documents(n1,n2,…)` or `documents(q…;k…)`,
    /// `prefix(n)`, `global(i,j,…)`, `blocks(FILE,SIZE)`; `!`, `&`, `|` in that precedence or `not`, `and`, `or`;
    /// parentheses.
    /// - Parameters:
    ///   - expression: the text; space between words and signs does not count.
    ///   - blocks: reads the file of a `blocks` mask.
    /// - Throws: `MaskSyntaxError`; what `blocks` throws.
    public init(
        parsing expression: String, blocks: @escaping (_ path: String, _ size: Int) throws -> BlockMask
    ) throws {
        var parser = MaskParser(expression, blocks: blocks)
        self = try parser.wholeExpression()
    }
}

private struct MaskParser {
    private let expression: String
    private let scalars: [Unicode.Scalar]
    private var place = 0
    private let blocks: (String, Int) throws -> BlockMask
    /// Parentheses and negations may nest so deep, and no deeper: the parser recurses.
    private var depth = 0
    private static let deepest = 200
    /// How many masks there are so far: what goes over an expression recurses once for each that is joined to others.
    private var count = 0
    private static let most = 1000

    /// The largest number, and sum of lengths.
    private static let largest = 1 << 48

    init(_ expression: String, blocks: @escaping (String, Int) throws -> BlockMask) {
        self.expression = expression
        scalars = Array(expression.unicodeScalars)
        self.blocks = blocks
    }

    mutating func wholeExpression() throws -> Mask {
        let mask = try disjunction()
        skipSpace()
        if place < scalars.count { throw fault("expected '&', '|' or the end") }
        return mask
    }

    private mutating func disjunction() throws -> Mask {
        var mask = try conjunction()
        while take("|", word: "or") { mask = .or(mask, try conjunction()) }
        return mask
    }

    private mutating func conjunction() throws -> Mask {
        var mask = try negation()
        while take("&", word: "and") { mask = .and(mask, try negation()) }
        return mask
    }

    private mutating func negation() throws -> Mask {
        depth += 1
        defer { depth -= 1 }
        if depth > Self.deepest { throw fault("nested too deep") }
        if take("!", word: "not") { return .not(try negation()) }
        if take("(") {
            let mask = try disjunction()
            try expect(")")
            return mask
        }
        return try named()
    }

    private mutating func named() throws -> Mask {
        skipSpace()
        let start = place
        count += 1
        if count > Self.most { throw fault("more than \(Self.most) masks; say it with fewer, of ranges and lists") }
        let name = word()
        switch name {
        case "full": return .full
        case "causal": return .causal
        case "window":
            let (left, right) = try pair()
            return .window(left: left, right: right)
        case "prefix":
            try expect("(")
            let count = try number(least: 0)
            try expect(")")
            return .prefix(count)
        case "documents":
            try expect("(")
            let first = try list()
            var second = first
            if take(";") {
                second = try list()
                if second.count != first.count {
                    throw fault("\(first.count) documents of queries, and \(second.count) of keys")
                }
            }
            try expect(")")
            for lengths in [first, second] where lengths.reduce(0.0, { $0 + Double($1) }) > Double(Self.largest) {
                throw fault("documents of more than \(Self.largest) tokens together")
            }
            return .documents(DocumentMask(queries: first, keys: second))
        case "global":
            try expect("(")
            let tokens = try list()
            try expect(")")
            return .global(Runs(tokens.map { $0..<$0 + 1 }))
        case "blocks":
            try expect("(")
            let path = fileName()
            if path.isEmpty { throw fault("expected a file name") }
            try expect(",")
            let size = try number(least: 1)
            try expect(")")
            return .blocks(try blocks(path, size))
        default:
            place = start
            throw fault(
                name.isEmpty
                    ? "expected a mask"
                    : "'\(name)' is no mask; known are "
                        + Mask.names.map { $0.prefix { $0.isLetter } }.joined(separator: ", "))
        }
    }

    private mutating func pair() throws -> (Int, Int) {
        try expect("(")
        let left = try number(least: -1)
        try expect(",")
        let right = try number(least: -1)
        try expect(")")
        return (left, right)
    }

    private mutating func list() throws -> [Int] {
        var numbers = [try number(least: 0)]
        while take(",") { numbers.append(try number(least: 0)) }
        return numbers
    }

    private mutating func number(least: Int) throws -> Int {
        skipSpace()
        let start = place
        var text = ""
        while place < scalars.count, scalars[place] == "-" && text.isEmpty || ("0"..."9").contains(scalars[place]) {
            text.unicodeScalars.append(scalars[place])
            place += 1
        }
        // Positions and lengths stay far from overflow when they are added.
        guard let value = Int(text), value >= least, value <= Self.largest else {
            place = start
            throw fault("expected a whole number of at least \(least)")
        }
        return value
    }

    private mutating func word() -> String {
        var text = ""
        while place < scalars.count, scalars[place].properties.isAlphabetic {
            text.unicodeScalars.append(scalars[place])
            place += 1
        }
        return text
    }

    private mutating func fileName() -> String {
        skipSpace()
        var text = ""
        while place < scalars.count, scalars[place] != ",", scalars[place] != ")" {
            text.unicodeScalars.append(scalars[place])
            place += 1
        }
        return text
    }

    private mutating func skipSpace() {
        while place < scalars.count, scalars[place].properties.isWhitespace { place += 1 }
    }

    /// Takes a sign, or the word that stands for it.
    private mutating func take(_ sign: Unicode.Scalar, word wanted: String? = nil) -> Bool {
        skipSpace()
        if place < scalars.count, scalars[place] == sign {
            place += 1
            return true
        }
        guard let wanted else { return false }
        let start = place
        if word() == wanted { return true }
        place = start
        return false
    }

    private mutating func expect(_ sign: Unicode.Scalar) throws {
        if !take(sign) { throw fault("expected '\(sign)'") }
    }

    private func fault(_ reason: String) -> MaskSyntaxError {
        MaskSyntaxError(expression: expression, place: place, reason: reason)
    }
}
