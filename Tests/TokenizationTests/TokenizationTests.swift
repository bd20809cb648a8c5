// What must hold of a tokenizer whatever its vocabulary, and how bad files are refused.

import Files
import Testing
import Tokenization

@Suite struct TokenizationTests {
    private func tokenizer(_ name: String = "uncased") throws -> Tokenizer {
        try Tokenizer.load(folder: Goldens.folder + "/" + name)
    }

    @Test func emptyTextHasTheSpecialTokensAlone() throws {
        let tokenizer = try tokenizer()
        #expect(tokenizer.encode("").ids == tokenizer.prefixIds + tokenizer.suffixIds)
        #expect(tokenizer.encode("", addSpecialTokens: false).count == 0)
        #expect(tokenizer.specialTokenCount == 2)
    }

    @Test func specialTokensAreAWrapperAroundTheRest() throws {
        for name in GoldenTests.small {
            let tokenizer = try tokenizer(name)
            for text in try Goldens.strings("texts.json") {
                let whole = tokenizer.encode(text)
                let bare = tokenizer.encode(text, addSpecialTokens: false)
                #expect(whole.ids == tokenizer.prefixIds + bare.ids + tokenizer.suffixIds)
                #expect(
                    Array(whole.offsets.dropFirst(tokenizer.prefixIds.count).dropLast(tokenizer.suffixIds.count))
                        == bare.offsets)
                #expect(!bare.specialTokensMask.contains(true))
                #expect(tokenizer.tokenCount(text) == whole.count)
            }
        }
    }

    @Test func offsetsLieInTheTextAndNeverDecrease() throws {
        for name in GoldenTests.small {
            let tokenizer = try tokenizer(name)
            for line in try Goldens.strings("fuzz.json") {
                let count = line.unicodeScalars.count
                let offsets = tokenizer.encode(line, addSpecialTokens: false).offsets
                let areInside = offsets.allSatisfy { !$0.isEmpty && $0.upperBound <= count }
                let areOrdered = zip(offsets, offsets.dropFirst()).allSatisfy { $0.lowerBound <= $1.lowerBound }
                #expect(areInside && areOrdered, "\(name): \(line.debugDescription) gave \(offsets)")
            }
        }
    }

    @Test func tokensAndIdsAreInverse() throws {
        let tokenizer = try tokenizer("cased")
        for id in 0...tokenizer.largestId {
            let token = try #require(tokenizer.token(of: id))
            #expect(tokenizer.id(of: token) == id)
        }
        #expect(tokenizer.vocabularySize == Int(tokenizer.largestId) + 1)
        #expect(tokenizer.token(of: tokenizer.largestId + 1) == nil)
        #expect(tokenizer.token(of: -1) == nil)
        #expect(tokenizer.id(of: "no such token") == nil)
    }

    @Test func canonicallyEqualTokensStayApart() throws {
        // Swift strings would take é and e + U+0301 for one.
        let text = #"{"model":{"type":"WordPiece","unk_token":"?","vocab":{"?":0,"\u00e9":1,"e\u0301":2}}}"#
        let tokenizer = try Tokenizer(json: JSON.parse(Array(text.utf8), path: "t"), path: "t")
        #expect(tokenizer.encode("\u{e9}").ids == [1])
        #expect(tokenizer.encode("e\u{301}").ids == [2])
        #expect(tokenizer.vocabularySize == 3)
    }

    @Test func theContinuationPrefixIsTheModels() throws {
        #expect(try tokenizer().continuingSubwordPrefix == "##")
    }

    @Test func wordsBeyondTheLimitAreUnknownAsAWhole() throws {
        let text =
            ###"{"model":{"type":"WordPiece","unk_token":"?","vocab":{"?":0,"a":1,"##a":2},"max_input_chars_per_word":3}}"###
        let tokenizer = try Tokenizer(json: JSON.parse(Array(text.utf8), path: "t"), path: "t")
        #expect(tokenizer.encode("aaa").ids == [1, 2, 2])
        #expect(tokenizer.encode("aaaa").ids == [0])
        #expect(tokenizer.encode("aab").ids == [0])
        #expect(tokenizer.encode("aab").offsets == [0..<3])
    }

    @Test func textsWithoutEndAreEncoded() throws {
        // Quadratic work on any of these would not come back within the run.
        let tokenizer = try tokenizer()
        let unknown = try #require(tokenizer.id(of: "[UNK]"))
        let count = 300_000
        #expect(tokenizer.encode(String(repeating: "q", count: count), addSpecialTokens: false).ids == [unknown])
        let marks =
            "a"
            + String(String.UnicodeScalarView((0..<count).map { Unicode.Scalar(UInt32(0x300 + $0 * 7 % 0x4F)) ?? "?" }))
        #expect(tokenizer.encode(marks, addSpecialTokens: false).count == 1)
        #expect(tokenizer.encode(String(repeating: ".", count: count), addSpecialTokens: false).count == count)
        #expect(tokenizer.encode(String(repeating: " ", count: count), addSpecialTokens: false).count == 0)
        let mask = try #require(tokenizer.id(of: "[MASK]"))
        let added = try self.tokenizer("cased").encode(
            String(repeating: "[MASK] ", count: count / 7), addSpecialTokens: false)
        #expect(added.ids == Array(repeating: mask, count: count / 7))
        let spaced = try self.tokenizer("added").encode(
            "[RIGHT]" + String(repeating: " ", count: count) + "[LEFT]", addSpecialTokens: false)
        #expect(spaced.count == 2)
    }

    @Test(arguments: [
        (#"{"model":{"type":"Trigram","vocab":[]}}"#, "model: Trigram"),
        (#"{"model":{"vocab":{}}}"#, "a model without a type"),
        (#"{"model":{"type":"BPE","vocab":{},"merges":[],"dropout":0.1}}"#, "dropout"),
        (#"{"normalizer":{"type":"Reverse"},"model":MODEL}"#, "normalizer: Reverse"),
        (
            #"{"normalizer":{"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"NFX"}]},"model":MODEL}"#,
            "normalizer.normalizers.1: NFX"
        ),
        (
            #"{"normalizer":{"type":"Replace","pattern":{"Regex":"x*"},"content":""},"model":MODEL}"#,
            "a pattern that matches nothing"
        ),
        (#"{"pre_tokenizer":{"type":"UnicodeScripts"},"model":MODEL}"#, "UnicodeScripts"),
        (
            #"{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Removed","invert":false},"model":MODEL}"#,
            "back-reference"
        ),
        (
            #"{"post_processor":{"type":"Sequence","processors":[TEMPLATE,TEMPLATE]},"model":MODEL}"#,
            "a template behind another template"
        ),
        (
            #"{"post_processor":{"type":"Sequence","processors":[{"type":"Surround"}]},"model":MODEL}"#,
            "post_processor.processors.0: Surround"
        ),
    ])
    func unknownComponentsAreRefusedByName(_ text: String, _ name: String) throws {
        let model = #"{"type":"WordPiece","unk_token":"?","vocab":{"?":0}}"#
        let template =
            #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"?","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"?","type_id":0}}],"special_tokens":{"?":{"id":"?","ids":[0],"tokens":["?"]}}}"#
        let json = try JSON.parse(
            Array(text.replacing("MODEL", with: model).replacing("TEMPLATE", with: template).utf8), path: "t")
        let error = try #require(throws: FileError.self) { try Tokenizer(json: json, path: "folder/tokenizer.json") }
        #expect(error.kind == .malformed)
        #expect(error.description.contains(name) && error.description.hasPrefix("folder/tokenizer.json: "), "\(error)")
    }

    @Test(arguments: [
        "{}", "[]", "null", #"{"model":null}"#, #"{"model":{"type":"WordPiece"}}"#,
        #"{"model":{"type":"WordPiece","unk_token":"x","vocab":{"a":0}}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":-1}}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":4294967296}}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":"0"}}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0},"max_input_chars_per_word":-1}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"added_tokens":[{"id":1}]}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"added_tokens":{}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"normalizer":{"type":"BertNormalizer","lowercase":1}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"post_processor":{"type":"TemplateProcessing","single":[]}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{}}}"#,
        #"{"model":{"type":"WordPiece","vocab":{"[UNK]":0}},"pre_tokenizer":{"type":"Punctuation","behavior":"Sideways"}}"#,
    ])
    func malformedFilesAreRefused(_ text: String) throws {
        let json = try JSON.parse(Array(text.utf8), path: "t")
        let error = try #require(throws: FileError.self) { try Tokenizer(json: json, path: "t") }
        #expect(error.kind == .malformed && !error.description.contains("\n"))
    }

    @Test func aMissingFileSaysWhatToDo() throws {
        let error = try #require(throws: FileError.self) { try Tokenizer.load(folder: Goldens.folder) }
        #expect(error.kind == .missing)
        #expect(error.description.contains("tokenizer.json") && error.description.contains("save_pretrained"))
    }
}
