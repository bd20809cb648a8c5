// Tokenizers of every kind, trained by `scripts/goldens/make.py`, give what the Python package gives.

import Files
import Foundation
import Testing
import Tokenization

@Suite struct KindTests {
    static let sample = Goldens.folder + "/kinds"
    /// Vocabularies and settings as the folders of models have them.
    static let folders = Goldens.folder + "/folders"
    /// A folder that `scripts/goldens/make.py tokenizer-corpus` made.
    static let corpus = ProcessInfo.processInfo.environment["ANNULUS_TOKENIZER_CORPUS"]

    private static func kinds(_ folder: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { FileBytes.exists(folder + "/" + $0 + "/goldens.json") }.sorted()
    }

    @Test(arguments: kinds(sample))
    func sampleLinesEncodeAsTheReferenceDoes(_ kind: String) throws {
        let lines = try Goldens.strings("texts.json") + Goldens.strings("fuzz.json").prefix(600)
        #expect(try Self.mismatches(Self.sample + "/" + kind, lines).isEmpty)
    }

    @Test(arguments: kinds(folders))
    func sampleLinesEncodeAsTransformersDoesFromTheSameFolder(_ name: String) throws {
        let lines = try Goldens.strings("texts.json") + Goldens.strings("fuzz.json").prefix(600)
        #expect(try Self.mismatches(Self.folders + "/" + name, lines).prefix(3) == [])
    }

    @Test func everyKindIsThere() {
        #expect(Self.kinds(Self.sample).count == 27 && Self.kinds(Self.folders).count == 21)
    }

    @Test(
        .enabled(if: corpus != nil, "ANNULUS_TOKENIZER_CORPUS names no folder"),
        arguments: kinds(corpus ?? "") + kinds((corpus ?? "") + "/folders").map { "folders/" + $0 })
    func corpusLinesEncodeAsTheReferenceDoes(_ kind: String) throws {
        let folder = Self.corpus ?? ""
        let lines = try JSON.load(path: folder + "/lines.json").array?.compactMap(\.string) ?? []
        #expect(lines.count >= 20_000)
        let start = ContinuousClock.now
        let mismatches = try Self.mismatches(folder + "/" + kind, lines)
        print("\(kind): \(lines.count) lines, \(mismatches.count) differ, \(ContinuousClock.now - start)")
        #expect(mismatches.isEmpty)
    }

    /// What encodes otherwise than the goldens say: at most a few, described.
    private static func mismatches(_ folder: String, _ lines: [String]) throws -> [String] {
        let tokenizer = try Tokenizer.load(folder: folder)
        let goldens = try JSON.load(path: folder + "/goldens.json")
        let single = Goldens.digests(goldens["lines"]?.string ?? "")
        let pairs = Goldens.digests(goldens["pairs"]?.string ?? "")
        guard single.count == lines.count, pairs.count == (lines.count + 8) / 10 else {
            return ["the goldens are of other lines"]
        }
        var mismatches: [String] = []
        for (line, expected) in zip(lines, single) {
            let encoding = tokenizer.encode(line)
            if Goldens.digest(of: encoding) != expected {
                mismatches.append(
                    "\(line.debugDescription): ids \(encoding.ids) offsets \(encoding.offsets) words \(encoding.words)")
            }
        }
        for (number, expected) in pairs.enumerated() {
            let (first, second) = (lines[10 * number], lines[10 * number + 1])
            if Goldens.digest(of: tokenizer.encode(first, pair: second)) != expected {
                mismatches.append("the pair \(first.debugDescription), \(second.debugDescription)")
            }
        }
        return mismatches
    }
}
