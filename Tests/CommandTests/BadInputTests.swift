// Bad input: one line that names it and says what to do, the right status, no half-written output, at 1 and 3 ranks.

import Foundation
import Testing

@Suite(.serialized) struct BadInputTests {
    /// A case: what is done to a copy of a good checkpoint or to the command line, and what must come of it.
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let status: Int32
        /// What the line must name.
        let names: [String]
        var arguments: [String] = []
        var text: Data = Data("one line\nand another\n".utf8)
        var damage: @Sendable (String) throws -> Void = { _ in }

        var testDescription: String { name }
    }

    private static func edit(_ file: String, _ change: @escaping @Sendable (inout Data) -> Void)
        -> @Sendable (String) throws -> Void
    {
        { folder in
            let url = URL(fileURLWithPath: folder + "/" + file)
            var data = try Data(contentsOf: url)
            change(&data)
            try data.write(to: url)
        }
    }

    private static func remove(_ file: String) -> @Sendable (String) throws -> Void {
        { try FileManager.default.removeItem(atPath: $0 + "/" + file) }
    }

    static let cases: [Case] = [
        Case(name: "missing weights", status: 66, names: ["model.safetensors"], damage: remove("model.safetensors")),
        Case(
            name: "truncated weights", status: 65, names: ["model.safetensors"],
            damage: edit("model.safetensors") { $0.removeLast(1000) }),
        Case(
            name: "weights cut in the header", status: 65, names: ["model.safetensors"],
            damage: edit("model.safetensors") { $0 = $0.prefix(100) }),
        Case(
            name: "empty weights", status: 65, names: ["model.safetensors"],
            damage: edit("model.safetensors") { $0 = Data() }),
        Case(
            name: "a tensor of the wrong shape", status: 65, names: ["model.safetensors", "word_embeddings", "120"],
            damage: replace("config.json", "\"vocab_size\": ", "\"vocab_size\": 120, \"was\": ")),
        Case(
            name: "a missing tensor", status: 65, names: ["position_embeddings"],
            damage: replace("model.safetensors", "position_embeddings.weight", "position_embeddings.wejght")),
        Case(
            name: "heads that do not divide", status: 65, names: ["config.json", "num_attention_heads", "hidden_size"],
            damage: replace("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5")),
        Case(
            name: "another family", status: 65, names: ["config.json", "gpt2", "bert"],
            damage: replace("config.json", "\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"")),
        Case(
            name: "config that is no JSON", status: 65, names: ["config.json", "byte"],
            damage: edit("config.json") { $0[0] = UInt8(ascii: "}") }),
        Case(name: "missing tokenizer", status: 66, names: ["tokenizer.json"], damage: remove("tokenizer.json")),
        Case(name: "empty input", status: 65, names: ["input.txt", "empty"], text: Data()),
        Case(
            name: "input that is not UTF-8", status: 65, names: ["input.txt", "byte 3", "UTF-8"],
            text: Data([0x61, 0x62, 0x63, 0xFF, 0x64])),
        Case(
            name: "a document over the limit", status: 65, names: ["input.txt", "8192", "--truncate"],
            text: Data(String(repeating: "a b ", count: 9000).utf8)),
        Case(name: "a missing input", status: 66, names: ["nowhere.txt"], arguments: ["-i", "nowhere.txt"]),
        Case(
            name: "an output that exists", status: 73, names: ["exists.npy", "--force"],
            arguments: ["-o", "exists.npy"]),
        Case(
            name: "a folder that does not exist", status: 73, names: ["no/such/folder/out.npy"],
            arguments: ["-o", "no/such/folder/out.npy"]),
        Case(name: "an unknown option", status: 64, names: ["--poling"], arguments: ["--poling", "mean"]),
        Case(name: "an unknown storage type", status: 64, names: ["float16"], arguments: ["--dtype", "float16"]),
        Case(
            name: "a wire wider than what is stored", status: 64, names: ["--wire float32", "--dtype bfloat16"],
            arguments: ["--wire", "float32", "--dtype", "bfloat16"]),
        Case(name: "an unknown suffix", status: 64, names: ["out.csv"], arguments: ["-o", "out.csv"]),
    ]

    @Test(arguments: cases, [1, 3]) func aBadCaseIsOneLineAndItsStatus(_ bad: Case, ranks: Int) throws {
        let folder = try TemporaryFolder()
        let model = folder.path("model")
        try FileManager.default.copyItem(atPath: checkpoint("tiny-bert"), toPath: model)
        try bad.damage(model)
        try bad.text.write(to: URL(fileURLWithPath: folder.path("input.txt")))
        try Data("before".utf8).write(to: URL(fileURLWithPath: folder.path("exists.npy")))
        var arguments = ["embed", "-m", model]
        if !bad.arguments.contains("-i") { arguments += ["-i", folder.path("input.txt")] }
        var relative = bad.arguments
        if let place = relative.firstIndex(of: "-o") { relative[place + 1] = folder.path(relative[place + 1]) }
        if !relative.contains("-o") { relative += ["-o", folder.path("out.npy")] }
        let before = folder.names
        let run = try CommandRun.annulus(arguments + relative, ranks == 1 ? .alone : .mpirun(ranks))
        #expect(run.status == bad.status, "\(run.errors)")
        #expect(run.errorLines.count == 1, "\(run.errors)")
        for name in bad.names {
            #expect(run.errorLines.first?.contains(name) == true, "'\(name)' is missing in: \(run.errors)")
        }
        #expect(folder.names == before, "files were left: \(folder.names)")
        #expect(try Data(contentsOf: URL(fileURLWithPath: folder.path("exists.npy"))) == Data("before".utf8))
    }

    @Test func anOutputThatCannotBeWrittenIsRefusedBeforehand() throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.annulus(
            ["embed", "-m", checkpoint("tiny-bert"), "-o", "/proc/out.npy"], .mpirun(3), input: "text\n")
        #expect(run.status == 73, "\(run.errors)")
        #expect(run.errorLines.count == 1 && run.errors.contains("/proc/out.npy"), "\(run.errors)")
        withExtendedLifetime(folder) {}
    }

    @Test func aKernelThatDoesNotExistIsRefused() throws {
        for spread: Spread in [.alone, .mpirun(3)] {
            let run = try CommandRun.annulus(["bench", "peak"], spread, environment: ["ANNULUS_KERNEL": "abacus"])
            #expect(run.status == 78, "\(run.errors)")
            #expect(run.errorLines.count == 1 && run.errors.contains("abacus"), "\(run.errors)")
        }
    }

    @Test func slurmTasksThatDoNotFindEachOtherAreRefused() throws {
        let run = try CommandRun.annulus(
            ["bench", "peak"], environment: ["SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"])
        #expect(run.status == 78, "\(run.errors)")
        #expect(run.errors.contains("--mpi=pmix"), "\(run.errors)")
    }

    /// What `srun --mpi=pmi2` leaves in the environment of its tasks: MPICH's way to meet, not Open MPI's.
    @Test(.enabled(if: isOpenMPI, "the MPI here may speak PMI")) func openMPITasksThatAreToMeetThroughPMIAreRefused()
        throws
    {
        let run = try CommandRun.annulus(
            ["bench", "peak"],
            environment: [
                "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7",
                "PMI_RANK": "0", "PMI_SIZE": "2",
                "PMI_FD": "19", "PMI_JOBID": "7.0",
            ])
        #expect(run.status == 78, "\(run.errors)")
        #expect(run.errors.split(separator: "\n").count == 1 && run.errors.contains("srun --mpi=pmix"), "\(run.errors)")
    }

    private static let isOpenMPI =
        (try? CommandRun.annulus(["doctor"]))
        .map { String(decoding: $0.output, as: UTF8.self).contains("Open MPI") } ?? false
}
