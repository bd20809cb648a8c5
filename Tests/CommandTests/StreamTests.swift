// Standard input that stays open: what has come is answered, with the bytes that it has as a file.

import Foundation
import Testing

@Suite(.serialized) struct StreamTests {
    private let folder = checkpoint("tasks-bert")

    /// A run whose input is a pipe that the test holds.
    private final class OpenRun {
        private let folder: TemporaryFolder
        private let process: Process
        private let pipe = Pipe()

        init(_ arguments: [String], _ spread: Spread) throws {
            folder = try TemporaryFolder()
            process = CommandRun.process(arguments, spread, folder: folder)
            for name in ["output", "errors"] {
                try "".write(toFile: folder.path(name), atomically: false, encoding: .utf8)
            }
            process.standardInput = pipe
            process.standardOutput = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("output")))
            process.standardError = try FileHandle(forUpdating: URL(fileURLWithPath: folder.path("errors")))
            try process.run()
            try pipe.fileHandleForReading.close()
        }

        deinit { if process.isRunning { process.terminate() } }

        func write(_ text: String) throws { try pipe.fileHandleForWriting.write(contentsOf: Data(text.utf8)) }

        func close() throws -> Int32 {
            try pipe.fileHandleForWriting.close()
            process.waitUntilExit()
            return process.terminationStatus
        }

        func content(_ name: String) throws -> String { try String(contentsOfFile: folder.path(name), encoding: .utf8) }

        /// Waits until the output has so many lines; gives up after a minute.
        func lines(_ count: Int) throws -> [Substring] {
            for _ in 0..<1200 {
                let lines = try content("output").split(separator: "\n")
                if lines.count >= count { return lines }
                Thread.sleep(forTimeInterval: 0.05)
            }
            Issue.record("\(count) lines did not come: \(try content("errors"))")
            return []
        }
    }

    @Test(arguments: [
        ["classify"], ["ner"], ["fill-mask"], ["answer", "What is cute?"], ["embed"], ["embed", "--pooling", "none"],
        ["embed", "--chunk-tokens", "3"],
        ["tokenize"],
    ]) func whatHasComeIsAnsweredWhileTheInputStaysOpen(arguments: [String]) throws {
        let texts = [
            "Hello, my [MASK] is cute\n", "The quick [MASK] fox\n", "a [MASK]\n", "One tile of [MASK] at a time\n",
        ]
        let all = arguments + ["-m", folder, "--quiet"]
        let whole = try CommandRun.annulus(all, input: texts.joined())
        #expect(whole.status == 0, "\(whole.errors)")
        let expected = String(decoding: whole.output, as: UTF8.self)
        let total = expected.split(separator: "\n").count
        for spread in [Spread.alone, .virtual(3), .mpirun(2)] {
            let run = try OpenRun(all, spread)
            try run.write(texts[0])
            let first = try run.lines(1)
            #expect(!first.isEmpty && expected.hasPrefix(first[0] + "\n"), "\(spread)")
            // A line in two pieces counts when it is whole.
            try run.write(texts[1] + texts[2].prefix(2))
            _ = try run.lines(arguments.contains("--chunk-tokens") ? 3 : 2)
            #expect(try expected.hasPrefix(run.content("output")) && run.content("output") != expected)
            try run.write(texts[2].dropFirst(2) + texts[3])
            #expect(try run.lines(total).count == total)
            #expect(try run.close() == 0)
            #expect(try run.content("errors") == "")
            #expect(try run.content("output") == expected, "\(spread)")
        }
    }

    /// Many short documents and a long one between them: the first lines are there long before the last.
    @Test func resultsOfAFileComeInOrderAsTheyFinish() throws {
        let short = (0..<3000).map { "[2, \(5 + $0 % 90), \(5 + $0 % 7), 3]\n" }
        let long = "[" + (0..<60).map { "\(5 + $0)" }.joined(separator: ", ") + "]\n"
        let input = short[..<1500].joined() + long + short[1500...].joined()
        let alone = try CommandRun.annulus(
            ["classify", "-m", folder, "--input-format", "ids", "--quiet"], input: input)
        #expect(String(decoding: alone.output, as: UTF8.self).split(separator: "\n").count == 3001, "\(alone.errors)")
        for spread in [Spread.virtual(2), .mpirun(3)] {
            let spreadOut = try CommandRun.annulus(
                ["classify", "-m", folder, "--input-format", "ids", "--quiet"], spread, input: input)
            #expect(spreadOut.output == alone.output, "\(spread): \(spreadOut.errors)")
        }
    }

    @Test func aFaultBehindGoodDocumentsEndsTheJobWithItsLine() throws {
        for spread in [Spread.alone, .mpirun(2)] {
            let run = try OpenRun(["classify", "-m", folder, "--quiet", "--input-format", "jsonl"], spread)
            try run.write("{\"text\": \"Hello\"}\n")
            #expect(try run.lines(1).count == 1)
            try run.write("{\"txt\": \"Hello\"}\n")
            #expect(try run.close() == 65)
            #expect(try run.content("errors").contains("annulus: standard input:2: has no text"))
        }
    }

    @Test func labelsAreCountedAcrossPortions() throws {
        let labels = try TemporaryFolder()
        for (lines, part) in [("1\n", "has 1 lines, and there are more"), ("1\n0\n1\n", "has 3 lines for 2 documents")]
        {
            try lines.write(toFile: labels.path("labels"), atomically: false, encoding: .utf8)
            let run = try OpenRun(
                ["classify", "-m", folder, "--quiet", "--labels", labels.path("labels")], .virtual(2))
            try run.write("Hello\n")
            #expect(try run.lines(1).count == 1)
            try run.write("Hello\n")
            #expect(try run.close() == 65)
            let errors = try run.content("errors")
            #expect(errors.contains(part), "\(errors)")
        }
    }
}
