// The last stage of a tokenizer: the special tokens around one text or two.

import Files

/// What stands around and between texts.
///
/// Processors of a file rearrange whole texts and special tokens, whatever the texts hold. So they are applied once,
/// when the file is read, to place-holders; what comes out is a layout for one text and one for two, each with and
/// without special tokens.
struct PostProcessor: Sendable, Equatable {
    struct SpecialToken: Sendable, Equatable {
        var id: Int32
        var typeId: Int32
    }

    /// One way of taking whitespace out of offsets; see ``TextTokens/trim(_:)``.
    struct Trimming: Sendable, Equatable {
        var keepsPrefixSpace: Bool
        /// Whether the text's first token is the first of the encoding at that point, no special token before it.
        var startsEncoding: Bool
    }

    /// A part of a layout.
    enum Part: Sendable, Equatable {
        case special(SpecialToken)
        /// The first text (0) or the second (1).
        case text(Int, typeId: Int32, trimmings: [Trimming])
    }

    struct Layout: Sendable, Equatable {
        var parts: [Part]

        fileprivate init(_ encodings: [[Part]]) { parts = Array(encodings.joined()) }

        /// The special tokens before all texts.
        var prefix: [SpecialToken] { Self.specials(parts) }
        /// The special tokens behind all texts.
        var suffix: [SpecialToken] { Self.specials(parts.reversed()).reversed() }

        private static func specials(_ parts: some Sequence<Part>) -> [SpecialToken] {
            var found: [SpecialToken] = []
            for part in parts {
                guard case .special(let token) = part else { break }
                found.append(token)
            }
            return found
        }

        fileprivate var largestTypeId: Int32 {
            parts.reduce(0) {
                switch $1 {
                case .special(let token): max($0, token.typeId)
                case .text(_, let typeId, _): max($0, typeId)
                }
            }
        }

        fileprivate var largestId: Int32 {
            parts.reduce(-1) { if case .special(let token) = $1 { max($0, token.id) } else { $0 } }
        }
    }

    /// Layouts by number of texts less one and by whether special tokens are put in.
    private let layouts: [[Layout]]
    /// Whether any layout trims, so that tokens' margins must be known.
    let trims: Bool

    func layout(texts: Int, addSpecialTokens: Bool) -> Layout { layouts[texts - 1][addSpecialTokens ? 1 : 0] }

    /// The largest id of a special token that is put in, −1 for none.
    var largestId: Int32 { layouts.joined().map(\.largestId).max() ?? -1 }

    /// The largest type of a token, of texts alone and in pairs.
    var largestTypeId: Int32 { layouts.joined().map(\.largestTypeId).max() ?? 0 }

    /// - Parameter component: the file's `post_processor`, or nil for no special tokens.
    init(_ component: Component?) throws(FileError) {
        let processors = if let component { try Processor.list(component) } else { [Processor]() }
        var layouts: [[Layout]] = []
        for texts in 1...2 {
            var pair: [Layout] = []
            for addSpecialTokens in [false, true] {
                var encodings: [[Part]] = (0..<texts).map { [.text($0, typeId: Int32($0), trimmings: [])] }
                for processor in processors {
                    encodings = try processor.apply(to: encodings, addSpecialTokens: addSpecialTokens)
                }
                pair.append(Layout(encodings))
            }
            layouts.append(pair)
        }
        self.layouts = layouts
        trims = layouts.joined().contains { layout in
            layout.parts.contains { if case .text(_, _, let trimmings) = $0 { !trimmings.isEmpty } else { false } }
        }
        if let component { try check(component) }
    }

    /// One text must keep its place between prefix and suffix, and no text may be dropped.
    private func check(_ component: Component) throws(FileError) {
        for texts in 1...2 {
            for text in 0..<texts {
                let uses = layout(texts: texts, addSpecialTokens: true).parts.count {
                    if case .text(text, _, _) = $0 { true } else { false }
                }
                guard uses == 1 else {
                    let name = texts == 1 ? "single" : "pair"
                    throw component.malformed(
                        "the template '\(name)' names sequence \(text == 0 ? "A" : "B") \(uses) times, not once")
                }
            }
        }
    }
}

/// One processor of a file.
private struct Processor {
    private enum Kind {
        case bert(cls: Int32, sep: Int32)
        case roberta(cls: Int32, sep: Int32, trims: Bool, keepsPrefixSpace: Bool)
        case byteLevel(trims: Bool, keepsPrefixSpace: Bool)
        case template([[Piece]])
    }

    private enum Piece {
        case specials([PostProcessor.SpecialToken])
        case text(Int, typeId: Int32)
    }

    private let kind: Kind
    private let component: Component

    private static let supported = [
        "BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing",
    ]

    /// The processors of a component, sequences laid flat.
    static func list(_ component: Component) throws(FileError) -> [Processor] {
        guard try component.type() == "Sequence" else { return [try Processor(component)] }
        var result: [Processor] = []
        for part in try component.elements("processors") { result += try list(part) }
        return result
    }

    private init(_ component: Component) throws(FileError) {
        self.component = component
        switch try component.type() {
        case "TemplateProcessing":
            kind = .template([
                try Self.template(component, "single", texts: ["A"]),
                component.json["pair"] == nil
                    ? [.text(0, typeId: 0), .text(1, typeId: 1)]
                    : try Self.template(component, "pair", texts: ["A", "B"]),
            ])
        case "BertProcessing":
            kind = .bert(cls: try Self.pairedId(component, "cls"), sep: try Self.pairedId(component, "sep"))
        case "RobertaProcessing":
            kind = .roberta(
                cls: try Self.pairedId(component, "cls"), sep: try Self.pairedId(component, "sep"),
                trims: try component.bool("trim_offsets"), keepsPrefixSpace: try component.bool("add_prefix_space"))
        case "ByteLevel":
            kind = .byteLevel(
                trims: try component.bool("trim_offsets", default: true),
                keepsPrefixSpace: try component.bool("add_prefix_space", default: true))
        case let other: throw component.unsupported(other, supported: Self.supported)
        }
    }

    /// A token written as `["[CLS]", 101]`.
    private static func pairedId(_ component: Component, _ key: String) throws(FileError) -> Int32 {
        guard let value = component.json[key]?[1]?.int, let id = Int32(exactly: value), id >= 0 else {
            throw component.malformed("has no token and id '\(key)'")
        }
        return id
    }

    /// Each use of a special token may stand for a list of ids.
    private static let mostSpecialTokens = 4096

    private static func template(_ component: Component, _ key: String, texts: [String]) throws(FileError) -> [Piece] {
        var pieces: [Piece] = []
        var count = 0
        for piece in try component.elements(key) {
            if let special = piece.member("SpecialToken") {
                let name = try special.string("id")
                guard let ids = component.json["special_tokens"]?[name]?["ids"]?.array else {
                    throw special.malformed("the special token '\(name)' is not among the template's special_tokens")
                }
                let typeId = try special.id("type_id")
                var tokens: [PostProcessor.SpecialToken] = []
                for value in ids {
                    guard let value = value.int, let id = Int32(exactly: value), id >= 0 else {
                        throw special.malformed("the special token '\(name)' has no token id")
                    }
                    tokens.append(PostProcessor.SpecialToken(id: id, typeId: typeId))
                }
                pieces.append(.specials(tokens))
                count += tokens.count
                guard count <= mostSpecialTokens else {
                    throw component.malformed(
                        "the template '\(key)' puts more than \(mostSpecialTokens) special tokens around a text")
                }
            } else if let sequence = piece.member("Sequence"),
                let text = texts.firstIndex(of: try sequence.string("id"))
            {
                pieces.append(.text(text, typeId: try sequence.id("type_id")))
            } else {
                throw piece.malformed("is neither a special token nor sequence \(texts.joined(separator: " or "))")
            }
        }
        return pieces
    }

    /// Rearranges encodings, as the reference implementation does even where no model asks for it: what a processor
    /// takes for a text may be a special token that one before it put in.
    func apply(to encodings: [[PostProcessor.Part]], addSpecialTokens: Bool) throws(FileError) -> [[PostProcessor.Part]]
    {
        switch kind {
        case .byteLevel(let trims, let keepsPrefixSpace):
            return trims ? encodings.map { Self.trimmed($0, keepsPrefixSpace) } : encodings
        case .bert(let cls, let sep):
            guard addSpecialTokens else { return encodings }
            return encodings.enumerated().map { index, encoding in
                index == 0
                    ? [Self.special(cls, 0)] + encoding + [Self.special(sep, 0)] : encoding + [Self.special(sep, 1)]
            }
        case .roberta(let cls, let sep, let trims, let keepsPrefixSpace):
            return encodings.enumerated().map { index, encoding in
                var encoding = trims ? Self.trimmed(encoding, keepsPrefixSpace) : encoding
                for position in encoding.indices { encoding[position] = Self.typed(encoding[position], 0) }
                return addSpecialTokens
                    ? [Self.special(index == 0 ? cls : sep, 0)] + encoding + [Self.special(sep, 0)] : encoding
            }
        case .template(let templates):
            guard templates.indices.contains(encodings.count - 1) else {
                throw component.unsupported("a template behind another template", supported: ["one template"])
            }
            return templates[encodings.count - 1].compactMap { piece in
                switch piece {
                case .text(let text, let typeId): encodings[text].map { Self.typed($0, typeId) }
                case .specials(let tokens): addSpecialTokens ? tokens.map { .special($0) } : nil
                }
            }
        }
    }

    private static func special(_ id: Int32, _ typeId: Int32) -> PostProcessor.Part {
        .special(.init(id: id, typeId: typeId))
    }

    private static func typed(_ part: PostProcessor.Part, _ typeId: Int32) -> PostProcessor.Part {
        switch part {
        case .special(let token): special(token.id, typeId)
        case .text(let text, _, let trimmings): .text(text, typeId: typeId, trimmings: trimmings)
        }
    }

    private static func trimmed(_ encoding: [PostProcessor.Part], _ keepsPrefixSpace: Bool) -> [PostProcessor.Part] {
        encoding.enumerated().map { position, part in
            guard case .text(let text, let typeId, let trimmings) = part else { return part }
            let trimming = PostProcessor.Trimming(keepsPrefixSpace: keepsPrefixSpace, startsEncoding: position == 0)
            return .text(text, typeId: typeId, trimmings: trimmings + [trimming])
        }
    }
}
