// Ranks whose copies, programs or options differ are refused by name before they work together.

import Checkpoints
import Files
import Foundation
import Testing

@Suite(.serialized) struct CopyTests {
    /// A copy of a committed model, in which something may be changed.
    private func copy(_ folder: TemporaryFolder, _ change: (String) throws -> Void) throws -> String {
        let model = folder.path("copy")
        try FileManager.default.copyItem(atPath: checkpoint("tiny-bert"), toPath: model)
        try change(model)
        return model
    }

    /// Changes one byte of the first number of a tensor.
    private func edit(_ model: String, _ suffix: String, byte: Int, _ change: (inout UInt8) -> Void) throws -> String {
        let path = model + "/model.safetensors"
        let file = try TensorFile(path: path)
        let name = try #require(file.names.first { $0.hasSuffix(suffix) })
        let place = try #require(file.tensors[name]).byteRange.lowerBound + byte
        var data = try Data(contentsOf: URL(fileURLWithPath: path))
        change(&data[place])
        try data.write(to: URL(fileURLWithPath: path))
        return name
    }

    private func refuse(
        _ last: [String], status: Int32, naming names: [String], verb: [String] = ["embed"], ranks: Int = 3,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let folder = try TemporaryFolder()
        let arguments =
            verb + ["-m", checkpoint("tiny-bert")] + (verb[0] == "embed" ? ["-o", folder.path("out.npy")] : [])
        let run = try CommandRun.annulus(arguments, .lastWith(last, ranks: ranks), input: "one line\nand another\n")
        #expect(run.status == status, "\(run.errors)", sourceLocation: sourceLocation)
        #expect(run.errorLines.count == 1, "\(run.errors)", sourceLocation: sourceLocation)
        for name in names + ["rank \(ranks - 1) on"] {
            #expect(
                run.errorLines.first?.contains(name) == true, "'\(name)' is missing in: \(run.errors)",
                sourceLocation: sourceLocation)
        }
        #expect(folder.names.isEmpty && run.output.isEmpty, sourceLocation: sourceLocation)
    }

    /// One bit of one number: of a table that ranks read in shares, of a matrix that one of them packs, of a vector
    /// that all read.
    @Test(
        arguments: [
            "word_embeddings.weight", "layer.1.output.dense.weight", "layer.0.attention.output.LayerNorm.bias",
        ], [2, 3])
    func oneBitOfAWeightIsNoticed(tensor: String, ranks: Int) throws {
        let folder = try TemporaryFolder()
        var name = ""
        let model = try copy(folder) { name = try edit($0, tensor, byte: 0) { $0 ^= 1 } }
        try refuse(["-m", model], status: 65, naming: ["tensor '\(name)'"], ranks: ranks)
    }

    @Test func filesThatAreReadAreCompared() throws {
        for (file, old, new) in [
            ("tokenizer.json", "\"max_input_chars_per_word\":100", "\"max_input_chars_per_word\":101"),
            ("config.json", "\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 1e-11"),
        ] {
            let folder = try TemporaryFolder()
            let model = try copy(folder) { try replace(file, old, new)($0) }
            try refuse(["-m", model], status: 65, naming: [file])
        }
        // A file that only one rank has changes what it computes too.
        let folder = try TemporaryFolder()
        let model = try copy(folder) { model in
            try Data(
                "[{\"type\": \"a.Transformer\", \"path\": \"\"}, {\"type\": \"a.Pooling\", \"path\": \"1_Pooling\"}]"
                    .utf8
            )
            .write(to: URL(fileURLWithPath: model + "/modules.json"))
            try FileManager.default.createDirectory(atPath: model + "/1_Pooling", withIntermediateDirectories: true)
            try Data("{\"pooling_mode_cls_token\": true}".utf8).write(
                to: URL(fileURLWithPath: model + "/1_Pooling/config.json"))
        }
        try refuse(["-m", model], status: 65, naming: ["1_Pooling/config.json"])
    }

    @Test(arguments: [
        ["--pooling", "cls"], ["--strategy", "tree"], ["--dtype", "bfloat16"], ["--max-length", "7"],
        ["--truncate-dim", "3"],
    ])
    func optionsThatChangeBitsOrPlansAreCompared(option: [String]) throws {
        try refuse(option, status: 78, naming: ["\(option[0]) is '\(option[1])'"])
    }

    @Test func flagsAndVerbsAreComparedToo() throws {
        try refuse(["--normalize"], status: 78, naming: ["--normalize is 'true'", "not given on rank 0"])
        try refuse(["--seed", "9"], status: 78, naming: ["--seed is '9'", "'0' on rank 0"], verb: ["verify"])
        let run = try CommandRun.annulus(
            ["bench", "peak", "--repetitions", "1"], .lastWith(["--seed", "1"], ranks: 2))
        #expect(run.status == 78 && run.errorLines.count == 1 && run.errors.contains("--seed"), "\(run.errors)")
    }

    /// Equal copies in other folders, and options that change nothing, give the bytes of one rank.
    @Test func whatChangesNothingMayDiffer() throws {
        let folder = try TemporaryFolder()
        let model = try copy(folder) { _ in }
        let arguments = ["embed", "-m", checkpoint("tiny-bert")]
        let alone = try CommandRun.annulus(arguments, input: "one line\nand another\n")
        let run = try CommandRun.annulus(
            arguments,
            .lastWith(
                ["-m", model, "--threads", "2", "--watchdog", "100", "--quiet", "--progress", "never"], ranks: 3),
            input: "one line\nand another\n")
        #expect(run.status == 0 && run.output == alone.output && !alone.output.isEmpty, "\(run.errors)")
    }

    @Test func anotherBuildIsRefused() throws {
        let folder = try TemporaryFolder()
        let program = folder.path("annulus")
        let original = CommandRun.products.appendingPathComponent("annulus").path
        try FileManager.default.copyItem(atPath: original, toPath: program)
        let arguments = ["embed", "-m", checkpoint("tiny-bert")]
        // A copy is the same build; one byte more makes another of it.
        let same = try CommandRun.annulus(arguments, .lastBeing(program, ranks: 3), input: "one line\n")
        #expect(same.status == 0, "\(same.errors)")
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: program))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data([0]))
        try handle.close()
        let other = try CommandRun.annulus(arguments, .lastBeing(program, ranks: 3), input: "one line\n")
        #expect(other.status == 78 && other.errorLines.count == 1, "\(other.errors)")
        #expect(other.errors.contains("rank 2 on") && other.errors.contains("another build"), "\(other.errors)")
    }

    /// Each rank of `attend` reads its own rows of its own copy.
    @Test func anArrayFileIsCompared() throws {
        let folder = try TemporaryFolder()
        let layout = SafetensorsLayout(tensors: ["q", "k", "v"].map { ($0, .float32, [2, 700, 16]) })
        var bytes = layout.headerBytes
        for index in 0..<3 * 2 * 700 * 16 { withUnsafeBytes(of: Float(index * 7919 % 1000) * 0.001) { bytes += $0 } }
        try Data(bytes).write(to: URL(fileURLWithPath: folder.path("in.safetensors")))
        try Data(bytes).write(to: URL(fileURLWithPath: folder.path("same.safetensors")))
        bytes[bytes.count - 2] ^= 1
        try Data(bytes).write(to: URL(fileURLWithPath: folder.path("other.safetensors")))
        let arguments = ["attend", "-i", folder.path("in.safetensors"), "-o", folder.path("out.safetensors")]
        let other = try CommandRun.annulus(arguments, .lastWith(["-i", folder.path("other.safetensors")], ranks: 3))
        #expect(other.status == 65 && other.errorLines.count == 1, "\(other.errors)")
        #expect(other.errors.contains("in.safetensors: the copy on rank 2 on"), "\(other.errors)")
        #expect(!folder.names.contains("out.safetensors"))
        let same = try CommandRun.annulus(arguments, .lastWith(["-i", folder.path("same.safetensors")], ranks: 3))
        #expect(same.status == 0, "\(same.errors)")
    }

    /// What is not finite is named once, and the job goes on; `verify` fails.
    @Test(arguments: [Spread.alone, .mpirun(3), .virtual(2)]) func whatIsNotFiniteIsNamedOnce(spread: Spread) throws {
        let folder = try TemporaryFolder()
        var name = ""
        // The exponent and the top of the mantissa: NaN.
        let model = try copy(folder) { model in
            name = try edit(model, "layer.1.output.dense.weight", byte: 3) { $0 = 0x7F }
            _ = try edit(model, "layer.1.output.dense.weight", byte: 2) { $0 = 0xC0 }
        }
        let run = try CommandRun.annulus(
            ["embed", "-m", model], spread, input: String(repeating: "a b c ", count: 200) + "\nand another\n")
        #expect(run.status == 0 && run.output.count > 100, "\(run.errors)")
        let warnings = run.errors.split(separator: "\n").filter { $0.hasPrefix("warning:") }
        #expect(warnings.count { $0.contains("tensor '\(name)'") } == 1, "\(run.errors)")
        #expect(warnings.count { $0.contains("layer 2 for tile 0 of standard input:1 (rank ") } == 1, "\(run.errors)")
        #expect(warnings.count == 2, "\(run.errors)")
        if case .alone = spread {
            let verified = try CommandRun.annulus(["verify", "-m", model, "--ranks", "1", "--lengths", "5"])
            #expect(
                verified.status == 65
                    && String(decoding: verified.output, as: UTF8.self).contains("'\(name)' holds 1 that"),
                "\(verified.errors)")
        }
    }

    /// Finite weights whose products are not: the layer alone is named.
    @Test func aLayerThatOverflowsIsNamed() throws {
        let folder = try TemporaryFolder()
        let model = try copy(folder) { model in
            // 2¹²⁷ and more times what a norm gives.
            let path = model + "/model.safetensors"
            let file = try TensorFile(path: path)
            let tensor = try #require(
                file.names.first { $0.hasSuffix("layer.0.output.dense.bias") }.flatMap { file.tensors[$0] })
            var data = try Data(contentsOf: URL(fileURLWithPath: path))
            for place in stride(from: tensor.byteRange.lowerBound, to: tensor.byteRange.upperBound, by: 4) {
                withUnsafeBytes(of: Float.greatestFiniteMagnitude) { data.replaceSubrange(place..<place + 4, with: $0) }
            }
            try data.write(to: URL(fileURLWithPath: path))
        }
        let run = try CommandRun.annulus(["embed", "-m", model], .virtual(2), input: "one line\n")
        #expect(run.status == 0, "\(run.errors)")
        let warnings = run.errors.split(separator: "\n").filter { $0.hasPrefix("warning:") }
        #expect(warnings.count == 1 && warnings[0].contains("layer 1 for tile 0 of standard input:1"), "\(run.errors)")
        let verified = try CommandRun.annulus(["verify", "-m", model, "--ranks", "1", "--lengths", "5"])
        #expect(verified.status == 65, "\(verified.errors)")
        #expect(
            String(decoding: verified.output, as: UTF8.self).contains("not finite from layer 1 on"),
            "\(verified.errors)")
    }
}
