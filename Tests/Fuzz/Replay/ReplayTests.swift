// Every committed input of the fuzz targets, without libFuzzer: what once trapped, hung or was slow stays mended.

import Foundation
import FuzzTargets
import Testing

@Suite struct ReplayTests {
    private static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Corpus")

    /// Each ends in a value or an error: a trap ends the test process, and a hang meets the limit.
    @Test(.timeLimit(.minutes(2)), arguments: FuzzTarget.allCases) func everyInputEnds(_ target: FuzzTarget) throws {
        let folder = Self.corpus.appendingPathComponent(target.rawValue)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        #expect(names.count >= 4, "\(target) has hardly any inputs")
        for name in names { target.run(Array(try Data(contentsOf: folder.appendingPathComponent(name)))) }
    }

    /// A folder without a target would be fuzzed by nobody.
    @Test func everyFolderHasATarget() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpus.path).sorted()
        #expect(folders == FuzzTarget.allCases.map(\.rawValue).sorted())
    }

    @Test func textsMeetEveryTokenizer() { #expect(FuzzTarget.hasAllTokenizers) }
}
