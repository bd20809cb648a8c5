// Proteins: FASTA, and the tokenizer that ESM has as a list of tokens.

import Checkpoints
import Files
import Foundation
import Testing

@Suite struct ProteinTests {
    private let folder = checkpoint("tasks-esm")

    private func golden() throws -> JSON { try JSON.load(path: folder + "/pipelines.json") }

    private func texts(_ key: String) throws -> [String] { try #require(golden()[key]?.array).compactMap(\.string) }

    private func lines(_ run: CommandRun) throws -> [JSON] {
        #expect(run.status == 0, "\(run.errors)")
        return try String(decoding: run.output, as: UTF8.self).split(separator: "\n").map {
            try JSON.parse(Array($0.utf8), path: "output")
        }
    }

    @Test func idsAreThoseOfTheSlowTokenizer() throws {
        let texts = try texts("lines")
        let found = try lines(
            CommandRun.annulus(
                ["tokenize", "-m", folder, "--input-format", "jsonl"],
                input: texts.map { "{\"text\": \(JSON.quoted($0))}\n" }.joined()))
        let expected = try #require(golden()["ids"]?.array)
        #expect(found.count == texts.count && expected.count == texts.count)
        for (place, text) in texts.enumerated() {
            #expect(found[place]["ids"] == expected[place], "\(text.debugDescription)")
        }
        // What is unknown has a place too.
        let place = try #require(texts.firstIndex(of: "MjjK"))
        #expect(
            found[place]["offsets"]
                == .array([[0, 0], [0, 1], [1, 3], [3, 4], [0, 0]].map { .array($0.map { .integer($0) }) }))
    }

    /// A file with all that tools put into one, and the sequences that it holds.
    private func fasta(_ sequences: [String]) -> String {
        "; a comment\n\n"
            + sequences.enumerated().map { number, sequence in
                let (head, tail) = (sequence.prefix(2), sequence.dropFirst(2))
                return ">p\(number) a protein, number \(number)\r\n\(head.lowercased())\r\n\n;comment\n \(tail) *\n"
            }.joined()
    }

    @Test func taskVerbsReadFASTA() throws {
        let input = try TemporaryFolder()
        let path = input.path("proteins.faa")
        let proteins = try texts("proteins")
        try fasta(proteins).write(toFile: path, atomically: false, encoding: .utf8)
        let asLines = proteins.joined(separator: "\n") + "\n"
        for arguments in [["tokenize"], ["embed"], ["classify"], ["ner"]] {
            let plain = try CommandRun.annulus(arguments + ["-m", folder, "--quiet"], input: asLines)
            for spread in [Spread.alone, .virtual(3), .mpirun(2)] {
                let run = try CommandRun.annulus(arguments + ["-m", folder, "-i", path, "--quiet"], spread)
                #expect(run.status == 0 && run.output == plain.output, "\(arguments), \(spread): \(run.errors)")
            }
            guard let expected = try golden()[arguments[0]]?.array else { continue }
            for (a, b) in zip(try lines(plain), expected) { #expect(same(a, b), "\(a) instead of \(b)") }
        }
    }

    @Test func fillMaskReadsFASTA() throws {
        let masked = try texts("masked")
        let input = masked.enumerated().map { ">\($0)\n\($1)\n" }.joined()
        let found = try lines(
            CommandRun.annulus(
                ["fill-mask", "-m", folder, "--input-format", "fasta", "--quiet"], .virtual(2), input: input))
        let expected = try #require(golden()["fill-mask"]?.array)
        #expect(found.count == expected.count)
        for (a, b) in zip(found, expected) { #expect(same(a, b), "\(a) instead of \(b)") }
    }

    @Test(arguments: [
        ("MKT\n>a\nMKT\n", "standard input:1", "before the first header"),
        (">a\nMKT\n>b\n>c\nMKT\n", "standard input:3 b", "no sequence"),
        (">a\n*\n", "standard input:1 a", "no sequence"),
        (">a\nMKT\n1 MKT\n", "standard input:3", "'1'"),
        (">a\nMKé\n", "standard input:2", "the byte 195"),
        (">a\nMK<mask\n", "standard input:2", "'<'"),
        ("; nothing\n", "standard input", "no record"),
        (
            ">\(String(repeating: "x", count: 9)) long\n\(String(repeating: "M", count: 71))\n",
            "standard input:1 xxxxxxxxx", "the limit is 72"
        ),
    ]) func malformedRecordsAreRefusedByLine(input: String, place: String, reason: String) throws {
        let run = try CommandRun.annulus(["embed", "-m", folder, "--input-format", "fasta"], .virtual(2), input: input)
        #expect(run.status == 65 && run.errorLines.count == 1, "\(run.errors)")
        #expect(
            run.errorLines.first?.hasPrefix("annulus: \(place)") == true && run.errors.contains(reason), "\(run.errors)"
        )
    }

    @Test func aListThatIsNoneOfESMIsRefused() throws {
        let folder = try TemporaryFolder()
        for name in ["config.json", "model.safetensors"] {
            try FileManager.default.copyItem(atPath: self.folder + "/" + name, toPath: folder.path(name))
        }
        try "M\nK\n<cls>\n<eos>\n<pad>\n<unk>\n".write(
            toFile: folder.path("vocab.txt"), atomically: false, encoding: .utf8)
        let run = try CommandRun.annulus(["embed", "-m", folder.url.path], input: "MK\n")
        #expect(run.status == 65 && run.errors.contains("vocab.txt: has no line '<mask>'"), "\(run.errors)")
    }
}
