// The last stage of a tokenizer: the special tokens around a sequence.

import Checkpoints

/// What stands before and behind a single sequence.
struct PostProcessor: Sendable, Equatable {
    struct SpecialToken: Sendable, Equatable {
        var id: Int32
        var typeId: Int32
    }

    var prefix: [SpecialToken] = []
    var suffix: [SpecialToken] = []
    /// The segment id of the sequence's own tokens.
    var typeId: Int32 = 0

    private static let supported = ["BertProcessing", "Sequence of one of these", "TemplateProcessing"]

    /// No special tokens.
    init() {}

    init(_ component: Component) throws(FileError) {
        switch try component.type() {
        case "TemplateProcessing": try self.init(template: component)
        case "BertProcessing":
            self.init()
            prefix = [SpecialToken(id: try Self.pairedId(component, "cls"), typeId: 0)]
            suffix = [SpecialToken(id: try Self.pairedId(component, "sep"), typeId: 0)]
        case "Sequence":
            let parts = try component.elements("processors")
            guard parts.count == 1 else { throw component.unsupported("a Sequence of \(parts.count) processors", supported: Self.supported) }
            try self.init(parts[0])
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

    private init(template component: Component) throws(FileError) {
        var sequences = 0
        for piece in try component.elements("single") {
            if let special = piece.member("SpecialToken") {
                let name = try special.string("id")
                guard let ids = component.json["special_tokens"]?[name]?["ids"]?.array else {
                    throw special.malformed("the special token '\(name)' is not among the template's special_tokens")
                }
                let typeId = try special.id("type_id")
                for value in ids {
                    guard let value = value.int, let id = Int32(exactly: value), id >= 0 else {
                        throw special.malformed("the special token '\(name)' has no token id")
                    }
                    let token = SpecialToken(id: id, typeId: typeId)
                    if sequences == 0 { prefix.append(token) } else { suffix.append(token) }
                }
            } else if let sequence = piece.member("Sequence"), try sequence.string("id") == "A" {
                sequences += 1
                typeId = try sequence.id("type_id")
            } else {
                throw piece.malformed("is neither a special token nor sequence A")
            }
        }
        guard sequences == 1 else { throw component.malformed("the template 'single' names sequence A \(sequences) times, not once") }
    }
}
