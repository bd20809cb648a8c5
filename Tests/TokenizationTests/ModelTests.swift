// What must hold of models and components whatever the vocabulary, and how bad files of theirs are refused.

import Files
import Foundation
import Testing
import Tokenization

@Suite struct ModelTests {
    private func tokenizer(_ text: String) throws -> Tokenizer {
        try Tokenizer(json: JSON.parse(Array(text.utf8), path: "t"), path: "t")
    }

    private func kind(_ name: String) throws -> Tokenizer { try Tokenizer.load(folder: KindTests.sample + "/" + name) }

    @Test func theLowestRankMergesFirstAndThenTheLeftmost() throws {
        let bpe = try tokenizer(
            #"{"model":{"type":"BPE","vocab":{"a":0,"b":1,"aa":2,"ab":3,"aab":4},"merges":["a b","a a","a ab"]}}"#)
        #expect(bpe.encode("aaab").ids == [2, 3])  // not aa, then a and b: "a b" ranks first
        #expect(bpe.encode("aab").ids == [4])
        #expect(bpe.encode("aaa").ids == [2, 0])
        #expect(bpe.continuingSubwordPrefix == nil)
    }

    @Test func bothFormsOfMergesAreRead() throws {
        for merges in [#"["a b"]"#, #"[["a","b"]]"#, #"["\#u{23}version: 0.2","a b"]"#] {
            #expect(
                try tokenizer(
                    #"{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":MERGES}}"#.replacing(
                        "MERGES", with: merges)
                ).encode("ab").ids == [2])
        }
    }

    @Test func aModelWithoutATypeIsKnownByItsMembers() throws {
        #expect(try tokenizer(#"{"model":{"vocab":{"a":3},"merges":[]}}"#).encode("a").ids == [3])
        #expect(try tokenizer(#"{"model":{"vocab":[["?",0],["a",-1]],"unk_id":0}}"#).encode("a").ids == [1])
        #expect(try tokenizer(#"{"model":{"vocab":{"?":0,"a":5},"unk_token":"?"}}"#).encode("a").ids == [5])
        #expect(
            try tokenizer(#"{"model":{"vocab":{"?":0,"a":6},"unk_token":"?","max_input_chars_per_word":9}}"#).encode(
                "a"
            ).ids == [6])
    }

    @Test func ofEquallyLikelyCutsTheFirstFoundStays() throws {
        // "aaa" as a, aa and as aa, a: the end is reached first from place 1.
        let unigram = try tokenizer(#"{"model":{"type":"Unigram","unk_id":0,"vocab":[["?",-9],["a",-1],["aa",-1.5]]}}"#)
        #expect(unigram.encode("aaa").ids == [1, 2])
        #expect(unigram.encode("xaxx").ids == [0, 1, 0])
        #expect(unigram.encode("xaxx").offsets == [0..<1, 1..<2, 2..<4])
    }

    @Test(arguments: [
        ("-9.302946221249993", "-0.369478829182758", "-0.5979996682778017", [3, 3, 3, 3, 1, 2, 3, 3, 2, 1] as [Int32]),
        ("-3.7913699942177286", "-7.24931058782677", "-3.7152600854911118", [3, 3, 3, 3, 2, 1, 3, 3, 1, 2]),
        ("-11.723720091200919", "-5.493041080650253", "-3.592842301342072", [3, 3, 3, 3, 1, 2, 3, 3, 1, 2]),
    ])
    func sumsThatTieAreRoundedAsInTheReference(_ a: String, _ aa: String, _ b: String, _ ids: [Int32]) throws {
        // Ids by tokenizers 0.23.3. Scores read to the nearest double give others.
        let vocabulary = #"[["?",-30.0],["a",\#(a)],["aa",\#(aa)],["b",\#(b)]]"#
        let unigram = try tokenizer(#"{"model":{"type":"Unigram","unk_id":0,"vocab":\#(vocabulary)}}"#)
        #expect(unigram.encode("bbbbaaabbaaa").ids == ids)
    }

    /// Quadratic work, or a stack as deep as the text, would not come back from these.
    @Test(
        .timeLimit(.minutes(5)),
        arguments: [
            "roberta", "cl100k", "llama", "bpe-prefix", "xlm-roberta", "albert", "unigram-bytes", "clip", "words",
        ])
    func wordsWithoutEndAreEncoded(_ name: String) throws {
        let tokenizer = try kind(name)
        let count = 200_000
        let marks = String(
            String.UnicodeScalarView((0..<count).compactMap { Unicode.Scalar(UInt32(0x300 + $0 * 7 % 0x4F)) }))
        for text in [
            String(repeating: "t", count: count), String(repeating: "the", count: count / 3), "a" + marks,
            String(repeating: " ", count: count),
        ] {
            let length = text.unicodeScalars.count
            let encoding = tokenizer.encode(text, addSpecialTokens: false)
            #expect(encoding.offsets.allSatisfy { $0.upperBound <= length })
            #expect(zip(encoding.offsets, encoding.offsets.dropFirst()).allSatisfy { $0.lowerBound <= $1.lowerBound })
        }
    }

    @Test(arguments: [
        #"{"model":{"type":"BPE","vocab":{"a":0}}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a a"]}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}}"#,
        ###"{"model":{"type":"BPE","vocab":{"a":0,"aa":1},"merges":["a a"],"continuing_subword_prefix":"##"}}"###,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"?"}}"#,
        #"{"model":{"type":"BPE","vocab":{"a":0},"merges":[],"byte_fallback":true,"end_of_word_suffix":"/"}}"#,
        #"{"model":{"type":"Unigram","vocab":[["a",0]]}}"#,
        #"{"model":{"type":"Unigram","unk_id":null,"vocab":[["a",0]]}}"#,
        #"{"model":{"type":"Unigram","unk_id":1,"vocab":[["a",0]]}}"#,
        #"{"model":{"type":"Unigram","unk_id":0,"vocab":[["a"]]}}"#,
        #"{"model":{"type":"Unigram","unk_id":0,"vocab":[]}}"#,
        #"{"model":{"type":"WordLevel","vocab":{"a":0}}}"#,
        #"{"model":{"type":"WordLevel","unk_token":"?","vocab":{"a":0}}}"#,
        #"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":MODEL}"#,
        #"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"!"},"model":MODEL}"#,
        #"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="},"model":MODEL}"#,
        #"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"BAAAAAAAAAD/"},"model":MODEL}"#,
        #"{"normalizer":{"type":"Prepend","prepend":""},"model":MODEL}"#,
        #"{"normalizer":{"type":"Replace","pattern":" ","content":""},"model":MODEL}"#,
        #"{"normalizer":{"type":"Strip"},"model":MODEL}"#,
        #"{"pre_tokenizer":{"type":"Metaspace","replacement":"ab"},"model":MODEL}"#,
        #"{"pre_tokenizer":{"type":"Metaspace","replacement":"a","prepend_scheme":"last"},"model":MODEL}"#,
        #"{"pre_tokenizer":{"type":"Metaspace","replacement":"a","prepend_scheme":"first","add_prefix_space":false},"model":MODEL}"#,
        #"{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Removed"},"model":MODEL}"#,
        #"{"pre_tokenizer":{"type":"Digits"},"model":MODEL}"#,
        #"{"post_processor":{"type":"RobertaProcessing","sep":["a",0],"cls":["a"],"trim_offsets":true,"add_prefix_space":true},"model":MODEL}"#,
        #"{"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}}]},"model":MODEL}"#,
    ])
    func malformedFilesAreRefused(_ text: String) throws {
        let model = #"{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}"#
        let error = try #require(throws: FileError.self) { try tokenizer(text.replacing("MODEL", with: model)) }
        #expect(error.kind == .malformed && !error.description.contains("\n"))
    }

    @Test func clustersAreReplacedAsInTheReference() throws {
        let goldens = try Goldens.load("clusters.json")
        let texts = goldens["texts"]?.array?.compactMap(\.string) ?? []
        let digests = Goldens.digests(goldens["digests"]?.string ?? "")
        #expect(texts.count == 412 && digests.count == texts.count)
        var json = JSONObject()
        json.append("normalizer", try #require(goldens["component"]))
        let model = #"{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}"#
        json.append("model", try JSON.parse(Array(model.utf8), path: "t"))
        let tokenizer = try Tokenizer(json: .object(json), path: "t")
        for (text, expected) in zip(texts, digests) {
            let normalized = tokenizer.normalized(text)
            #expect(
                Goldens.digest(normalized.utf8) == expected,
                "\(text.debugDescription) gave \(normalized.debugDescription)")
        }
    }

    @Test func hostileCharacterMapsDoNoHarm() throws {
        // Units that point anywhere: every lookup must stay in the array.
        var state: UInt64 = 7
        func random() -> UInt64 {
            state = state &* 6364136223846793005 &+ 1442695040888963407
            return state >> 33
        }
        let size: [UInt8] = [0, 1, 0, 0]  // 64 units
        for _ in 0..<200 {
            let units = (0..<256).map { _ in UInt8(truncatingIfNeeded: random()) }
            let map = Data(size + units + Array("ABC\u{0}".utf8)).base64EncodedString()
            let json =
                #"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"MAP"},"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}}"#
            let tokenizer = try tokenizer(json.replacing("MAP", with: map))
            for line in try Goldens.strings("texts.json") { _ = tokenizer.encode(line) }
        }
    }

    @Test func nestedSequencesAreApplied() throws {
        let depth = 40
        let open = String(repeating: #"{"type":"Sequence","normalizers":["#, count: depth)
        let text =
            #"{"normalizer":"# + open + #"{"type":"Lowercase"}"# + String(repeating: "]}", count: depth)
            + #","model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":1}}}"#
        #expect(try tokenizer(text).encode("A").ids == [1])
    }
}
