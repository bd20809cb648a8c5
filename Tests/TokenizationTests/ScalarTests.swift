// Every Unicode scalar goes through every component as it does in the Python package.

import Files
import Testing
import Tokenization

@Suite struct ScalarTests {
    /// A tokenizer of one component and an empty vocabulary.
    private static func tokenizer(_ stage: String, _ component: JSON) throws -> Tokenizer {
        let model = try JSON.parse(
            Array(#"{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0}}"#.utf8), path: "model")
        return try Tokenizer(json: .object([("model", model), (stage, component)]), path: "test")
    }

    /// All scalars, 4,096 a block; the surrogates are none.
    private static let blocks: [[Unicode.Scalar]] = stride(from: 0, to: 0x110000, by: 4096).map { start in
        (start..<start + 4096).compactMap { Unicode.Scalar(UInt32($0)) }
    }

    /// All blocks in a release build. Without optimisation the planes of which nothing is assigned or all is private
    /// use (4 to 13, 15 and 16) would take minutes: one block of each plane stands for the rest.
    private static func isTested(_ block: Int) -> Bool {
        #if DEBUG
        block < 64 || block / 16 == 14 || block % 16 == 0
        #else
        true
        #endif
    }

    private static func text(_ block: [Unicode.Scalar], _ before: String, _ after: String, _ separator: String = "")
        -> String
    {
        var view = String.UnicodeScalarView()
        for (index, scalar) in block.enumerated() {
            if index > 0 { view.append(contentsOf: separator.unicodeScalars) }
            view.append(contentsOf: before.unicodeScalars)
            view.append(scalar)
            view.append(contentsOf: after.unicodeScalars)
        }
        return String(view)
    }

    private func check(_ group: String, _ stage: String, _ result: (Tokenizer, [Unicode.Scalar], JSON) -> String) throws
    {
        let entries = try #require(try Goldens.load("scalars.json")[group]?.array)
        #expect(!entries.isEmpty)
        for entry in entries {
            let name = try #require(entry["name"]?.string)
            let tokenizer = try Self.tokenizer(stage, try #require(entry["component"]))
            let digests = Goldens.digests(entry["digests"]?.string ?? "")
            #expect(digests.count == Self.blocks.count)
            for (index, (block, expected)) in zip(Self.blocks, digests).enumerated() where Self.isTested(index) {
                let found = Goldens.digest(result(tokenizer, block, entry).utf8)
                #expect(found == expected, "\(group) \(name), scalars from U+\(String(index * 4096, radix: 16))")
            }
        }
    }

    /// Each scalar stands between texts that the golden names.
    private func checkNormalizers(_ group: String) throws {
        try check(group, "normalizer") { tokenizer, block, entry in
            tokenizer.normalized(Self.text(block, entry["before"]?.string ?? "", entry["after"]?.string ?? ""))
        }
    }

    @Test func normalizersAgreeOnEveryScalar() throws { try checkNormalizers("normalize") }

    @Test func canonicalOrderAgreesOnEveryScalar() throws { try checkNormalizers("order") }

    @Test func preTokenizersAgreeOnEveryScalar() throws {
        try check("split", "pre_tokenizer") { tokenizer, block, _ in
            tokenizer.words(of: Self.text(block, "a", "b", " ")).joined(separator: "\u{1}")
        }
    }
}

extension JSON {
    fileprivate static func object(_ members: [(String, JSON)]) -> JSON {
        var object = JSONObject()
        for (key, value) in members { object.set(key, value) }
        return .object(object)
    }
}
