// Gradients through the modules of sentence-transformers that stand behind pooling.

import Checkpoints
import Files
import Foundation
import Matrices
import Synchronization
import Testing
import Tiles
import Transformers

/// The parameters of a folder, those of a module by the name of its folder.
private struct FolderParameters: ParameterSource {
    let folder: ModelFolder
    let modules: [String: Checkpoint]

    init(_ path: String) throws {
        folder = try ModelFolder(named: path)
        var modules: [String: Checkpoint] = [:]
        for place in (folder.modules ?? []).compactMap(\.weights) {
            modules[SentenceModule.name(place)] = try Checkpoint(folder: place)
        }
        self.modules = modules
    }

    private func place(_ name: String) -> (checkpoint: Checkpoint, name: String) {
        let parts = name.split(separator: ".", maxSplits: 1).map(String.init)
        return parts.count == 2
            ? modules[parts[0]].map { ($0, parts[1]) } ?? (folder.checkpoint, name) : (folder.checkpoint, name)
    }

    func has(_ name: String) -> Bool { place(name).checkpoint.has(place(name).name) }
    func check(_ name: String, shape: [Int]) throws(FileError) {
        try place(name).checkpoint.check(place(name).name, shape: shape)
    }
    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try place(name).checkpoint.read(place(name).name, shape: shape, range: range, into: floats)
    }
}

@Suite struct VectorGradientTests {
    private static let ids: [[Int32]] = [[5, 9, 11, 7], (0..<30).map { Int32(4 + $0 * 7 % 20) }]

    /// Σ of vectors times numbers, and the gradients of all parameters.
    private func result(_ parameters: any ParameterSource, _ folder: ModelFolder, _ modules: [SentenceModule]) throws
        -> (
            loss: Double, gradients: [String: [Float]]
        )
    {
        let configuration = try EncoderConfiguration(folder.checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: parameters, trains: true, kernels: .best)
        let head = try TaskHead(
            vectorsOf: modules, pooling: .mean, hidden: configuration.hiddenSize, path: "modules.json",
            parameters: parameters, kernels: .best)
        let loss = Mutex(0.0)
        let (slots, parts) = try gradientParts(encoder, Self.ids, Spread(), heads: [head.gradientSlots]) {
            run, _, step, transport, gradients in
            let spans = Self.ids.indices.map { Span(sequence: $0, tokens: 0..<Self.ids[$0].count) }
            let vectors = try run.pool(spans, mode: .mean, transport: transport)
            let back = run.backward(head, vectors: vectors, of: spans, into: gradients[0], step: step) { span, vector in
                let weights = splitmixFloats(seed: UInt64(span), count: head.outputs)
                var sum = 0.0
                for place in 0..<head.outputs { sum += Double(vector[place]) * Double(weights[place]) }
                vector.update(from: weights, count: head.outputs)
                loss.withLock { $0 += sum }
            }
            try run.backward(throughPooling: spans, mode: .mean, gradients: back, transport: transport)
        }
        return (loss.withLock { $0 }, parameterGradients(slots, parts))
    }

    /// Through dense layers with each function that is trained, and through a layer norm.
    @Test func gradientsGoThroughTheModules() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("CommandTests/Goldens/folders/dense/model").path
        let parameters = try FolderParameters(path)
        let modules = try #require(parameters.folder.modules)
        let (_, gradients) = try result(parameters, parameters.folder, modules)
        try expectChanges(alongGradients: gradients, of: parameters, atLeast: 11, "dense") {
            try result($0, parameters.folder, modules).loss
        }
        #expect(
            ["2_Dense.linear.weight", "2_Dense.linear.bias"].allSatisfy { gradients[$0]?.contains { $0 != 0 } == true })
    }

    /// What the head gives is what the folder's vectors are, before they are divided by their norms.
    @Test func vectorsAreThoseOfTheFolder() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("CommandTests/Goldens/folders/dense/model").path
        let parameters = try FolderParameters(path)
        let hidden = try EncoderConfiguration(parameters.folder.checkpoint.config, path: "config.json").hiddenSize
        let head = try TaskHead(
            vectorsOf: try #require(parameters.folder.modules), pooling: .mean, hidden: hidden, path: "modules.json",
            parameters: parameters, kernels: .best)
        let vectors = try VectorHead(
            parameters.folder, pooling: nil, hidden: hidden, pools: true, storage: WeightStorage(), kernels: .best)
        let pooled = splitmixFloats(seed: 9, count: hidden)
        #expect(head.logits(rows: 1, pooled) == vectors.vector(pooled))
    }
}
