// Ids, offsets, masks, type ids, words and sequences are those of the Python package, text by text.

import Files
import Testing
import Tokenization

@Suite struct GoldenTests {
    static let small = ["uncased", "cased", "added", "decomposed", "composed", "stripped"]

    @Test(arguments: small)
    func textsEncodeAsTheReferenceDoes(_ name: String) throws {
        try checkTexts(Tokenizer.load(folder: Goldens.folder + "/" + name), name)
    }

    @Test(arguments: small)
    func fuzzLinesEncodeAsTheReferenceDoes(_ name: String) throws {
        try checkFuzz(Tokenizer.load(folder: Goldens.folder + "/" + name), name)
    }

    @Test(arguments: small)
    func pairsEncodeAsTheReferenceDoes(_ name: String) throws {
        try checkPairs(Tokenizer.load(folder: Goldens.folder + "/" + name), name)
    }

    @Test(.enabled(if: Goldens.hasMinilm, "all-MiniLM-L6-v2 is not in the cache; scripts/fetch-minilm gets it"))
    func minilmEncodesAsTheReferenceDoes() throws {
        let tokenizer = try Tokenizer.load(folder: Goldens.minilm)
        #expect(tokenizer.vocabularySize == 30522)
        #expect(tokenizer.largestId == 30521)
        #expect(tokenizer.prefixIds == [101] && tokenizer.suffixIds == [102])
        try checkTexts(tokenizer, "minilm")
        try checkFuzz(tokenizer, "minilm")
        try checkPairs(tokenizer, "minilm")
    }

    private func checkTexts(_ tokenizer: Tokenizer, _ name: String) throws {
        let texts = try Goldens.strings("texts.json")
        let goldens = try #require(try Goldens.load(name + "/goldens.json")["texts"]?.array)
        #expect(texts.count >= 40 && goldens.count == texts.count)
        for (index, (text, golden)) in zip(texts, goldens).enumerated() {
            let encoding = tokenizer.encode(text)
            let ids = golden["ids"]?.array?.compactMap(\.int) ?? []
            let offsets = golden["offsets"]?.array?.compactMap(\.int) ?? []
            #expect(encoding.ids.map(Int.init) == ids, "ids of text \(index) \(text.debugDescription)")
            #expect(
                encoding.offsets.flatMap { [$0.lowerBound, $0.upperBound] } == offsets,
                "offsets of text \(index) \(text.debugDescription)")
            #expect(
                encoding.specialTokensMask.map { $0 ? "1" : "0" }.joined() == golden["mask"]?.string,
                "mask of text \(index)")
        }
    }

    private func checkFuzz(_ tokenizer: Tokenizer, _ name: String) throws {
        let lines = try Goldens.strings("fuzz.json")
        let digests = Goldens.digests(try Goldens.load(name + "/goldens.json")["fuzz"]?.string ?? "")
        #expect(lines.count >= 2000 && digests.count == lines.count)
        for (index, (line, expected)) in zip(lines, digests).enumerated() {
            let encoding = tokenizer.encode(line)
            #expect(
                Goldens.digest(of: encoding) == expected, "fuzz line \(index) \(line.debugDescription) gave \(encoding)"
            )
        }
    }

    /// Every text with the one behind it, with special tokens and without.
    private func checkPairs(_ tokenizer: Tokenizer, _ name: String) throws {
        let texts = try Goldens.strings("texts.json")
        let goldens = try Goldens.load(name + "/goldens.json")
        for (key, addSpecialTokens) in [("pairs", true), ("bare", false)] {
            let digests = Goldens.digests(goldens[key]?.string ?? "")
            #expect(digests.count == texts.count)
            for (index, expected) in digests.enumerated() {
                let (first, second) = (texts[index], texts[(index + 1) % texts.count])
                let encoding = tokenizer.encode(first, pair: second, addSpecialTokens: addSpecialTokens)
                #expect(
                    Goldens.digest(of: encoding) == expected,
                    "\(name), \(key): texts \(index) and next gave \(encoding)")
            }
        }
    }
}
