// The first stage of a tokenizer: what is done to the text before it is split.

import Files

/// A normalizer of `tokenizer.json`.
enum Normalizer: Sendable {
    case bert(BertNormalizer)
    case lowercase
    /// Forms D and KD of UAX #15.
    case decompose(isCompatible: Bool)
    /// Forms C and KC of UAX #15.
    case compose(isCompatible: Bool)
    /// Removes all marks of what is there; does not decompose first.
    case stripAccents
    /// Removes whitespace at the ends.
    case strip(left: Bool, right: Bool)
    /// Puts scalars in front of a text that is not empty.
    case prepend([UInt32])
    case replace(Replacement)
    /// Removes controls and turns unusual spaces into spaces, as in sentencepiece's rules `nmt`.
    case nmt
    case precompiled(PrecompiledNormalizer)
    /// Turns every byte of UTF-8 into a printable scalar.
    case byteLevel
    case sequence([Normalizer])

    private static let supported = [
        "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
        "Replace",
        "Sequence", "Strip", "StripAccents",
    ]

    init(_ component: Component) throws(FileError) {
        switch try component.type() {
        case "BertNormalizer": self = .bert(try BertNormalizer(component))
        case "ByteLevel": self = .byteLevel
        case "Lowercase": self = .lowercase
        case "NFC": self = .compose(isCompatible: false)
        case "NFD": self = .decompose(isCompatible: false)
        case "NFKC": self = .compose(isCompatible: true)
        case "NFKD": self = .decompose(isCompatible: true)
        case "Nmt": self = .nmt
        case "Precompiled": self = .precompiled(try PrecompiledNormalizer(component))
        case "Prepend":
            let text = try component.string("prepend")
            guard !text.isEmpty else { throw component.malformed("prepends nothing") }
            self = .prepend(text.unicodeScalars.map(\.value))
        case "Replace": self = .replace(try Replacement(component))
        case "StripAccents": self = .stripAccents
        case "Strip": self = .strip(left: try component.bool("strip_left"), right: try component.bool("strip_right"))
        case "Sequence":
            var parts: [Normalizer] = []
            for part in try component.elements("normalizers") { parts.append(try Normalizer(part)) }
            self = .sequence(parts)
        case let other: throw component.unsupported(other, supported: Self.supported)
        }
    }

    /// How many scalars may come of one if stages like it follow each other; what is done once only, as decomposing,
    /// does not count.
    var growth: Double {
        switch self {
        case .byteLevel: 4
        case .prepend(let scalars): Double(1 + scalars.count)
        case .replace(let replacement): replacement.growth
        case .precompiled(let normalizer): normalizer.growth
        case .sequence(let parts): parts.reduce(1) { $0 * $1.growth }
        case .bert, .lowercase, .decompose, .compose, .stripAccents, .strip, .nmt: 1
        }
    }

    /// Lowercase, then what a file says; that alone where it has a step of its own for it.
    static func lowercasing(_ steps: Normalizer?) -> Normalizer {
        let list: [Normalizer] = if case .sequence(let parts) = steps { parts } else { steps.map { [$0] } ?? [] }
        let lowercases = list.contains { if case .lowercase = $0 { true } else { false } }
        return .sequence(lowercases ? list : [.lowercase] + list)
    }

    func apply(to text: inout NormalizedText) {
        switch self {
        case .bert(let normalizer): normalizer.apply(to: &text)
        case .byteLevel: ByteAlphabet.spell(&text)
        case .lowercase: text.lowercase()
        case .decompose(let isCompatible): text.decompose(isCompatible: isCompatible)
        case .compose(let isCompatible): text.compose(isCompatible: isCompatible)
        case .nmt:
            text.removeAll(.nmtRemoved)
            text.replaceAll(.nmtSpace, with: 0x20)
        case .precompiled(let normalizer): normalizer.apply(to: &text)
        case .prepend(let scalars): text.prepend(scalars)
        case .replace(let replacement): replacement.apply(to: &text)
        case .stripAccents: text.removeAll(.mark)
        case .strip(let left, let right): text.strip(left: left, right: right)
        case .sequence(let parts):
            for part in parts { part.apply(to: &text) }
        }
    }
}

/// The normalizer of BERT: cleaning, ideographs set apart, accents stripped, lowercase, in this order.
struct BertNormalizer: Sendable, Equatable {
    var cleansText: Bool
    var separatesIdeographs: Bool
    var stripsAccents: Bool
    var lowercases: Bool

    init(_ component: Component) throws(FileError) {
        cleansText = try component.bool("clean_text", default: true)
        separatesIdeographs = try component.bool("handle_chinese_chars", default: true)
        lowercases = try component.bool("lowercase", default: true)
        // Where the file leaves it open, accents go with case.
        switch component.json["strip_accents"] {
        case nil, .null: stripsAccents = lowercases
        default: stripsAccents = try component.bool("strip_accents")
        }
    }

    func apply(to text: inout NormalizedText) {
        if cleansText {
            text.removeAll(.removed)
            text.replaceAll(.whitespace, with: 0x20)
        }
        if separatesIdeographs {
            text.expandAll(.ideograph) { scalar, emit in
                emit(0x20)
                emit(scalar)
                emit(0x20)
            }
        }
        if stripsAccents {
            text.decompose()
            text.removeAll(.nonspacing)
        }
        if lowercases { text.lowercase() }
    }
}

extension NormalizedText {
    /// Lowercases scalar by scalar, without regard to neighbours: a final sigma stays σ.
    mutating func lowercase() {
        expandAll(.lowercases) { scalar, emit in
            if scalar < 0x80 { emit(scalar + 0x20) } else { ScalarProperties.lowercase(of: scalar, emit) }
        }
    }
}
