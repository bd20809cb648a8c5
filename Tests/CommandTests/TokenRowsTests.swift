// Tokens that a model has no rows for, and text that grows when lowercased, as a user meets them: verb by verb, on any
// ranks.

import Checkpoints
import Files
import Foundation
import Testing

@Suite(.serialized) struct TokenRowsTests {
    private static let spreads: [Spread] = [.alone, .virtual(2), .mpirun(3)]

    /// A copy of a checkpoint with something changed.
    private func copy(_ name: String, into folder: TemporaryFolder, _ changes: (@Sendable (String) throws -> Void)...)
        throws -> String
    {
        let model = folder.path("model")
        try? FileManager.default.removeItem(atPath: model)
        try FileManager.default.copyItem(atPath: checkpoint(name), toPath: model)
        for change in changes { try change(model) }
        return model
    }

    /// One line of status 65 that names all of it, and nothing on standard output.
    private func expectRefusal(_ arguments: [String], _ input: String, names: [String], _ spread: Spread) throws {
        let run = try CommandRun.annulus(arguments, spread, input: input)
        #expect(
            run.status == 65 && run.output.isEmpty && run.errorLines.count == 1,
            "\(arguments), \(spread): \(run.status) \(run.errors)")
        for name in names {
            #expect(run.errors.contains(name), "\(arguments), \(spread): '\(name)' is missing in \(run.errors)")
        }
    }

    @Test func idsBeyondTheTableAreRefused() throws {
        for spread in Self.spreads {
            for (verb, model, rows) in [
                (["embed"], "tiny-bert-sentence", 640), (["classify"], "tasks-bert", 565), (["ner"], "tasks-bert", 565),
                (["embed", "--pooling", "none"], "tiny-bert", 640),
            ] {
                for id in ["\(rows)", "-1", "2147483647"] {
                    try expectRefusal(
                        verb + ["-m", checkpoint(model), "--quiet", "--input-format", "ids"],
                        "[2, 9, 3]\n[2, 9, 9, \(id), 3]\n",
                        names: ["standard input:2", "token 3", "id \(id)", "0 to \(rows - 1)"], spread)
                }
            }
        }
    }

    /// A tokenizer of more tokens than the model has rows: every verb that reads text, and `verify`.
    @Test func aTokenizerOfAnotherModelIsRefused() throws {
        let folder = try TemporaryFolder()
        for spread in Self.spreads {
            let model = try copy(
                "tiny-bert-sentence", into: folder,
                replace("tokenizer.json", #""id":"[SEP]","ids":[3]"#, #""id":"[SEP]","ids":[640]"#))
            for verb in [["embed"], ["embed", "--passage-tokens", "4"], ["search", "a dog"]] {
                try expectRefusal(
                    verb + ["-m", model, "--quiet"], "ab\n",
                    names: ["standard input:1", "token 3", "id 640", "0 to 639"], spread)
            }
            let run = try CommandRun.annulus(
                ["verify", "-m", model, "--quiet", "--lengths", "3", "--ranks", "1"], spread)
            #expect(run.status == 65 && run.errors.contains("tokenizer") && run.errorLines.count == 1, "\(run.errors)")

            let tasks = try copy(
                "tasks-bert", into: folder, replace("tokenizer.json", #""sep":["[SEP]",3]"#, #""sep":["[SEP]",565]"#))
            for (verb, text, place) in [
                (["classify"], "ab", 3), (["ner"], "ab", 3), (["fill-mask"], "a [MASK]", 3),
                (["answer", "a?"], "ab", 3),
            ] {
                try expectRefusal(
                    verb + ["-m", tasks, "--quiet"], "\(text)\n",
                    names: ["standard input:1", "token \(place)", "id 565", "0 to 564"], spread)
            }
        }
    }

    /// A pair's second text is of a type that the table has no row for.
    @Test func typesBeyondTheTableAreRefused() throws {
        let folder = try TemporaryFolder()
        let pair =
            #""pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":2}}]"#
        let processor =
            #""post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"# + pair
            + #","special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]}}}"#
        let model = try copy(
            "tasks-bert", into: folder,
            replace(
                "tokenizer.json", #""post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}"#,
                processor))
        for spread in Self.spreads {
            try expectRefusal(
                ["classify", "-m", model, "--quiet", "--input-format", "jsonl"],
                "{\"text\": \"a\", \"text_pair\": \"b\"}\n",
                names: ["standard input:1", "token 2", "type 2", "0 to 1"], spread)
            let run = try CommandRun.annulus(
                ["verify", "-m", model, "--quiet", "--lengths", "3", "--ranks", "1"], spread)
            #expect(
                run.status == 65 && String(decoding: run.output, as: UTF8.self).contains("the largest type 2"),
                "\(run.errors)")
        }
    }

    /// RoBERTa has one type. A tokenizer that gives a second text type 1, as BERT's does, changes nothing on any ranks.
    @Test func aSecondTypeOfAModelWithOneIsDropped() throws {
        let folder = try TemporaryFolder()
        let words = (3..<64).map { "\"w\($0)\": \($0)" }.joined(separator: ", ")
        func tokenizer(type: Int) -> @Sendable (String) throws -> Void {
            let text = """
                {"added_tokens": [{"id": 0, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}], "pre_tokenizer": {"type": "WhitespaceSplit"},
                 "model": {"type": "WordLevel", "unk_token": "<pad>", "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, \(words)}},
                 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                  "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": \(type)}},
                   {"SpecialToken": {"id": "</s>", "type_id": \(type)}}],
                  "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}}
                """
            return { try Data(text.utf8).write(to: URL(fileURLWithPath: $0 + "/tokenizer.json")) }
        }
        let input = "{\"text\": \"w5 w6 w7\", \"text_pair\": \"w8 w9\"}\n"
        let arguments = ["classify", "--quiet", "--input-format", "jsonl", "-m"]
        let expected = try CommandRun.annulus(
            arguments + [try copy("heads-roberta", into: folder, tokenizer(type: 0))], input: input)
        try #require(expected.status == 0, "\(expected.errors)")
        for type in [1, 3000] {
            let model = try copy("heads-roberta", into: folder, tokenizer(type: type))
            for spread in Self.spreads {
                let run = try CommandRun.annulus(arguments + [model], spread, input: input)
                #expect(run.status == 0 && run.output == expected.output, "\(spread): \(run.errors)")
            }
            let verified = try CommandRun.annulus(["verify", "-m", model, "--quiet", "--lengths", "9", "--ranks", "2"])
            #expect(verified.status == 0, "\(verified.errors)\(String(decoding: verified.output, as: UTF8.self))")
        }
    }

    // MARK: Lowercasing

    private static let lowercases = replace(
        "sentence_bert_config.json", #""do_lower_case":false"#, #""do_lower_case":true"#)
    /// The tokenizer itself leaves case as it is.
    private static let keepsCase = replace(
        "tokenizer.json", #""strip_accents":null,"lowercase":true"#, #""strip_accents":false,"lowercase":false"#)

    private func lines(_ run: CommandRun) throws -> [JSON] {
        try #require(run.status == 0, "\(run.errors)")
        return try String(decoding: run.output, as: UTF8.self).split(separator: "\n").map {
            try JSON.parse(Array($0.utf8), path: "output")
        }
    }

    /// U+0130 becomes two scalars: places are those of the text as it was given, and the passages of it too.
    @Test func placesAreThoseOfTheTextAsGiven() throws {
        let folder = try TemporaryFolder()
        let model = try copy("tiny-bert-sentence", into: folder, Self.lowercases, Self.keepsCase)
        let text = "İİİ AB de fg"
        for spread in Self.spreads {
            for split in ["--passage-tokens", "--chunk-tokens"] {
                let rows = try lines(
                    try CommandRun.annulus(["embed", "-m", model, "--quiet", split, "1"], spread, input: text + "\n"))
                let places = rows.compactMap { row in
                    row["start"]?.int.flatMap { start in row["end"]?.int.map { start..<$0 } }
                }
                #expect(places.count == rows.count && places.last == 11..<12, "\(places)")
                #expect(places.allSatisfy { $0.upperBound <= text.unicodeScalars.count && $0.count <= 3 }, "\(places)")
                #expect(places.contains(4..<5) && places.contains(5..<6) && places.contains(7..<8), "\(places)")
            }
            let found = try lines(
                try CommandRun.annulus(
                    [
                        "search", "FG", "-m", model, "--quiet", "--passage-tokens", "1", "--top-k", "50", "--format",
                        "json",
                    ], spread, input: text + "\n"))
            #expect(!found.isEmpty)
            for hit in found {
                let (start, end) = (try #require(hit["start"]?.int), try #require(hit["end"]?.int))
                let scalars = Array(text.unicodeScalars)[start..<end]
                #expect(hit["text"]?.string == String(String.UnicodeScalarView(scalars)))
            }
        }
    }

    /// A setting that says nothing new changes no byte; one that does gives what the text in lower case gives, its
    /// prompt too.
    @Test func loweredTextIsEncodedAsTheLowerOne() throws {
        let folder = try TemporaryFolder()
        let model = try copy("tiny-bert-sentence", into: folder, Self.lowercases, Self.keepsCase)
        let upper = try CommandRun.annulus(["embed", "-m", model, "--quiet"], input: "A QUICK Fox ÀÉ ΑΣ [MASK]\n")
        let lower = try CommandRun.annulus(["embed", "-m", model, "--quiet"], input: "a quick fox àé ασ [MASK]\n")
        #expect(upper.status == 0 && upper.output == lower.output, "\(upper.errors)")
        let plain = try copy("tiny-bert-sentence", into: folder, Self.keepsCase)
        #expect(
            try CommandRun.annulus(["embed", "-m", plain, "--quiet"], input: "A QUICK Fox ÀÉ ΑΣ [MASK]\n").output
                != lower.output)
        #expect(
            try CommandRun.annulus(["embed", "-m", plain, "--quiet"], input: "a quick fox àé ασ [MASK]\n").output
                == lower.output)
    }
}
