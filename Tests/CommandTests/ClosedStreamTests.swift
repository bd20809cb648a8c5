// Standard streams that are closed when the command starts: who needs one says so, before any work; nobody else
// notices.

import Foundation
import Testing

@Suite struct ClosedStreamTests {
    private let model = checkpoint("tiny-bert")

    /// A run with some of the descriptors 0, 1 and 2 closed.
    private struct ClosedRun {
        let status: Int32
        let output: String
        let errors: String

        /// - Parameter prefix: what the command is started by.
        init(_ arguments: [String], closed: [Int], input: String = "A text of the input.\n", by prefix: [String] = [])
            throws
        {
            let folder = try TemporaryFolder()
            let process = CommandRun.process(arguments, .alone, folder: folder)
            let redirections = closed.map { $0 == 0 ? "<&-" : "\($0)>&-" }.joined(separator: " ")
            process.arguments = prefix + ["sh", "-c", "exec \"$@\" " + redirections, "sh"] + (process.arguments ?? [])
            for (name, text) in [("input", input), ("output", ""), ("errors", "")] {
                try text.write(toFile: folder.path(name), atomically: false, encoding: .utf8)
            }
            process.standardInput = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("input")))
            process.standardOutput = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("output")))
            process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("errors")))
            try process.run()
            process.waitUntilExit()
            status = process.terminationStatus
            output = try String(contentsOfFile: folder.path("output"), encoding: .utf8)
            errors = try String(contentsOfFile: folder.path("errors"), encoding: .utf8)
        }

        var errorLines: [Substring] { errors.split(separator: "\n").filter { $0.hasPrefix("annulus:") } }
    }

    /// Every set of closed descriptors, with and without files in the place of the streams.
    @Test(arguments: [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]) func onlyWhoNeedsAStreamMissesIt(closed: [Int])
        throws
    {
        let folder = try TemporaryFolder()
        let (text, lines) = (folder.path("text.txt"), folder.path("lines.jsonl"))
        try "A text in a file.".write(toFile: text, atomically: false, encoding: .utf8)
        let embed = ["embed", "-m", model, "--quiet", "--threads", "1"]
        let expected = try ClosedRun(embed + ["-i", text], closed: [])
        #expect(expected.status == 0 && expected.output.hasPrefix("{\"embedding\""), "\(expected.errors)")
        for (hasInput, hasOutput) in [(false, false), (false, true), (true, false), (true, true)] {
            let run = try ClosedRun(
                embed + (hasInput ? ["-i", text] : []) + (hasOutput ? ["-o", lines, "--force"] : []), closed: closed)
            let missing: (status: Int32, name: String)? =
                !hasInput && closed.contains(0)
                ? (66, "standard input")
                : !hasOutput && closed.contains(1) ? (74, "standard output") : nil
            let what = "closed \(closed), input \(hasInput), output \(hasOutput): status \(run.status), \(run.errors)"
            #expect(run.status == missing?.status ?? 0, "\(what)")
            if let missing {
                #expect(
                    closed.contains(2)
                        ? run.errors.isEmpty : run.errorLines.count == 1 && run.errors.contains(missing.name), "\(what)"
                )
                #expect(run.output.isEmpty, "\(what)")
            } else {
                #expect(run.errors.isEmpty, "\(what)")
                let found = hasOutput ? try String(contentsOfFile: lines, encoding: .utf8) : run.output
                #expect(hasInput ? found == expected.output : found.hasPrefix("{\"embedding\""), "\(what)")
            }
            try? FileManager.default.removeItem(atPath: lines)
            #expect(folder.names == ["text.txt"], "\(what)")
        }
    }

    /// Before it is begun: none of these would end within a test's time.
    @Test(arguments: [
        ["bench", "attention", "--length", "4000000"], ["bench", "gemm", "--repetitions", "1000000"],
        ["bench", "peak", "--repetitions", "1000000"],
    ]) func aLongJobThatCouldNotPrintIsNotBegun(arguments: [String]) throws {
        for prefix in [[], ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"]] {
            let run = try ClosedRun(arguments, closed: [1], by: prefix)
            #expect(
                run.status == 74 && run.errorLines.count == 1 && run.errors.contains("standard output is closed"),
                "\(run.status): \(run.errors)")
        }
    }

    @Test func theCommandLinesFaultsAndHelpNeedTheirStreamsToo() throws {
        let unknown = try ClosedRun(["embed", "--poling", "mean"], closed: [0, 1])
        #expect(unknown.status == 64 && unknown.errorLines.count == 1, "\(unknown.errors)")
        #expect(try ClosedRun(["embed", "--poling", "mean"], closed: [2]).status == 64)
        #expect(try ClosedRun(["--help"], closed: [0, 2]).output.contains("USAGE"))
        let help = try ClosedRun(["--help"], closed: [1])
        #expect(help.status == 74 && help.errorLines.count == 1, "\(help.status): \(help.errors)")
        let plan = ["plan", "--cluster", "/nowhere.json", "--length", "1000"]
        #expect(try ClosedRun(plan, closed: [1]).status == 74)
        #expect(try ClosedRun(plan, closed: [0]).status == 66)
    }

    #if os(Linux)
    /// A full disk, where nothing is closed.
    @Test func whatCannotBeWrittenEndsInItsStatus() throws {
        for (redirection, arguments, status) in [
            ("2>/dev/full", ["embed", "--poling", "mean"], 64), (">/dev/full", ["--help"], 74),
            (">/dev/full", ["embed", "-m", model, "--quiet"], 74), (">/dev/full", ["inspect", "-m", model], 74),
        ] as [(String, [String], Int32)] {
            let run = try ClosedRun(arguments, closed: [], by: ["sh", "-c", "exec \"$@\" " + redirection, "sh"])
            #expect(run.status == status, "\(arguments): \(run.status): \(run.errors)")
            if status == 74 {
                #expect(run.errorLines.count == 1 && run.errors.contains("disk is full"), "\(run.errors)")
            }
        }
    }
    #endif
}
