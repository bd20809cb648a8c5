// The verbs of task heads print what the pipelines of transformers give, the same bytes at every number of ranks.

import Checkpoints
import Files
import Foundation
import Testing

@Suite struct TaskTests {
    private let folder = checkpoint("tasks-bert")

    /// What scripts/goldens/make.py kept of the pipelines.
    private func golden() throws -> JSON { try JSON.load(path: folder + "/pipelines.json") }

    /// Lines of JSON for some texts, alone and on several ranks.
    private func lines(_ arguments: [String], texts: [String]) throws -> [JSON] {
        let input = texts.map { "{\"text\": \(JSON.quoted($0))}\n" }.joined()
        let all = arguments + ["-m", folder, "--input-format", "jsonl"]
        let alone = try CommandRun.annulus(all, input: input)
        #expect(alone.status == 0, "\(alone.errors)")
        for spread in [Spread.virtual(2), .virtual(3), .virtual(5), .mpirun(2)] {
            let spreadOut = try CommandRun.annulus(all, spread, input: input)
            #expect(spreadOut.output == alone.output, "\(arguments), \(spread): \(spreadOut.errors)")
        }
        return try String(decoding: alone.output, as: UTF8.self).split(separator: "\n").map {
            try JSON.parse(Array($0.utf8), path: "output")
        }
    }

    private func texts(_ key: String) throws -> [String] { try #require(golden()[key]?.array).compactMap(\.string) }

    @Test func classifyGivesTheLabelsOfThePipeline() throws {
        let found = try lines(["classify", "--quiet"], texts: texts("texts"))
        #expect(same(.array(found), try golden()["classify"]))
    }

    /// With --top-k the line is a list, whose first is the line without it.
    @Test func classifyListsTheBestLabels() throws {
        let plain = try lines(["classify", "--quiet"], texts: texts("texts"))
        for (count, given) in [(1, ["--top-k", "1"]), (2, ["--top-k", "2"]), (2, ["--top-k", "9"])] {
            for (found, best) in zip(try lines(["classify", "--quiet"] + given, texts: texts("texts")), plain) {
                let list = try #require(found.array)
                #expect(list.count == count && list[0] == best)
                let scores = list.compactMap { $0["score"]?.double }
                #expect(scores.count == count && zip(scores, scores.dropFirst()).allSatisfy { $0 >= $1 })
                #expect(count == 1 || abs(scores.reduce(0, +) - 1) < 1e-6 && list[1]["label"] != list[0]["label"])
            }
        }
        let refused = try CommandRun.annulus(["classify", "-m", folder, "--top-k", "0"], input: "a\n")
        #expect(refused.status == 64 && refused.errors.contains("--top-k"))
    }

    @Test func theClassicExampleHasTheLogitsAndTheLossOfTransformers() throws {
        let expected = try #require(golden()["classic"])
        for label in ["1", "\"POSITIVE\""] {
            let run = try CommandRun.annulus(
                ["classify", "-m", folder, "--quiet", "--input-format", "jsonl"],
                input: "{\"text\": \"Hello, my dog is cute\", \"label\": \(label)}\n")
            let line = try JSON.parse(Array(run.output), path: "output")
            #expect(
                same(line["logits"], expected["logits"]) && same(line["loss"], expected["loss"]),
                "\(line) \(run.errors)")
        }
        let labels = try TemporaryFolder()
        try "[0, 1]\n".write(toFile: labels.path("labels"), atomically: false, encoding: .utf8)
        let run = try CommandRun.annulus(
            ["classify", "-m", folder, "--quiet", "--labels", labels.path("labels")], input: "Hello, my dog is cute\n")
        #expect(
            same(try JSON.parse(Array(run.output), path: "output")["loss"], expected["multi_label_loss"]),
            "\(run.errors)")
    }

    @Test(arguments: ["none", "simple", "first", "average", "max"]) func nerGivesTheEntitiesOfThePipeline(
        aggregation: String
    ) throws {
        let folder = try TemporaryFolder()
        for name in ["model.safetensors", "tokenizer.json"] {
            try FileManager.default.copyItem(atPath: self.folder + "/" + name, toPath: folder.path(name))
        }
        let config = try String(contentsOfFile: self.folder + "/config.json", encoding: .utf8)
            .replacingOccurrences(of: "\"NEGATIVE\"", with: "\"B-PER\"").replacingOccurrences(
                of: "\"POSITIVE\"", with: "\"I-PER\"")
        try config.write(toFile: folder.path("config.json"), atomically: false, encoding: .utf8)
        let input = try texts("texts").map { "{\"text\": \(JSON.quoted($0))}\n" }.joined()
        let run = try CommandRun.annulus(
            ["ner", "-m", folder.url.path, "--quiet", "--input-format", "jsonl", "--aggregation", aggregation],
            .virtual(3), input: input)
        let found = try String(decoding: run.output, as: UTF8.self).split(separator: "\n").map {
            try JSON.parse(Array($0.utf8), path: "output")
        }
        let expected = try #require(golden()["ner"]?[aggregation]?.array)
        #expect(found.count == expected.count, "\(run.errors)")
        for (a, b) in zip(found, expected) { #expect(same(a, b), "\(aggregation): \(a) instead of \(b)") }
    }

    @Test func fillMaskGivesTheGuessesOfThePipeline() throws {
        let found = try lines(["fill-mask", "--quiet"], texts: texts("masked"))
        let expected = try #require(golden()["fill-mask"]?.array)
        for (a, b) in zip(found, expected) { #expect(same(a, b), "\(a) instead of \(b)") }
        #expect(found.count == expected.count)
    }

    @Test func answerFindsTheSpanOfThePipeline() throws {
        let questions = try #require(golden()["questions"]?.array)
        let expected = try #require(golden()["answer"]?.array)
        #expect(questions.count == 2)
        for (question, answer) in zip(questions, expected) {
            let asked = try #require(question[0]?.string)
            let found = try lines(
                ["answer", asked, "--quiet", "--window-tokens", "72", "--stride", "8"],
                texts: [try #require(question[1]?.string)])
            #expect(same(found.first, answer), "\(found) instead of \(answer)")
        }
    }
}

/// Equal but for the last digits of numbers.
func same(_ found: JSON?, _ expected: JSON?) -> Bool {
    guard let found, let expected else { return found == nil && expected == nil }
    if let a = found.double, let b = expected.double { return abs(a - b) <= 2e-6 * max(1, abs(b)) }
    if let a = found.array, let b = expected.array {
        return a.count == b.count && zip(a, b).allSatisfy { same($0, $1) }
    }
    if let a = found.object, let b = expected.object { return b.members.allSatisfy { same(a[$0.key], $0.value) } }
    return found == expected
}

@Suite struct InitTests {
    @Test func aRandomModelIsWrittenAndRuns() throws {
        let folder = try TemporaryFolder()
        let model = folder.path("model")
        let made = try CommandRun.annulus(["init", "--shape", "esm2-8m", "--positions", "40", "-o", model])
        #expect(made.status == 0, "\(made.errors)")
        let again = try CommandRun.annulus(["init", "--shape", "esm2-8m", "-o", model])
        #expect(again.status == 73 && again.errors.contains("--force"))
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "--input-format", "ids", "--quiet"], .virtual(2), input: "[0, 5, 6, 7, 2]\n")
        #expect(run.status == 0 && run.output.starts(with: Data("{\"embedding\": [".utf8)), "\(run.errors)")
        let long = try CommandRun.annulus(
            ["embed", "-m", model, "--input-format", "ids"], input: "\(Array(repeating: 5, count: 41))\n")
        #expect(long.status == 65 && long.errors.contains("limit is 40"), "\(long.errors)")
        let first = try Data(contentsOf: URL(fileURLWithPath: model + "/model.safetensors"))
        _ = try CommandRun.annulus(["init", "--shape", "esm2-8m", "--positions", "40", "-o", model, "--force"])
        #expect(try Data(contentsOf: URL(fileURLWithPath: model + "/model.safetensors")) == first)
    }
}
