// Text that is lowercased before all else keeps the offsets that it has as it was given, whatever grows by it.

import Files
import Testing
import Tokenization

@Suite struct LowercaseTests {
    /// Every scalar is a word of its own.
    private func tokenizer(normalizer: String = "null", lowercase: Bool = true) throws -> Tokenizer {
        let text = """
            {"normalizer": \(normalizer), "added_tokens": [{"id": 1, "content": "[MASK]", "special": true, "normalized": false}],
             "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\\\s\\\\S]"}, "behavior": "Isolated", "invert": false},
             "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "[MASK]": 1, "i": 2, "\\u0307": 3, "b": 4, "B": 5, "σ": 6}}}
            """
        return try Tokenizer(json: JSON.parse(Array(text.utf8), path: "t"), path: "t", lowercase: lowercase)
    }

    @Test func whatGrowsKeepsItsPlace() throws {
        let encoding = try tokenizer().encode("İBb[MASK]ΒΣ")
        #expect(encoding.ids == [2, 3, 4, 4, 1, 0, 6])
        #expect(encoding.offsets == [0..<1, 0..<1, 1..<2, 2..<3, 3..<9, 9..<10, 10..<11])
        // Without it, as the file says.
        #expect(try tokenizer(lowercase: false).encode("Bb").ids == [5, 4])
    }

    /// A file that lowercases by a step of its own is left as it is.
    @Test func aNormalizerThatLowercasesIsEnough() throws {
        for normalizer in [
            #"{"type": "Lowercase"}"#,
            #"{"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}"#,
        ] {
            let (once, twice) = (
                try tokenizer(normalizer: normalizer, lowercase: false), try tokenizer(normalizer: normalizer)
            )
            for text in ["İB", "Bİ\u{307}", "ÀΣ"] { #expect(once.encode(text) == twice.encode(text)) }
        }
    }

    /// Behind each scalar that there is, a B stands where it stood.
    @Test func allScalarsKeepThePlacesOfWhatFollows() throws {
        let text =
            #"{"pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "b": 1}}}"#
        let tokenizer = try Tokenizer(json: JSON.parse(Array(text.utf8), path: "t"), path: "t", lowercase: true)
        var growing: [UInt32] = []
        for block in stride(from: UInt32(0), to: 0x110000, by: 4096) {
            let scalars = (block..<block + 4096).compactMap { Unicode.Scalar($0) }.filter { $0 != "b" && $0 != "B" }
            var text = String.UnicodeScalarView()
            for scalar in scalars { text += [scalar, " ", "B", " "] }
            let encoding = tokenizer.encode(String(text))
            let places = encoding.ids.indices.filter { encoding.ids[$0] == 1 }
            let wrong = zip(places, scalars.indices).contains { encoding.offsets[$0] != 4 * $1 + 2..<4 * $1 + 3 }
            #expect(places.count == scalars.count && !wrong, "from U+\(String(block, radix: 16))")
            if tokenizer.normalized(String(text)).unicodeScalars.count != text.count {
                for scalar in scalars where tokenizer.normalized(String(scalar)).unicodeScalars.count != 1 {
                    growing.append(scalar.value)
                }
            }
        }
        // Of all scalars one becomes two.
        #expect(growing == [0x130])
    }
}
