// `annulus train` as a user runs it: the same bytes on any ranks, after an interruption, and models that load.

import Checkpoints
import Files
import Foundation
import Testing
import Transformers

@Suite(.serialized) struct TrainTests {
    private let folder: TemporaryFolder
    private static let words =
        "the quick brown fox jumps over the lazy dog hello my dog is cute one tile of tokens at a time"
        .split(separator: " ").map(String.init)

    init() throws {
        folder = try TemporaryFolder()
        func text(_ number: Int, _ count: Int) -> String {
            (0..<count).map { Self.words[(number * 5 + $0 * $0) % Self.words.count] }.joined(separator: " ")
        }
        // Words tell the label.
        let labelled = (0..<60).map { number in
            "{\"text\": \"\(number % 2 == 0 ? "cute dog" : "lazy fox") \(text(number, 3 + number % 20))\", \"label\": \"\(number % 2 == 0 ? "good" : "bad")\"}"
        }
        try write("labelled.jsonl", labelled)
        try write("texts.txt", (0..<40).map { text($0, 5 + 9 * $0 % 200) })
        try write(
            "pairs.jsonl",
            (0..<30).map { "{\"text\": \"\(text($0, 6))\", \"text_pair\": \"\(text($0, 9))\"}" })
        try write(
            "entities.jsonl",
            (0..<30).map { number in
                let first = text(number, 4)
                return
                    "{\"text\": \"\(first) dog\", \"entities\": [{\"start\": \(first.count + 1), \"end\": \(first.count + 4), \"label\": \"ANIMAL\"}]}"
            })
        try write(
            "several.jsonl", (0..<20).map { "{\"text\": \"\(text($0, 7))\", \"labels\": [\"\($0 % 3)x\", \"y\"]}" })
        try write("numbers.jsonl", (0..<20).map { "{\"text\": \"\(text($0, 7))\", \"label\": \(Double($0) / 20)}" })
    }

    private func write(_ name: String, _ lines: [String]) throws {
        try (lines.joined(separator: "\n") + "\n").write(
            toFile: folder.path(name), atomically: true, encoding: .utf8)
    }

    private func file(_ name: String) -> String { folder.path(name) }

    private func train(_ options: [String], to output: String, _ spread: Spread = .alone) throws -> CommandRun {
        try CommandRun.annulus(
            ["train", "-m", checkpoint("tasks-bert"), "-o", file(output), "--learning-rate", "0.01", "--quiet"]
                + options,
            spread)
    }

    private func weights(_ output: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: file(output) + "/model.safetensors"))
    }

    private func state(_ output: String) throws -> JSON { try JSON.load(path: file(output) + "/trainer_state.json") }

    private func losses(_ output: String) throws -> [Double] {
        (try state(output)["log_history"]?.array ?? []).compactMap { $0["loss"]?.double }
    }

    private var masked: [String] {
        [
            "--task", "mlm:\(file("texts.txt"))", "--input-format", "lines", "--max-length", "70", "--batch-tokens",
            "900",
            "--max-steps", "6", "--dropout", "0.1", "--attention-dropout", "0.2", "--weight-decay", "0.01",
            "--logging-steps", "1",
        ]
    }

    @Test func weightsAreTheSameOnAnyRanks() throws {
        for (name, options) in [
            ("mlm", masked),
            (
                "several",
                [
                    "--task", "classify:\(file("labelled.jsonl"))", "--task", "similarity:\(file("pairs.jsonl"))",
                    "--task-weights", "1,0.5", "--batch-tokens", "700", "--max-steps", "5", "--logging-steps", "1",
                    "--classifier-dropout", "0.3",
                ]
            ),
        ] {
            let right = try train(options + ["--threads", "1"], to: name)
            #expect(right.status == 0, "\(right.errors)")
            for (spread, more) in [
                (Spread.virtual(2), ["--threads", "2"]), (.virtual(3), []), (.virtual(5), ["--strategy", "pass-q"]),
                (.mpirun(2), []), (.mpirun(4), ["--threads", "1"]),
            ] {
                let output = "\(name)-\(spread)".replacingOccurrences(of: " ", with: "-")
                let run = try train(options + more, to: output, spread)
                #expect(run.status == 0, "\(spread): \(run.errors)")
                #expect(try weights(output) == weights(name), "\(name), \(spread)")
                #expect(try losses(output) == losses(name), "\(name), \(spread)")
            }
        }
    }

    /// Two tasks whose weights are learned, each in every step: what was logged of their losses and of the gradients' norm
    /// gives, by AdamW in double precision, the weights and losses that were logged.
    @Test func weightsOfTasksAreLearned() throws {
        let options = [
            "--task", "classify:\(file("labelled.jsonl"))", "--task", "regress:\(file("numbers.jsonl"))",
            "--task-weights", "learned", "--batch-tokens", "500", "--max-steps", "7", "--logging-steps", "1",
            "--weight-decay", "0.5", "--head-learning-rate", "0.05", "--warmup-steps", "2",
        ]
        let run = try train(options + ["--save-steps", "3", "--logging-dir", file("learned-events")], to: "learned")
        #expect(run.status == 0, "\(run.errors)")
        let log = (try state("learned")["log_history"]?.array ?? []).filter { $0["loss"] != nil }
        #expect(log.count == 7)
        let names = ["1_classify", "2_regress"]
        var (variances, means, squares) = ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
        for (step, entry) in log.enumerated() {
            let norm = try #require(entry["grad_norm"]?.double)
            // The heads' rate is a thousandth more or less of what is logged of the encoder's: 0.05 to 0.01.
            let rate = try #require(entry["learning_rate"]?.double) * 5
            let clip = min(1, 1 / (norm + 1e-6))
            var total = 0.0
            for task in 0..<2 {
                let loss = try #require(entry["loss_\(names[task])"]?.double)
                let weight = (task == 0 ? 1 : 0.5) * exp(-variances[task])
                let logged = try #require(entry["weight_\(names[task])"]?.double)
                // Each step rounds a number below 1 a few times, and its change, below the rate, a few times more.
                #expect(abs(logged - weight) <= 1e-6 * Double(step + 1), "step \(step + 1): \(logged), not \(weight)")
                total += weight * loss + variances[task] / 2
                let gradient = (0.5 - weight * loss) * clip
                means[task] = 0.9 * means[task] + 0.1 * gradient
                squares[task] = 0.999 * squares[task] + 0.001 * gradient * gradient
                let (first, second) = (1 - pow(0.9, Double(step + 1)), 1 - pow(0.999, Double(step + 1)))
                variances[task] -= rate * (means[task] / first) / ((squares[task] / second).squareRoot() + 1e-8)
            }
            let loss = try #require(entry["loss"]?.double)
            #expect(abs(loss - total) <= 1e-5 * Double(step + 1), "step \(step + 1): \(loss), not \(total)")
        }
        #expect(abs(variances[0]) > 0.02 && abs(variances[1]) > 0.02, "\(variances)")
        let events = try FileManager.default.contentsOfDirectory(atPath: file("learned-events"))
        let bytes = try Data(contentsOf: URL(fileURLWithPath: file("learned-events") + "/" + events[0]))
        #expect(bytes.range(of: Data("train/weight_2_regress".utf8)) != nil)

        // The same on other ranks, and from the third step on.
        for (spread, output) in [(Spread.virtual(3), "learned-3"), (.mpirun(2), "learned-mpi")] {
            #expect(try train(options, to: output, spread).status == 0)
            #expect(try weights(output) == weights("learned"), "\(spread)")
            #expect(
                try Data(contentsOf: URL(fileURLWithPath: file(output) + "/task-2/model.safetensors"))
                    == Data(contentsOf: URL(fileURLWithPath: file("learned") + "/task-2/model.safetensors")))
            #expect(try state(output)["log_history"] == state("learned")["log_history"], "\(spread)")
        }
        for name in ["checkpoint-6", "model.safetensors", "trainer_state.json"] {
            try FileManager.default.removeItem(atPath: file("learned") + "/" + name)
        }
        let whole = try state("learned-3")["log_history"]
        let rest = try train(options + ["--resume", "--save-steps", "3"], to: "learned", .virtual(2))
        #expect(rest.status == 0, "\(rest.errors)")
        #expect(try weights("learned") == weights("learned-3"))
        #expect(try state("learned")["log_history"] == whole)
        // Of one task there is nothing to weigh, and one training does not go on as the other.
        let single = try train(["--task", "mlm:\(file("texts.txt"))", "--task-weights", "learned"], to: "single")
        #expect(single.status == 64 && single.errors.contains("--task-weights"), "\(single.errors)")
        let other = try train(
            options.map { $0 == "learned" ? "1,1" : $0 } + ["--resume", "--save-steps", "3"], to: "learned")
        #expect(other.status == 65 && other.errors.contains("--task-weights"), "\(other.errors)")
    }

    /// The model of the tests with room for documents of several tiles.
    private func longModel() throws -> String {
        let (source, place) = (checkpoint("tasks-bert"), file("long"))
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        let text = try String(contentsOfFile: source + "/config.json", encoding: .utf8).replacingOccurrences(
            of: "\"max_position_embeddings\": 72", with: "\"max_position_embeddings\": 1500")
        try text.write(toFile: place + "/config.json", atomically: true, encoding: .utf8)
        try FileManager.default.copyItem(atPath: source + "/tokenizer.json", toPath: place + "/tokenizer.json")
        let configuration = try EncoderConfiguration(JSON.load(path: place + "/config.json"), path: "config.json")
        let parameters = try ParameterTree(configuration).parameters
        let layout = SafetensorsLayout(tensors: parameters.map { ($0.name, .float32, $0.shape) })
        var bytes = layout.headerBytes
        for parameter in parameters {
            try RandomParameters(seed: 3).read(parameter.name, shape: parameter.shape).withUnsafeBytes { bytes += $0 }
        }
        try Data(bytes).write(to: URL(fileURLWithPath: place + "/model.safetensors"))
        return place
    }

    @Test func documentsOfManyTilesGiveTheSameWeights() throws {
        let model = try longModel()
        try write(
            "long.txt",
            (0..<24).map { number in
                (0..<5 + 61 * number * number % 1200).map { Self.words[(number * 5 + $0 * $0) % Self.words.count] }
                    .joined(separator: " ")
            })
        func train(_ output: String, _ more: [String], _ spread: Spread) throws {
            let run = try CommandRun.annulus(
                [
                    "train", "-m", model, "--task", "mlm:\(file("long.txt"))", "--input-format", "lines",
                    "--batch-tokens", "4000", "--max-steps", "3", "--learning-rate", "0.01", "--dropout", "0.1",
                    "--attention-dropout", "0.1",
                    "--logging-steps", "1", "--quiet", "-o", file(output),
                ] + more, spread)
            #expect(run.status == 0, "\(run.errors)")
        }
        try train("one", ["--threads", "1"], .alone)
        for (number, (spread, more)) in [
            (Spread.virtual(2), ["--threads", "2"]), (.virtual(3), ["--strategy", "pass-q"]),
            (.virtual(4), ["--strategy", "head-exchange"]), (.virtual(5), ["--ranks-per-node", "2"]),
            (.virtual(2), ["--strategy", "hybrid", "--gradient-accumulation-steps", "2"]), (.virtual(8), []),
            (.mpirun(3), ["--strategy", "all-gather"]),
        ].enumerated() {
            try train("other-\(number)", more, spread)
            #expect(try weights("other-\(number)") == weights("one"), "\(spread), \(more)")
            #expect(try losses("other-\(number)") == losses("one"), "\(spread), \(more)")
        }
    }

    @Test func partsOfAStepChangeNothing() throws {
        #expect(try train(masked, to: "whole").status == 0)
        for parts in ["2", "5"] {
            let run = try train(masked + ["--gradient-accumulation-steps", parts], to: "parts-\(parts)", .virtual(2))
            #expect(run.status == 0, "\(run.errors)")
            #expect(try weights("parts-\(parts)") == weights("whole"))
        }
    }

    @Test func aTrainingGoesOnFromItsSnapshot() throws {
        #expect(try train(masked, to: "right").status == 0)
        let first = try train(masked + ["--save-steps", "2", "--save-total-limit", "1"], to: "again")
        #expect(first.status == 0, "\(first.errors)")
        let snapshots = try FileManager.default.contentsOfDirectory(atPath: file("again")).filter {
            $0.hasPrefix("checkpoint-")
        }
        #expect(snapshots == ["checkpoint-6"])
        #expect(try weights("again") == weights("right"))
        // As if it had ended behind the second step, on other ranks.
        #expect(try train(masked + ["--save-steps", "2"], to: "cut", .virtual(3)).status == 0)
        for name in ["checkpoint-4", "checkpoint-6", "model.safetensors", "trainer_state.json"] {
            try FileManager.default.removeItem(atPath: file("cut") + "/" + name)
        }
        let rest = try train(masked + ["--resume"], to: "cut", .virtual(2))
        #expect(rest.status == 0, "\(rest.errors)")
        #expect(try weights("cut") == weights("right"))
        #expect(try losses("cut") == losses("right"))
        // Once more: nothing is left to do. Another training is refused by name, and so is one that would overwrite.
        #expect(try train(masked + ["--resume"], to: "cut").status == 0)
        let other = try train(masked + ["--resume", "--seed", "7"], to: "cut")
        #expect(other.status == 65 && other.errors.contains("--seed"), "\(other.errors)")
        let twice = try train(masked, to: "cut")
        #expect(twice.status == 73 && twice.errors.contains("--resume"), "\(twice.errors)")
    }

    @Test func aSignalLeavesASnapshot() throws {
        let options = Array(masked.dropLast(0)) + ["--max-steps", "4000"]
        let own = try TemporaryFolder()
        let process = CommandRun.process(
            ["train", "-m", checkpoint("tasks-bert"), "-o", file("stopped"), "--learning-rate", "0.01"] + options,
            .alone,
            folder: own)
        try "".write(toFile: own.path("errors"), atomically: false, encoding: .utf8)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: own.path("errors")))
        try process.run()
        while process.isRunning,
            try !String(contentsOfFile: own.path("errors"), encoding: .utf8).contains("step 1/")
        { Thread.sleep(forTimeInterval: 0.01) }
        kill(process.processIdentifier, SIGUSR1)
        process.waitUntilExit()
        #expect(process.terminationStatus == 75)
        let snapshots = try FileManager.default.contentsOfDirectory(atPath: file("stopped"))
        #expect(snapshots.count == 1 && snapshots[0].hasPrefix("checkpoint-"), "\(snapshots)")
    }

    @Test(arguments: [
        ("classify", "labelled.jsonl", "BertForSequenceClassification", "accuracy"),
        ("multi-label", "several.jsonl", "BertForSequenceClassification", "f1"),
        ("regress", "numbers.jsonl", "BertForSequenceClassification", "spearman"),
        ("ner", "entities.jsonl", "BertForTokenClassification", "f1"),
        ("mlm", "texts.txt", "BertForMaskedLM", "perplexity"), ("similarity", "pairs.jsonl", "BertModel", "accuracy"),
    ]) func everyKindLearns(kind: String, name: String, architecture: String, metric: String) throws {
        let run = try train(
            [
                "--task", "\(kind):\(file(name))", "--eval", "\(kind):\(file(name))", "--batch-tokens", "600",
                "--max-steps", "60", "--logging-steps", "20", "--input-format", kind == "mlm" ? "lines" : "jsonl",
                "--max-length", "72", "--truncate", "right",
            ], to: "kind-\(kind)", .virtual(2))
        #expect(run.status == 0, "\(run.errors)")
        let losses = try losses("kind-\(kind)")
        #expect(losses.count == 3 && losses[2] < losses[0], "\(kind): \(losses)")
        let last = try state("kind-\(kind)")["log_history"]?.array?.last
        #expect(last?["eval_\(metric)"]?.double != nil, "\(kind): \(String(describing: last))")
        if kind == "classify" { #expect(last?["eval_accuracy"]?.double == 1) }
        let config = try JSON.load(path: file("kind-\(kind)") + "/config.json")
        #expect(config["architectures"]?[0]?.string == architecture)
        if kind == "classify" {
            #expect(config["id2label"]?["0"]?.string == "good")
            let input = "{\"text\": \"cute dog hello\"}\n"
            let classified = try CommandRun.annulus(
                ["classify", "-m", file("kind-\(kind)"), "--input-format", "jsonl", "--quiet"], input: input)
            #expect(classified.status == 0, "\(classified.errors)")
        }
        if kind == "ner" { #expect(config["id2label"]?.object?.count == 3) }
    }

    @Test func whatCannotBeHonouredIsRefused() throws {
        var latin = Data("{\"text\": \"Ren".utf8)
        latin += [0xE9] + Data("\", \"label\": \"a\"}\n".utf8)
        try latin.write(to: URL(fileURLWithPath: file("latin.jsonl")))
        for (options, status, words) in [
            (["--task", "classify"], Int32(64), "--input"), (["--task", "guess:x"], 64, "none of"),
            (["--task", "classify:\(file("texts.txt"))"], 65, "texts.txt:1"),
            (["--task", "classify:\(file("missing.jsonl"))"], 66, "missing.jsonl"),
            (["--task", "mlm:\(file("texts.txt"))", "--freeze", "7"], 64, "--freeze"),
            (["--task", "mlm:\(file("texts.txt"))", "--dtype", "bfloat16"], 64, "--save-dtype"),
            (["--task", "mlm:\(file("texts.txt"))", "--layout", "zigzag"], 64, "--layout"),
            (["--task", "classify:\(file("latin.jsonl"))"], 65, "byte 13"),
            (["--task", "mlm:\(file("texts.txt"))", "--eval", "ner:\(file("entities.jsonl"))"], 64, "--task"),
            (["--task", "mlm:\(file("texts.txt"))", "--task-weights", "1,2"], 64, "--task-weights"),
            (
                [
                    "--task", "similarity:\(file("pairs.jsonl"))", "--gradient-accumulation-steps", "2",
                ], 64, "--gradient-accumulation-steps"
            ),
        ] {
            let run = try train(options, to: "refused")
            #expect(run.status == status, "\(options): \(run.errors)")
            #expect(run.errorLines.count == 1 && run.errors.contains(words), "\(options): \(run.errors)")
            #expect(!FileManager.default.fileExists(atPath: file("refused") + "/model.safetensors"))
        }
        // What stands behind the pooling of a folder and is not trained.
        for (name, words) in [
            ("dense-residual-norm", "2 poolings"), ("two-poolings", "3 poolings"),
            ("colbert", "1_Dense"), ("unknown-module", "module"),
        ] {
            let model = golden(name)
            let run = try CommandRun.annulus([
                "train", "-m", model, "-o", file("refused"), "--task", "similarity:\(file("pairs.jsonl"))", "--quiet",
                "--max-steps", "1",
            ])
            #expect(run.status == 65, "\(name): \(run.errors)")
            #expect(
                run.errorLines.count == 1 && run.errors.contains("modules.json") && run.errors.contains(words),
                "\(name): \(run.errors)")
        }
        let much = try CommandRun.annulus(
            [
                "train", "-m", checkpoint("tasks-bert"), "-o", file("refused"), "--quiet", "--task",
                "mlm:\(file("texts.txt"))",
            ],
            environment: ["ANNULUS_MEMORY_GIB": "0.0001"])
        #expect(much.status == 71 && much.errors.contains("--batch-tokens"), "\(much.errors)")
    }

    /// Examples that would teach nothing, or something else than they say, are refused by the line; those of an evaluation
    /// too, and those of a model that knows its labels.
    @Test func examplesThatDoNotFitAreRefused() throws {
        let good = #"{"text": "Ada met Bo", "entities": [{"start": 0, "end": 3, "label": "P"}]}"#
        for (kind, lines, words) in [
            ("classify", [#"{"text": "a", "label": "x"}"#, #"{"text": "b", "label": "x"}"#], "nothing to tell apart"),
            ("classify", [#"{"text": "a", "label": 0}"#, #"{"text": "b", "label": 4000000000}"#], "4000000000"),
            ("classify", [#"{"text": "a", "label": "x"}"#, #"{"text": "b"}"#], ":2: has no label"),
            (
                "classify",
                [#"{"text": "a", "label": "x"}"#, #"{"text": "b", "label": "y", "text_pair": 5}"#], ":2: has"
            ),
            ("ner", [good, good.replacing("3", with: "30")], ":2: has an entity that ends at 30"),
            (
                "ner",
                [
                    #"{"text": "Ada met Bo", "entities": [{"start": 2, "end": 9, "label": "P"}, {"start": 0, "end": 3, "label": "Q"}]}"#
                ], "overlap"
            ),
            ("ner", [#"{"tokens": ["a", "b"], "labels": ["O"]}"#], "for every label"),
        ] {
            try write("unfit.jsonl", lines)
            let run = try train(["--task", "\(kind):\(file("unfit.jsonl"))"], to: "unfit")
            #expect(run.status == 65 && run.errorLines.count == 1, "\(lines): \(run.errors)")
            #expect(run.errors.contains("unfit.jsonl") && run.errors.contains(words), "\(lines): \(run.errors)")
        }
        try write("fit.jsonl", [good])
        for (line, words) in [
            (good.replacing("\"P\"", with: "\"Q\""), "'B-Q' is none"),
            (good.replacing("3", with: "-3"), "without start"),
            (#"{"tokens": ["a", "b"], "labels": ["O"]}"#, "for every label"),
        ] {
            try write("unfit.jsonl", [line])
            let run = try train(
                ["--task", "ner:\(file("fit.jsonl"))", "--eval", "ner:\(file("unfit.jsonl"))"], to: "unfit")
            #expect(run.status == 65 && run.errors.contains("unfit.jsonl:1"), "\(line): \(run.errors)")
            #expect(run.errors.contains(words), "\(line): \(run.errors)")
        }
        let nothing = try train(["--task", "mlm:\(file("texts.txt"))", "--mlm-probability", "0"], to: "unfit")
        #expect(nothing.status == 64 && nothing.errors.contains("--mlm-probability"), "\(nothing.errors)")
    }

    /// A folder of sentence-transformers.
    private func golden(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Goldens/folders/\(name)/model").path
    }

    /// A Dense behind pooling learns with the transformer, on any ranks to the same bytes, and the folder gives its vectors.
    @Test func modulesBehindPoolingAreTrained() throws {
        let options = [
            "-m", golden("dense"), "--task", "similarity:\(file("pairs.jsonl"))", "--eval",
            "similarity:\(file("pairs.jsonl"))", "--learning-rate", "0.003", "--batch-tokens", "200", "--max-steps",
            "12",
            "--logging-steps", "4", "--quiet",
        ]
        let module = "/2_Dense/model.safetensors"
        func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }
        for (spread, output) in [
            (Spread.alone, "dense"), (.virtual(3), "dense-3"), (.mpirun(2), "dense-mpi"),
        ] {
            let run = try CommandRun.annulus(["train", "-o", file(output)] + options, spread)
            #expect(run.status == 0, "\(spread): \(run.errors)")
            #expect(try weights(output) == weights("dense"), "\(spread)")
            #expect(try bytes(file(output) + module) == bytes(file("dense") + module), "\(spread)")
            #expect(try losses(output) == losses("dense"), "\(spread)")
        }
        let found = try losses("dense")
        #expect(found.count == 3 && found[2] < found[0], "\(found)")
        let (before, after) = (
            try TensorFile(path: golden("dense") + module), try TensorFile(path: file("dense") + module)
        )
        for name in ["linear.weight", "linear.bias"] {
            let (one, other) = (try before.readFloat32(name), try after.readFloat32(name))
            #expect(one.count == other.count && one != other, "\(name)")
        }
        // The rest of the folder is as it was, and vectors come of it, other ones.
        for name in ["/modules.json", "/1_Pooling/config.json", "/2_Dense/config.json"] {
            #expect(
                try JSON.load(path: golden("dense") + name) == JSON.load(path: file("dense") + name), "\(name)")
        }
        let vectors = try [golden("dense"), file("dense")].map { model in
            let run = try CommandRun.annulus(["embed", "-m", model, "--quiet"], input: "the quick brown fox\n")
            #expect(run.status == 0, "\(run.errors)")
            return run.output
        }
        #expect(vectors[0] != vectors[1] && !vectors[1].isEmpty)
    }

    /// A transformer in a folder of its own, and its pooling, are those of the folder that is made.
    @Test func foldersOfTheOldLayoutKeepTheirPooling() throws {
        let run = try CommandRun.annulus([
            "train", "-o", file("old"), "-m", golden("old-layout"), "--task", "similarity:\(file("pairs.jsonl"))",
            "--max-steps", "1", "--learning-rate", "0", "--quiet",
        ])
        #expect(run.status == 0, "\(run.errors)")
        let vectors = try [golden("old-layout"), file("old")].map { model in
            let run = try CommandRun.annulus(["embed", "-m", model, "--quiet"], input: "the quick brown fox\n")
            #expect(run.status == 0, "\(run.errors)")
            return run.output
        }
        #expect(vectors[0] == vectors[1] && !vectors[1].isEmpty)
    }

    @Test func whatIsFrozenStays() throws {
        let run = try train(masked + ["--freeze", "embeddings,0"], to: "frozen")
        #expect(run.status == 0, "\(run.errors)")
        let before = try Checkpoint(folder: checkpoint("tasks-bert"))
        let after = try Checkpoint(folder: file("frozen"))
        var changed: [String] = []
        for name in after.names {
            let values = try after.file(of: name)?.readFloat32(name)
            let short = name.hasPrefix("bert.") ? String(name.dropFirst(5)) : name
            guard let stored = before[short].storedName else { continue }
            if try before.file(of: stored)?.readFloat32(stored) != values { changed.append(name) }
        }
        #expect(!changed.isEmpty && changed.allSatisfy { $0.hasPrefix("cls.") }, "\(changed)")
    }

    @Test func eventFilesAreFramedAsTheirReadersWant() throws {
        #expect(try train(masked + ["--logging-dir", file("events")], to: "logged").status == 0)
        let names = try FileManager.default.contentsOfDirectory(atPath: file("events"))
        #expect(names.count == 1 && names[0].hasPrefix("events.out.tfevents."))
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file("events") + "/" + names[0])))
        // The version, and six steps; scripts/checks/event-files.py reads them with TensorBoard's own reader.
        var (place, records) = (0, 0)
        while place < bytes.count {
            let length = (0..<8).reduce(0) { $0 | Int(bytes[place + $1]) << (8 * $1) }
            place += 16 + length
            records += 1
        }
        #expect(place == bytes.count && records == 7)
    }
}
