// `verify` passes sound checkpoints of every family, and fails on one that is not, with one line and status 65.

import Foundation
import Testing

@Suite struct VerifyTests {
    static let names = [
        "tiny-bert", "tiny-bert-prefixed", "tiny-bert-sentence", "tiny-roberta", "tiny-xlm-roberta", "tiny-camembert",
        "tiny-distilbert",
        "tiny-albert", "tiny-electra", "tiny-mpnet", "tiny-modernbert", "tiny-deberta-v3", "tiny-deberta-v2",
        "tiny-nomic-bert", "tiny-esm",
        "tiny-esm-absolute", "tiny-jina-bert", "heads-bert", "heads-deberta", "tasks-bert", "tasks-esm",
    ]

    @Test(arguments: names) func soundCheckpointsPass(name: String) throws {
        let run = try CommandRun.annulus(["verify", "-m", checkpoint(name), "--quiet"])
        let text = String(decoding: run.output, as: UTF8.self)
        #expect(run.status == 0 && run.errors.isEmpty, "\(text)\(run.errors)")
        #expect(!text.contains("FAILED"))
        for line in [
            "finite", "parameters", "no others", "states", "1 virtual", "2 virtual", "3 virtual", "5 virtual",
            "tables", "float64",
        ] {
            #expect(
                text.contains("\n\(line.padding(toLength: 16, withPad: " ", startingAt: 0))ok") || text.hasPrefix(line),
                "\(line): \(text)")
        }
        // What is not looked at is said.
        if name.hasPrefix("heads") || name.hasPrefix("tasks") {
            #expect(text.contains("not verified") && text.contains("maskedLanguage"))
        }
        if !name.hasPrefix("tasks"), !name.hasPrefix("tiny-bert") {
            #expect(text.contains("the tokenizer and pairs of texts: there is none"))
        }
    }

    @Test func theRanksOfAJobAreComparedToo() throws {
        for spread in [Spread.mpirun(3), .virtual(2)] {
            let run = try CommandRun.annulus(
                ["verify", "-m", checkpoint("tiny-modernbert"), "--quiet", "--lengths", "300,9", "--ranks", "2"], spread
            )
            let text = String(decoding: run.output, as: UTF8.self)
            #expect(run.status == 0 && text.contains("of the job    ok"), "\(text)\(run.errors)")
            #expect(text.split(separator: "\n").count { $0.contains("the same bytes") } == 2)
        }
    }

    private static let damages: [(name: String, part: String, damage: @Sendable (String) throws -> Void)] = [
        // The last two bytes are the last number of the last tensor, a float16.
        (
            "a number that is none", "1 that are infinite or not numbers",
            { folder in
                let url = URL(fileURLWithPath: folder + "/model.safetensors")
                var data = try Data(contentsOf: url)
                data.replaceSubrange(data.count - 2..<data.count, with: [0x00, 0x7E])
                try data.write(to: url)
            }
        ),
        (
            "an infinite number", "1 that are infinite or not numbers",
            { folder in
                let url = URL(fileURLWithPath: folder + "/model.safetensors")
                var data = try Data(contentsOf: url)
                data.replaceSubrange(data.count - 2..<data.count, with: [0x00, 0xFC])
                try data.write(to: url)
            }
        ),
        (
            "a layer too many", "config.json has no place for",
            replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")
        ),
        (
            "a layer too few", "is missing",
            replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")
        ),
        (
            "a tensor of another shape", "expected shape",
            replace("config.json", "\"vocab_size\": 48", "\"vocab_size\": 47")
        ),
    ]

    @Test(arguments: damages.indices, [1, 3]) func aFaultIsFoundAndNamed(_ number: Int, ranks: Int) throws {
        let (name, part, damage) = Self.damages[number]
        let folder = try TemporaryFolder()
        let model = folder.path("model")
        try FileManager.default.copyItem(atPath: checkpoint("tiny-roberta"), toPath: model)
        try damage(model)
        let run = try CommandRun.annulus(["verify", "-m", model, "--quiet"], ranks == 1 ? .alone : .mpirun(ranks))
        let text = String(decoding: run.output, as: UTF8.self)
        #expect(
            run.status == 65 && run.errorLines.count == 1 && run.errors.contains("checks failed"),
            "\(name): \(text)\(run.errors)")
        #expect(text.contains("FAILED") && text.contains(part), "\(name): \(text)")
        #expect(text.contains("not verified    bytes on ranks"))
    }

    @Test func badListsAreRefused() throws {
        for arguments in [["--ranks", "0"], ["--lengths", "1,,2"], ["--ranks", "2,65"]] {
            let run = try CommandRun.annulus(["verify", "-m", checkpoint("tiny-bert")] + arguments)
            #expect(run.status == 64 && run.errors.contains(arguments[0]), "\(run.errors)")
        }
    }
}
