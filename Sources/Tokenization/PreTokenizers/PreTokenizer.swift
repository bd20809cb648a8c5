// The second stage of a tokenizer: splitting normalised text into words.

import Files

/// A pre-tokenizer of `tokenizer.json`.
enum PreTokenizer: Sendable {
    /// Whitespace is dropped, each punctuation mark is a word.
    case bert
    case byteLevel(ByteLevel)
    /// Runs of `\w` and runs of what is neither `\w` nor whitespace.
    case whitespace
    /// Whitespace is dropped.
    case whitespaceSplit
    case punctuation(SplitBehavior)
    /// Numbers are words of their own, or each of their digits is.
    case digits(isIndividual: Bool)
    /// The scalar is dropped.
    case delimiter(UInt32)
    /// - Parameter isInverted: whether what does not match is the delimiter.
    case split(RegularExpression, SplitBehavior, isInverted: Bool)
    case metaspace(Metaspace)
    case sequence([PreTokenizer])

    private static let supported = [
        "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence",
        "Split",
        "Whitespace", "WhitespaceSplit",
    ]

    init(_ component: Component) throws(FileError) {
        switch try component.type() {
        case "BertPreTokenizer": self = .bert
        case "ByteLevel": self = .byteLevel(try ByteLevel(component))
        case "CharDelimiterSplit": self = .delimiter(try component.scalar("delimiter"))
        case "Digits": self = .digits(isIndividual: try component.bool("individual_digits"))
        case "Metaspace": self = .metaspace(try Metaspace(component))
        case "Punctuation": self = .punctuation(try SplitBehavior(component, default: .isolated))
        case "Split":
            self = .split(
                try component.pattern("pattern"), try SplitBehavior(component), isInverted: try component.bool("invert")
            )
        case "Whitespace": self = .whitespace
        case "WhitespaceSplit": self = .whitespaceSplit
        case "Sequence":
            var parts: [PreTokenizer] = []
            for part in try component.elements("pretokenizers") { parts.append(try PreTokenizer(part)) }
            self = .sequence(parts)
        case let other: throw component.unsupported(other, supported: Self.supported)
        }
    }

    /// How many scalars may come of one: of a word of one scalar, which may get a space.
    var growth: Double {
        switch self {
        case .byteLevel: 5
        case .metaspace: 2
        case .sequence(let parts): parts.reduce(1) { $0 * $1.growth }
        case .bert, .whitespace, .whitespaceSplit, .punctuation, .digits, .delimiter, .split: 1
        }
    }

    /// Splits every word further, and may rewrite it. No word of the result is empty.
    func apply(to words: inout Words) {
        switch self {
        case .bert:
            words.split(at: .whitespace, .removed)
            words.split(at: .punctuation, .isolated)
        case .byteLevel(let byteLevel): byteLevel.apply(to: &words)
        case .whitespace: words.splitClasses()
        case .whitespaceSplit: words.split(at: .whitespace, .removed)
        case .punctuation(let behavior): words.split(at: .punctuation, behavior)
        case .digits(let isIndividual): words.split(at: .numeric, isIndividual ? .isolated : .contiguous)
        case .delimiter(let scalar): words.split(at: scalar, .removed)
        case .split(let pattern, let behavior, let isInverted):
            words.split(at: pattern, behavior, isInverted: isInverted)
        case .metaspace(let metaspace): metaspace.apply(to: &words)
        case .sequence(let parts):
            for part in parts { part.apply(to: &words) }
        }
    }
}
