// `annulus observe`: the classic example against transformers, the same bytes on any number of ranks, probes as runs of
// edited documents, and what is refused.

import Files
import Foundation
import Testing

@Suite struct ObservationCommandTests {
    private let model = checkpoint("tasks-bert")

    private func observe(_ arguments: [String], _ spread: Spread = .alone, input: String, into path: String) throws {
        let run = try CommandRun.annulus(
            ["observe", "-m", model, "--quiet", "-o", path, "--force"] + arguments, spread, input: input)
        #expect(run.status == 0, "\(arguments), \(spread): \(run.errors)")
    }

    @Test func theClassicExampleHasTheWeightsAndScoresOfTransformers() throws {
        let golden = try TensorFile(
            path: URL(fileURLWithPath: model).deletingLastPathComponent().appendingPathComponent(
                "attention/classic.safetensors"
            ).path)
        let folder = try TemporaryFolder()
        let path = folder.path("out.safetensors")
        try observe(["--queries", "0:", "--top-k", "2"], input: "Hello, my dog is cute\n", into: path)
        let file = try TensorFile(path: path)
        #expect(try file.readIntegers("0.ids") == golden.readIntegers("ids"))
        let (weights, scores) = (try golden.readFloat32("weights"), try golden.readFloat32("scores"))
        let layers = file.names.count { $0.hasSuffix(".weights") }
        let size = weights.count / layers
        #expect(layers == 1)
        for layer in 0..<layers {
            let range = layer * size..<(layer + 1) * size
            let mine = try file.readFloat32("0.layer.\(layer).weights")
            #expect(mine.count == size)
            let worst = zip(mine, weights[range]).map { abs($0 - $1) }.max() ?? 1
            #expect(worst <= 1e-5, "weights of layer \(layer) are off by \(worst)")
            let largest = scores[range].map { abs($0) }.max() ?? 0
            let error = zip(try file.readFloat32("0.layer.\(layer).scores"), scores[range]).map { abs($0 - $1) }.max()
            #expect((error ?? 1) <= 1e-5 * largest, "scores of layer \(layer) are off by \(error ?? 1) of \(largest)")
        }
    }

    @Test func everyNumberOfRanksGivesTheSameBytes() throws {
        let folder = try TemporaryFolder()
        let long = "Hello, my dog is cute, and so is the tea at four"
        let input = [long, "Hello, my dog is cute", "Tea at four."].map { "{\"text\": \(JSON.quoted($0))}\n" }.joined()
        let arguments = [
            "--input-format", "jsonl", "--top-k", "3", "--queries", "2:5", "--block-map", "--rollout", "1:3", "--probe",
            "noise", "--probe-tokens", "1:3",
        ]
        let alone = folder.path("alone.safetensors")
        try observe(arguments, input: input, into: alone)
        let expected = try Data(contentsOf: URL(fileURLWithPath: alone))
        #expect(expected.count > 10_000)
        for spread in [Spread.virtual(2), .virtual(3), .virtual(5), .virtual(8), .mpirun(2), .mpirun(3)] {
            let path = folder.path("other.safetensors")
            try observe(arguments, spread, input: input, into: path)
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == expected, "\(spread)")
        }
        // Lines hold the same numbers.
        let lines = folder.path("lines.jsonl")
        try observe(arguments, .virtual(3), input: input, into: lines)
        let objects = try String(contentsOfFile: lines, encoding: .utf8).split(separator: "\n").map { line in
            // NaN where nothing was probed, as Python's reader has it.
            try line.write(toFile: folder.path("line.json"), atomically: false, encoding: .utf8)
            return try JSON.load(path: folder.path("line.json"))
        }
        let file = try TensorFile(path: alone)
        let layers = file.names.count { $0.hasPrefix("1.layer.") && $0.hasSuffix(".entropy") }
        // Ids, the layers, and the rest of each document.
        #expect(objects.count == 3 * (layers + 2))
        func flat(_ value: JSON?) -> [Double] {
            value?.array.map { $0.flatMap { flat($0) } } ?? value?.double.map { [$0] } ?? []
        }
        for object in objects {
            guard case .integer(let document)? = object["document"], case .integer(let layer)? = object["layer"] else {
                continue
            }
            for name in [
                "entropy", "received_mass", "weights", "block_map", "first_token_share", "probe_mass_distance",
                "probe_entropy_change",
            ] {
                #expect(
                    flat(object[name]).map { Float($0) }
                        == (try file.readFloat32("\(document).layer.\(layer).\(name)")),
                    "\(name)")
            }
            #expect(
                flat(object["top_keys"]).map { Int($0) }
                    == (try file.readIntegers("\(document).layer.\(layer).top_keys").map { Int($0) }))
        }
        let rollout = try file.readFloat32("1.rollout")
        let tokens = try file.readIntegers("1.ids").count
        #expect(rollout.count == 2 * tokens)
        for row in 0..<2 { #expect(abs(rollout[row * tokens..<(row + 1) * tokens].reduce(0, +) - 1) < 1e-5) }
    }

    /// A document that ranks share, and one that is whole on one of them.
    @Test func tilesOfALongDocumentAreObservedWhereTheyAre() throws {
        let folder = try TemporaryFolder()
        let input = [300, 5].map { count in
            "[" + (0..<count).map { String(5 + $0 * 7 % 50) }.joined(separator: ", ") + "]\n"
        }.joined()
        func bytes(_ spread: Spread, _ more: [String] = []) throws -> Data {
            let path = folder.path("long.safetensors")
            let run = try CommandRun.annulus(
                [
                    "observe", "-m", checkpoint("tiny-bert"), "--quiet", "-o", path, "--force", "--input-format", "ids",
                    "--top-k", "2", "--block-map", "--keys", "1:5", "--rollout", "4", "--layers", "1", "--heads", "0",
                ] + more, spread, input: input)
            #expect(run.status == 0, "\(spread): \(run.errors)")
            return try Data(contentsOf: URL(fileURLWithPath: path))
        }
        let alone = try bytes(.alone)
        for (spread, strategy) in [
            (Spread.virtual(2), "pass-q"), (.virtual(3), "head-exchange"), (.virtual(4), "tree"),
            (.mpirun(2), "pass-kv"), (.mpirun(3), "auto"),
        ] {
            #expect(try bytes(spread, ["--strategy", strategy]) == alone, "\(spread), \(strategy)")
        }
    }

    /// The change of a logit is what `classify` gives for the edited document less what it gives for the document.
    @Test(arguments: ["mask", "drop", "swap", "noise"]) func probesAreRunsOfEditedDocuments(edit: String) throws {
        let folder = try TemporaryFolder()
        let text = "Hello, my dog is cute and my house is blue"
        let path = folder.path("probe.safetensors")
        for name in ["model.safetensors", "tokenizer.json"] {
            try FileManager.default.copyItem(atPath: model + "/" + name, toPath: folder.path(name))
        }
        // The same weights, of which those of the classifier are meant.
        try String(contentsOfFile: model + "/config.json", encoding: .utf8).replacingOccurrences(
            of: "BertForQuestionAnswering", with: "BertForSequenceClassification"
        ).write(toFile: folder.path("config.json"), atomically: false, encoding: .utf8)
        let model = folder.path("")
        let observed = try CommandRun.annulus(
            ["observe", "-m", model, "--quiet", "-o", path, "--probe", edit, "--layers", "0"], .virtual(2),
            input: text + "\n")
        #expect(observed.status == 0, "\(observed.errors)")
        let file = try TensorFile(path: path)
        let (ids, changes) = (try file.readIntegers("0.ids"), try file.readFloat32("0.probe"))
        #expect(changes.count == ids.count && changes[0].isNaN && changes[ids.count - 1].isNaN)
        let tokenized = try CommandRun.annulus(["tokenize", "-m", model, "--quiet"], input: "[MASK]\n")
        let mask = try #require(JSON.parse(Array(tokenized.output), path: "tokenize")["ids"]?[1])
        guard case .integer(let maskId) = mask else { return }
        let noise = edit == "noise" ? try file.readIntegers("0.probe_ids").map { Int($0) } : []
        var documents = [ids.map { Int($0) }]
        var probed: [Int] = []
        for token in ids.indices where !changes[token].isNaN {
            documents.append(Self.edited(documents[0], edit, token, mask: maskId, noise: noise))
            probed.append(token)
        }
        #expect(probed.count >= ids.count - 3)
        #expect(documents.dropFirst().allSatisfy { $0 != documents[0] })
        #expect(noise.isEmpty || noise.first == -1 && noise.last == -1)
        let run = try CommandRun.annulus(
            ["classify", "-m", model, "--quiet", "--input-format", "ids"],
            input: documents.map { "[" + $0.map(String.init).joined(separator: ", ") + "]\n" }.joined())
        #expect(run.status == 0, "\(run.errors)")
        let logits = try String(decoding: run.output, as: UTF8.self).split(separator: "\n").map { line in
            try (JSON.parse(Array(line.utf8), path: "classify")["logits"]?.array ?? []).compactMap(\.double).map {
                Float($0)
            }
        }
        let top = try #require(logits[0].indices.max { logits[0][$0] < logits[0][$1] })
        for (place, token) in probed.enumerated() {
            #expect(changes[token] == logits[place + 1][top] - logits[0][top], "\(edit) of token \(token)")
        }
    }

    /// A document with one token edited.
    private static func edited(_ ids: [Int], _ edit: String, _ token: Int, mask: Int = 0, noise: [Int] = []) -> [Int] {
        var ids = ids
        switch edit {
        case "mask": ids[token] = mask
        case "drop": ids.remove(at: token)
        case "noise": ids[token] = noise[token]
        default: ids.swapAt(token, token + 1)
        }
        return ids
    }

    /// How attention moves is what observing the edited document gives, held against what the original has: 62 edits of
    /// a document of two tiles, in two of three layers and two of four heads.
    @Test func probesOfAttentionAreComparisonsOfObservedDocuments() throws {
        let folder = try TemporaryFolder()
        let ids = (0..<300).map { 5 + $0 * $0 % 600 }
        func line(_ ids: [Int]) -> String { "[" + ids.map(String.init).joined(separator: ", ") + "]\n" }
        func observe(_ documents: [[Int]], _ more: [String], _ spread: Spread) throws -> TensorFile {
            let path = folder.path("observed.safetensors")
            let run = try CommandRun.annulus(
                [
                    "observe", "-m", checkpoint("tiny-bert"), "--quiet", "-o", path, "--force", "--input-format", "ids",
                    "--layers", "0,2", "--heads", "1,3",
                ] + more, spread, input: documents.map(line).joined())
            #expect(run.status == 0, "\(run.errors)")
            return try TensorFile(path: path)
        }
        for (edit, tokens, spread) in [
            ("drop", 250..<272, Spread.virtual(3)), ("swap", 246..<266, .mpirun(2)), ("noise", 0..<20, .alone),
        ] {
            let range = "\(tokens.lowerBound):\(tokens.upperBound)"
            // A document of its own before it, whose original must not be taken for this one's.
            let company = Array(ids.reversed())
            let probed = try observe([company, ids], ["--probe", edit, "--probe-tokens", range], spread)
            let noise =
                edit == "noise" ? try probed.readIntegers("1.probe_ids").map { Int($0) } + Array(ids[20...]) : []
            let documents = [ids] + tokens.map { Self.edited(ids, edit, $0, noise: noise) }
            let observed = try observe(documents, [], .virtual(2))
            for layer in [0, 2] {
                let distances = try probed.readFloat32("1.layer.\(layer).probe_mass_distance")
                let changes = try probed.readFloat32("1.layer.\(layer).probe_entropy_change")
                #expect(distances.count == 2 * tokens.count && changes.count == 2 * tokens.count)
                func heads(_ document: Int, _ name: String) throws -> [[Double]] {
                    let all = try observed.readFloat32("\(document).layer.\(layer).\(name)").map { Double($0) }
                    let count = all.count / 2
                    return [Array(all[..<count]), Array(all[count...])]
                }
                let (mass, entropy) = (try heads(0, "received_mass"), try heads(0, "entropy"))
                for (place, token) in tokens.enumerated() {
                    let (otherMass, otherEntropy) = (
                        try heads(place + 1, "received_mass"), try heads(place + 1, "entropy")
                    )
                    for head in 0..<2 {
                        // Which places of the two documents hold the same token.
                        var pairs = Array(zip(ids.indices, ids.indices))
                        switch edit {
                        case "drop": pairs = ids.indices.filter { $0 != token }.enumerated().map { ($1, $0) }
                        case "swap": (pairs[token].1, pairs[token + 1].1) = (token + 1, token)
                        default: break
                        }
                        // What two distributions have in common is what does not move.
                        let (sum, other) = (mass[head].reduce(0, +), otherMass[head].reduce(0, +))
                        let common = pairs.reduce(0) { $0 + min(mass[head][$1.0] / sum, otherMass[head][$1.1] / other) }
                        let change = pairs.reduce(0) { $0 + abs(entropy[head][$1.0] - otherEntropy[head][$1.1]) }
                        let at = head * tokens.count + place
                        let what: Comment = "\(edit) of token \(token), layer \(layer), head \(head)"
                        // Sums of doubles in two orders, and a rounding to float.
                        #expect(abs(Double(distances[at]) - (1 - common)) < 1e-7 * (1 - common) + 1e-13, what)
                        #expect(
                            abs(Double(changes[at]) - change / Double(pairs.count)) < 1e-7 * Double(changes[at]), what)
                        #expect(distances[at] > 1e-6 && changes[at] > 1e-7, what)
                    }
                }
            }
        }
    }

    @Test func reportsAndPicturesHaveTheSameBytesOnAnyRanks() throws {
        let folder = try TemporaryFolder()
        func bytes(_ name: String, _ arguments: [String], _ spread: Spread) throws -> Data {
            let path = folder.path(name)
            try observe(arguments, spread, input: "Hello, my </script> dog is cute\n", into: path)
            return try Data(contentsOf: URL(fileURLWithPath: path))
        }
        for (name, arguments) in [
            ("a.html", ["--probe", "swap", "--rollout", "1:3", "--queries", "2"]), ("a.png", []),
        ] {
            let alone = try bytes(name, arguments, .alone)
            #expect(alone.count > 500)
            for spread in [Spread.virtual(3), .mpirun(2)] {
                #expect(try bytes(name, arguments, spread) == alone, "\(name), \(spread)")
            }
        }
        let several = try CommandRun.annulus(
            ["observe", "-m", model, "-o", folder.path("b.html")], .virtual(2), input: "Hello\nTea\n")
        #expect(several.status == 65 && several.errors.contains("one document"), "\(several.errors)")
        #expect(!FileManager.default.fileExists(atPath: folder.path("b.html")))
    }

    @Test func aMatrixBeyondTheLimitIsRefusedBeforehand() throws {
        let ids = "[" + Array(repeating: "5", count: 8000).joined(separator: ", ") + "]\n"
        for spread in [Spread.alone, .virtual(3)] {
            let run = try CommandRun.annulus(
                ["observe", "-m", checkpoint("tiny-bert"), "--quiet", "--input-format", "ids", "--keys", "0:"], spread,
                input: ids)
            #expect(run.status == 71 && run.errors.contains("GiB") && run.errors.contains("--top-k"), "\(run.errors)")
        }
    }

    @Test func phrasesChooseTokens() throws {
        let folder = try TemporaryFolder()
        let (by, of) = (folder.path("by.safetensors"), folder.path("of.safetensors"))
        let text = "Hello, my dog is cute\n"
        let tokenized = try CommandRun.annulus(["tokenize", "-m", model, "--quiet"], input: text)
        let offsets = try #require(JSON.parse(Array(tokenized.output), path: "tokenize")["offsets"]?.array)
        // `my dog` is what stands at 7 ..< 13.
        let found = offsets.indices.filter { index in
            let ends = (offsets[index].array ?? []).compactMap(\.double)
            return ends.count == 2 && ends[0] < 13 && ends[1] > 7
        }
        let (first, last) = (try #require(found.first), try #require(found.last))
        try observe(["--key-phrase", "my dog", "--heads", "1"], input: text, into: by)
        try observe(["--keys", "\(first):\(last + 1)", "--queries", ":", "--heads", "1"], input: text, into: of)
        let (file, other) = (try TensorFile(path: by), try TensorFile(path: of))
        for name in ["0.layer.0.weights", "0.layer.0.scores"] {
            let values = try file.readFloat32(name)
            #expect(values.count == offsets.count * found.count)
            #expect(values == (try other.readFloat32(name)), "\(name)")
        }
    }

    @Test func whatCannotBeHonouredIsRefused() throws {
        for (arguments, status, word) in [
            (["--layers", "99"], Int32(64), "--layers"), (["--heads", "7,8"], 64, "--heads"),
            (["--queries", "5:3"], 64, "queries"), (["--top-k", "0"], 64, "--top-k"),
            (["--probe-tokens", "1:2"], 64, "--probe"), (["--queries", "0:9999"], 65, "tokens"),
            (["--query-phrase", "no such words"], 65, "no such words"), (["-o", "a.npy"], 64, ".safetensors"),
            (["--queries", "1:2", "--query-phrase", "x"], 64, "leave one out"),
            (["--resume"], 64, "name a file with --output"), (["-o", "a.jsonl", "--resume"], 64, "comes but once"),
            (["-o", "a.html", "--resume", "-i", "a.txt"], 64, "is of one"),
            (["-o", "a.png", "--resume", "-i", "a.txt"], 64, "is of one"),
        ] {
            for spread in [Spread.alone, .virtual(3)] {
                let run = try CommandRun.annulus(["observe", "-m", model] + arguments, spread, input: "Hello\n")
                #expect(run.status == status && run.errors.contains(word), "\(arguments): \(run.errors)")
                #expect(run.errorLines.count == 1 && run.output.isEmpty, "\(arguments): \(run.errors)")
            }
        }
    }
}
