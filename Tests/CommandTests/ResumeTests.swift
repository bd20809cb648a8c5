// Jobs that are interrupted and go on: the bytes of an undisturbed run, and nothing mixed that does not belong together.

import Foundation
import Pipelines
import Testing

@Suite(.serialized) struct ResumeTests {
    private let folder: TemporaryFolder
    private let documents: String
    private let words = "the quick brown fox jumps over the lazy dog hello my dog is cute one tile of tokens at a time"
        .split(separator: " ")

    init() throws {
        folder = try TemporaryFolder()
        documents = folder.path("documents.txt")
        // Some batches of 16,384 tokens.
        let lines = (0..<500).map { number in
            (0..<40 + 7 * number % 300).map { String(words[(number * 5 + $0 * $0) % words.count]) }.joined(
                separator: " ")
        }
        try (lines.joined(separator: "\n") + "\n").write(toFile: documents, atomically: true, encoding: .utf8)
    }

    /// Runs `arguments` until the journal of `output` says that something is done, warns it then, and waits for it.
    private func interrupted(_ arguments: [String], _ output: String, _ spread: Spread = .alone) throws -> CommandRun {
        let own = try TemporaryFolder()
        let process = CommandRun.process(arguments + ["-o", output, "--resume"], spread, folder: own)
        try "".write(toFile: own.path("errors"), atomically: false, encoding: .utf8)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: own.path("errors")))
        try process.run()
        while process.isRunning {
            if let bytes = FileManager.default.contents(atPath: output + ".journal"),
                let journal = try? Journal(Array(bytes), path: output), !journal.isEmpty
            {
                kill(process.processIdentifier, SIGUSR1)
                break
            }
            Thread.sleep(forTimeInterval: 0.001)
        }
        process.waitUntilExit()
        return CommandRun(
            status: process.terminationStatus, output: Data(),
            errors: try String(contentsOfFile: own.path("errors"), encoding: .utf8))
    }

    private func bytes(_ name: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: folder.path(name))) }

    private var embed: [String] {
        ["embed", "-m", checkpoint("tiny-bert"), "-i", documents, "--input-format", "lines", "--max-length", "8192"]
    }

    @Test(arguments: [
        ("vectors.npy", []), ("spans.safetensors", ["--chunk-tokens", "64"]),
        ("passages.jsonl", ["--passage-tokens", "32"]),
    ]) func aJobGoesOnWhereItWasSaved(name: String, options: [String]) throws {
        let right = try CommandRun.annulus(embed + options + ["-o", folder.path(name), "--quiet"])
        #expect(right.status == 0, "\(right.errors)")
        let output = folder.path("again-" + name)
        let first = try interrupted(embed + options, output)
        #expect(first.status == 75, "\(first.errors)")
        #expect(first.errorLines.count == 1 && first.errorLines[0].contains("run the same command again to go on"))
        let second = try CommandRun.annulus(embed + options + ["-o", output, "--resume"], .mpirun(3))
        #expect(second.status == 0, "\(second.errors)")
        #expect(second.errors.contains("resuming: "), "\(second.errors)")
        #expect(try bytes("again-" + name) == bytes(name))
        #expect(folder.names == ["again-" + name, "documents.txt", name].sorted())
    }

    @Test func aLongDocumentGoesOnBetweenTwoLayers() throws {
        let long = folder.path("long.txt")
        try (0..<4500).map { String(words[$0 * $0 % words.count]) }.joined(separator: " ")
            .write(toFile: long, atomically: true, encoding: .utf8)
        let embed = ["embed", "-m", checkpoint("tiny-bert"), "-i", long, "--pooling", "none"]
        let right = try CommandRun.annulus(embed + ["-o", folder.path("right.npy"), "--quiet"])
        #expect(right.status == 0, "\(right.errors)")
        for (spread, other) in [(Spread.alone, Spread.mpirun(2)), (.virtual(4), .alone)] {
            let output = folder.path("again.npy")
            let first = try interrupted(embed + ["--save-seconds", "0"], output, spread)
            #expect(first.status == 75, "\(first.errors)")
            #expect(first.errors.contains("of 3 layers of the next done; run the same"), "\(first.errors)")
            let told = try CommandRun.annulus(["inspect", output + ".journal"])
            #expect(String(decoding: told.output, as: UTF8.self).contains("of 3 layers of the next\n"))
            let second = try CommandRun.annulus(embed + ["-o", output, "--resume"], other)
            #expect(second.status == 0 && second.errors.contains("resuming: "), "\(second.errors)")
            #expect(try bytes("again.npy") == bytes("right.npy"))
            try FileManager.default.removeItem(atPath: output)
        }
        #expect(folder.names == ["documents.txt", "long.txt", "right.npy"])
    }

    /// Documents are the steps of it; probes of a document belong to it.
    @Test(arguments: ["seen.safetensors", "seen.jsonl"]) func observingGoesOnBehindFinishedDocuments(name: String)
        throws
    {
        let observe = [
            "observe", "-m", checkpoint("tiny-bert"), "-i", documents, "--input-format", "lines", "--layers", "1",
            "--heads", "2", "--probe", "drop", "--probe-tokens", "3:5",
        ]
        let right = try CommandRun.annulus(observe + ["-o", folder.path(name), "--quiet"])
        #expect(right.status == 0, "\(right.errors)")
        let output = folder.path("again-" + name)
        let first = try interrupted(observe, output, name.hasSuffix("jsonl") ? .alone : .virtual(2))
        #expect(first.status == 75, "\(first.errors)")
        #expect(first.errorLines.count == 1 && first.errorLines[0].contains("run the same command again to go on"))
        let other = try CommandRun.annulus(observe + ["-o", output, "--resume", "--top-k", "2"])
        #expect(other.status == 65 && other.errors.contains("--top-k was not given and is '2'"), "\(other.errors)")
        let second = try CommandRun.annulus(observe + ["-o", output, "--resume"], .mpirun(3))
        #expect(second.status == 0, "\(second.errors)")
        #expect(second.errors.contains("resuming: "), "\(second.errors)")
        #expect(try bytes("again-" + name) == bytes(name))
        #expect(folder.names == ["again-" + name, "documents.txt", name].sorted())
    }

    @Test func anotherJobIsRefusedByNameUntilForced() throws {
        let output = folder.path("vectors.jsonl")
        let first = try interrupted(embed, output)
        #expect(first.status == 75, "\(first.errors)")
        let kept = folder.names
        func refused(_ arguments: [String], _ words: String, status: Int32 = 65) throws {
            let run = try CommandRun.annulus(arguments + ["-o", output, "--resume"])
            #expect(run.status == status, "\(run.errors)")
            #expect(run.errorLines.count == 1 && run.errorLines[0].contains(words), "\(run.errors)")
            #expect(folder.names == kept)
        }
        try refused(embed + ["--pooling", "cls"], "--pooling was not given and is 'cls'")
        try refused(embed + ["--wire", "bfloat16"], "--wire was not given and is 'bfloat16'")
        try refused(
            embed.map { $0 == checkpoint("tiny-bert") ? checkpoint("tiny-bert-sentence") : $0 }, "the model has changed"
        )
        let text = try String(contentsOfFile: documents, encoding: .utf8)
        try (text + "one more\n").write(toFile: documents, atomically: true, encoding: .utf8)
        try refused(embed, "the input has changed since")
        try text.write(toFile: documents, atomically: true, encoding: .utf8)
        // What changes no bit may be another.
        let anew = try CommandRun.annulus(
            embed + ["--pooling", "cls", "--force", "-o", output, "--resume", "--threads", "1", "--strategy", "pass-q"])
        #expect(anew.status == 0 && !anew.errors.contains("resuming"), "\(anew.errors)")
        let right = try CommandRun.annulus(embed + ["--pooling", "cls", "-o", folder.path("right.jsonl")])
        #expect(right.status == 0, "\(right.errors)")
        #expect(try bytes("vectors.jsonl") == bytes("right.jsonl"))
        #expect(folder.names == ["documents.txt", "right.jsonl", "vectors.jsonl"])
    }

    @Test func whatTheJournalStandsForMustBeThere() throws {
        let output = folder.path("vectors.npy")
        let first = try interrupted(embed, output)
        #expect(first.status == 75, "\(first.errors)")
        let partial = URL(fileURLWithPath: output + ".partial")
        let content = try Data(contentsOf: partial)
        func refused(_ words: String) throws {
            let run = try CommandRun.annulus(embed + ["-o", output, "--resume"], .mpirun(2))
            #expect(run.status == 65, "\(run.errors)")
            #expect(run.errorLines.count == 1 && run.errorLines[0].contains(words), "\(run.errors)")
        }
        var changed = content
        changed[200] ^= 1
        try changed.write(to: partial)
        try refused("is not as the journal beside it says")
        try FileManager.default.removeItem(at: partial)
        try refused("is gone, and the journal beside it needs it")
        try content.write(to: partial)
        let run = try CommandRun.annulus(embed + ["-o", output, "--resume", "--quiet"], .virtual(5))
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    }

    @Test func aJobThatIsAtWorkIsLeftAlone() throws {
        let output = folder.path("vectors.jsonl")
        let own = try TemporaryFolder()
        let first = CommandRun.process(embed + ["-o", output, "--resume", "--quiet"], .alone, folder: own)
        (first.standardInput, first.standardOutput) = (FileHandle.nullDevice, FileHandle.nullDevice)
        try first.run()
        while first.isRunning && !FileManager.default.fileExists(atPath: output + ".partial") {
            Thread.sleep(forTimeInterval: 0.001)
        }
        kill(first.processIdentifier, SIGSTOP)
        for more in [[], ["--force"]] {
            let second = try CommandRun.annulus(embed + ["-o", output, "--resume"] + more)
            #expect(second.status == 73, "\(second.errors)")
            #expect(
                second.errorLines.count == 1 && second.errors.contains("another job is at work on it"),
                "\(second.errors)")
        }
        kill(first.processIdentifier, SIGCONT)
        first.waitUntilExit()
        #expect(first.terminationStatus == 0)
        let right = try CommandRun.annulus(embed + ["-o", folder.path("right.jsonl"), "--quiet"])
        #expect(right.status == 0, "\(right.errors)")
        #expect(try bytes("vectors.jsonl") == bytes("right.jsonl"))
        #expect(folder.names == ["documents.txt", "right.jsonl", "vectors.jsonl"])
    }

    @Test func whatCannotGoOnIsRefusedAtOnce() throws {
        let model = ["-m", checkpoint("tiny-bert")]
        for (arguments, words) in [
            (["embed", "-i", documents], "name a file with --output"),
            (["classify", "-i", documents], "name a file with --output"),
            (["embed", "-o", folder.path("a.npy")], "standard input comes but once"),
            (["search", "dogs", "-i", documents], "search prints its hits and keeps nothing"),
        ] {
            let run = try CommandRun.annulus(arguments + model + ["--resume"])
            #expect(run.status == 64 && run.errors.contains(words), "\(run.errors)")
        }
        // Somebody else's file is not taken for this job's.
        try "mine".write(toFile: folder.path("a.npy.partial"), atomically: true, encoding: .utf8)
        let run = try CommandRun.annulus(embed + ["-o", folder.path("a.npy"), "--resume"])
        #expect(run.status == 73 && run.errors.contains("exists without a journal"), "\(run.errors)")
        #expect(folder.names == ["a.npy.partial", "documents.txt"])
    }

    @Test func aJournalIsOneTextAndNoOther() throws {
        var journal = Journal(facts: [.init("the verb", "embed"), .init("--pooling", "\"é\\")], mayReplace: true)
        (journal.documents, journal.passages, journal.total, journal.bytes) = (12, 3, 40, 1 << 40)
        journal.carried = [[1, 2, 3], [Int(Float(0.3).bitPattern), 0, 7]]
        journal.layers = Journal.Layers(done: 2, of: 12, items: 1, tokens: 32_768, place: 1, digest: .max)
        let bytes = Array(journal.text.utf8)
        #expect(try Journal(bytes, path: "j") == journal)
        for place in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[place] ^= 1 << bit
                #expect(throws: JobError.self) { try Journal(damaged, path: "j") }
            }
            #expect(throws: JobError.self) { try Journal(Array(bytes[..<place]), path: "j") }
            #expect(throws: JobError.self) { try Journal(bytes[..<place] + [32] + bytes[place...], path: "j") }
        }
    }
}
