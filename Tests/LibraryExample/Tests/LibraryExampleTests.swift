// The programs that docs/library.md shows: they are the ones compiled here, and they print what it says they print.

import Checkpoints
import Files
import Foundation
import Logging
import RingAttention
import Testing

import Pipelines

private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
private let root = folder.deletingLastPathComponent().deletingLastPathComponent()
private let page = try? String(contentsOf: root.appendingPathComponent("docs/library.md"), encoding: .utf8)

/// Where the executables of this build are: beside the test bundle.
private let products = {
    var place = Bundle.main.executableURL ?? URL(fileURLWithPath: CommandLine.arguments[0])
    #if os(macOS)
    let bundle = Bundle.allBundles.first { $0.bundlePath.hasSuffix(".xctest") }
    if let bundle { place = bundle.bundleURL }
    #endif
    return place.deletingLastPathComponent()
}()

/// What a command prints, and its status.
private func run(_ executable: String, _ arguments: [String]) throws -> (output: String, status: Int32) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let printed = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (String(decoding: printed, as: UTF8.self), process.terminationStatus)
}

private func example(_ name: String) -> String { products.appendingPathComponent(name).path }

@Suite struct LibraryExampleTests {
    @Test(arguments: ["Attention", "Embedding", "Gradients", "Similarity"])
    func thePageShowsTheProgram(name: String) throws {
        let page = try #require(page, "docs/library.md is there")
        let source = try String(contentsOf: folder.appendingPathComponent("\(name)/main.swift"), encoding: .utf8)
        #expect(
            page.contains("```swift\n\(source)```"),
            "docs/library.md must hold Tests/LibraryExample/\(name)/main.swift word for word, in a swift code block")
    }

    /// Row t averages 0 … t. The sums are integers below 2²⁴, so every step is exact in float32 and so is the print.
    @Test func attentionInOneProcess() throws {
        let (output, status) = try run(example("attention-example"), [])
        #expect(status == 0)
        let lines = output.split(separator: "\n").map(String.init)
        // Four tiles folded: rank 0 has the first, rank 1 the last and the second, rank 2 the third.
        #expect(
            lines == [
                "token 1 attends to 0.5, on rank 0", "token 500 attends to 250.0, on rank 1",
                "token 999 attends to 499.5, on rank 1",
            ])
        let page = try #require(page)
        for line in lines { #expect(page.contains("\n\(line)\n"), "docs/library.md must show the line: \(line)") }
    }

    /// Each of 512 keys has the weight 2⁻⁹; dS is ±2⁻¹⁰, and every sum exact.
    @Test func gradients() throws {
        let (output, status) = try run(example("gradients-example"), [])
        #expect(status == 0)
        #expect(output == "rank 0: dQ 0.125, dV 1.0\nrank 1: dQ 0.125, dV 1.0\n")
        let page = try #require(page)
        #expect(page.contains("```text\n\(output)```"))
    }

    @Test func attentionUnderMPI() throws {
        let launch = ". \"$0/scripts/lib\" && exec mpirun $(mpirun_flags) -np 2 \"$1\" --mpi"
        let (output, status) = try run("/usr/bin/env", ["bash", "-c", launch, root.path, example("attention-example")])
        #expect(status == 0)
        let values = Set(output.split(separator: "\n").map { $0.split(separator: ",")[0] })
        #expect(values == ["token 1 attends to 0.5", "token 500 attends to 250.0", "token 999 attends to 499.5"])
    }

    @Test func theReadMeShowsTheProgram() throws {
        let source = try String(contentsOf: folder.appendingPathComponent("Embedding/main.swift"), encoding: .utf8)
        let page = try String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8)
        #expect(page.contains("```swift\n\(source)```"))
    }

    /// The vectors that the command prints, alone and in a job.
    @Test func embedding() throws {
        let model = root.appendingPathComponent("Tests/TransformersTests/Goldens/tiny-bert-sentence").path
        let texts = "A ring has no end.\nA circle is round.\nTea is at four.\n"
        let command = try run(
            "/usr/bin/env",
            ["bash", "-c", "printf '%s' \"$0\" | \"$1\" embed -m \"$2\" --quiet", texts, example("annulus"), model])
        #expect(command.status == 0)
        let expected = try command.output.split(separator: "\n").map { line in
            try JSON.parse(Array(line.utf8), path: "line")["embedding"]?.array?.compactMap(\.double) ?? []
        }
        #expect(expected.count == 3 && expected.allSatisfy { !$0.isEmpty })
        func vectors(_ line: Substring) throws -> [[Double]] {
            try JSON.parse(Array(line.utf8), path: "line").array?.map { $0.array?.compactMap(\.double) ?? [] } ?? []
        }
        let alone = try run(example("embedding-example"), [model])
        #expect(alone.status == 0)
        #expect(try alone.output.split(separator: "\n").map(vectors) == [expected])
        let launch = ". \"$0/scripts/lib\" && exec mpirun $(mpirun_flags) -np 3 \"$1\" \"$2\""
        let problem = try run("/usr/bin/env", ["bash", "-c", launch, root.path, example("embedding-example"), model])
        #expect(problem.status == 0)
        #expect(try problem.output.split(separator: "\n").map(vectors) == [expected])
    }

    @Test func everyRankHasAllVectors() throws {
        let model = root.appendingPathComponent("Tests/TransformersTests/Goldens/tiny-bert-sentence").path
        // Texts of one tile each, so that most ranks hold none.
        let all = try VirtualRanks.run(count: 5) { transport in
            let group = RankGroup(transport, monitor: Unwatched(), isVirtual: true)
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let session = try Session(group, settings: Settings(), threads: 1, log: log) { _, _, _ in NoDisplay() }
            return try Embedder(session, model: model).embed(["one", "and two", ""])
        }
        #expect(all[0].count == 3 && all[0].allSatisfy { !$0.isEmpty })
        #expect(all.allSatisfy { $0 == all[0] })
    }

    /// A model that is not there is one line for the whole job, and no hang.
    @Test func embeddingWithoutAModel() throws {
        for launch in [
            "exec \"$1\" nowhere", ". \"$0/scripts/lib\" && exec mpirun $(mpirun_flags) -np 2 \"$1\" nowhere",
        ] {
            let (output, status) = try run(
                "/usr/bin/env", ["bash", "-c", launch + " 2>&1", root.path, example("embedding-example")])
            #expect(status != 0)
            #expect(output.contains("nowhere"), "\(output)")
        }
    }

    /// The cosines of the vectors that sentence-transformers gives (goldens of the encoder's tests).
    @Test func similarity() throws {
        let model = root.appendingPathComponent("Tests/TransformersTests/Goldens/tiny-bert-sentence").path
        let texts = try JSON.load(path: model + "/sentences.json").array?.compactMap(\.string) ?? []
        #expect(texts.count > 1)
        let golden = try TensorFile(path: model + "/sentences.safetensors").readFloat32("vectors")
        let width = golden.count / texts.count
        let (output, status) = try run(example("similarity-example"), [model] + texts)
        #expect(status == 0)
        let lines = output.split(separator: "\n")
        #expect(lines.count == texts.count)
        for (index, line) in lines.enumerated() {
            let parts = line.split(separator: " ", maxSplits: 1)
            let cosine = try #require(Float(parts[0]))
            let expected = (0..<width).reduce(Float(0)) { $0 + golden[$1] * golden[index * width + $1] }
            // Unit vectors, each value within 1e-5: the cosine is within 2·√width·1e-5.
            #expect(abs(cosine - expected) <= 2 * Float(width).squareRoot() * 1e-5, "\(line): expected \(expected)")
            #expect(parts[1].drop { $0 == " " } == texts[index])
        }
    }
}
