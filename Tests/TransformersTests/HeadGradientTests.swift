// Gradients through task heads and pooling, against PyTorch's in float64 and the same bits however they are spread.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Synchronization
import Testing
import Tiles
import Transformers

/// The gradient of a row's cross entropy, computed in double precision: softmax minus one at the label.
private func crossEntropyGradient(_ logits: UnsafeMutablePointer<Float>, outputs: Int, label: Int) {
    let values = softmax(Array(UnsafeBufferPointer(start: logits, count: outputs)))
    for output in 0..<outputs { logits[output] = values[output] - (output == label ? 1 : 0) }
}

/// A model with the heads of three tasks, and its documents' labels.
private struct HeadCase: Sendable {
    let encoder: Encoder
    let heads: [TaskHead]
    let ids: [[Int32]]
    /// By task and document; −1: no label.
    let labels: [[[Int]]]

    init(_ name: String, ids: [[Int32]]? = nil) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let file = try TensorFile(path: golden(name) + "/gradients.safetensors")
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        encoder = try Encoder(configuration, parameters: checkpoint, trains: true, kernels: .best)
        let tasks = [Task.maskedLanguage, .tokenClassification, .sequenceClassification].filter { task in
            (try? ParameterTree(task, labels: 2, of: checkpoint, path: "config.json", configuration)) != nil
        }
        heads = try tasks.map { task in
            try TaskHead(
                task, labels: 2, config: checkpoint.config, path: "config.json", configuration: configuration,
                parameters: checkpoint, trains: true, kernels: .best)
        }
        if let ids {
            self.ids = ids
            labels = tasks.map { task in
                ids.map { document in
                    task == .sequenceClassification
                        ? [document.count % 2]
                        : document.indices.map { $0 * 5 % 7 < 3 ? ($0 + document.count) % 2 : -1 }
                }
            }
        } else {
            self.ids = try (0..<3).map { place in try file.readIntegers("\(place).input_ids").map { Int32($0) } }
            labels = try tasks.map { task in
                try (0..<3).map { place in try file.readIntegers("\(place).\(task.rawValue)").map { Int($0) } }
            }
        }
    }

    func gradients(_ spread: Spread = Spread()) throws -> [String: [Float]] {
        let (slots, parts) = try gradientParts(encoder, ids, spread, heads: heads.map(\.gradientSlots)) {
            run, first, step, transport, gradients in
            for (task, head) in heads.enumerated() {
                if head.task == .sequenceClassification {
                    let spans = run.sharding.numbering.lengths.enumerated().map {
                        Span(sequence: $0, tokens: 0..<$1)
                    }
                    let vectors = try run.pool(spans, mode: head.pooling, transport: transport)
                    let back = run.backward(head, vectors: vectors, of: spans, into: gradients[task], step: step) {
                        span, logits in
                        crossEntropyGradient(logits, outputs: head.outputs, label: labels[task][first + span][0])
                    }
                    try run.backward(throughPooling: spans, mode: head.pooling, gradients: back, transport: transport)
                } else {
                    func label(_ tile: LocalTile, _ row: Int) -> Int {
                        labels[task][first + tile.sequence][tile.tokens.lowerBound + row]
                    }
                    run.backward(
                        head, wanted: { tile in (0..<tile.tokens.count).filter { label(tile, $0) >= 0 } },
                        into: gradients[task], step: step
                    ) { tile, row, logits in
                        crossEntropyGradient(logits, outputs: head.outputs, label: label(tile, row))
                    }
                }
            }
        }
        return parameterGradients(slots, parts)
    }
}

private func someIds(_ length: Int, below limit: Int) -> [Int32] {
    (0..<length).map { place in Int32((place * 7 + length) % limit + 4) }
}

@Suite struct HeadGradientTests {
    static let names = [
        "heads-bert", "heads-roberta", "heads-distilbert", "heads-albert", "heads-electra", "heads-mpnet",
        "heads-modernbert", "heads-esm", "heads-nomic",
    ]

    @Test(arguments: names) func gradientsEqualPyTorch(name: String) throws {
        let file = try TensorFile(path: golden(name) + "/gradients.safetensors")
        let prefix = try Checkpoint(folder: golden(name)).prefix
        try expectGradients(try HeadCase(name).gradients(), file, prefix: prefix, name)
    }

    @Test(arguments: ["heads-bert", "heads-albert", "heads-modernbert"])
    func gradientsHaveTheSameBitsHoweverTheyAreSpread(name: String) throws {
        // More rows with a label than one thread goes over at a time.
        let ids = [40, 1, 70, 2, 65, 30, 68, 71, 50, 66].map { someIds($0, below: 60) }
        let batch = try HeadCase(name, ids: ids)
        for dropout in [
            nil,
            Dropout(
                probability: 0, attention: 0.1, head: 0.3, seed: 3, step: 9, documents: [8, 1, 4, 6, 0, 3, 2, 9, 5, 7]),
        ] {
            var spread = Spread()
            spread.dropout = dropout
            let alone = try batch.gradients(spread)
            for (ranks, layout, threads, parts) in [
                (1, Layout.contiguous, 2, [0..<3, 3..<10]), (2, .zigzag, 1, nil), (3, .contiguous, 2, [0..<5, 5..<10]),
                (5, .zigzag, 1, nil), (8, .contiguous, 1, nil),
            ] as [(Int, Layout, Int, [Range<Int>]?)] {
                (spread.ranks, spread.layout, spread.threads, spread.microBatches) = (ranks, layout, threads, parts)
                let found = try batch.gradients(spread)
                for (parameter, values) in alone {
                    #expect(
                        found[parameter]?.map(\.bitPattern) == values.map(\.bitPattern),
                        "\(name), \(parameter), \(ranks) ranks, \(layout)")
                }
            }
        }
    }

    /// Each state's gradient is what the vector changes by with it, by central differences of the pooled vectors, whose
    /// float32 roundings the step is chosen for.
    @Test(arguments: [PoolingMode.cls, .mean, .max, .meanSquareRootLength, .weightedMean, .lastToken])
    func poolingGoesBack(mode: PoolingMode) throws {
        let checkpoint = try Checkpoint(folder: golden("tiny-roberta"))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: checkpoint, trains: true, kernels: .best)
        let ids = [300, 1, 40].map { someIds($0, below: 40) }
        let spans = [
            Span(sequence: 0, tokens: 0..<300), Span(sequence: 0, tokens: 250..<280, skipped: 3),
            Span(sequence: 1, tokens: 0..<1), Span(sequence: 2, tokens: 7..<33),
        ]
        let width = configuration.hiddenSize
        let weights = spans.indices.map { splitmixFloats(seed: UInt64($0), count: width) }
        var first: [[Float]]?
        for ranks in [1, 2, 3] {
            let parts = try VirtualRanks.run(count: ranks, seed: 1) { transport in
                let sharding = Sharding(lengths: ids.map(\.count), layout: .contiguous, rankCount: ranks)
                let run = try EncoderRun(
                    encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1),
                    training: TrainingPass())
                try run.run(ids: ids)
                func pooled() throws -> [(span: Int, vector: [Float])] {
                    try run.pool(spans, mode: mode, transport: transport)
                }
                let vectors = try pooled()
                try run.backward(
                    throughPooling: spans, mode: mode,
                    gradients: vectors.map { ($0.span, weights[$0.span]) }, transport: transport)
                if ranks == 1 {
                    func loss() throws -> Double {
                        try pooled().reduce(0) { sum, entry in
                            zip(entry.vector, weights[entry.span]).reduce(sum) { $0 + Double($1.0) * Double($1.1) }
                        }
                    }
                    for row in stride(from: 0, to: 341, by: 13) {
                        let at = row * width + row % width
                        let value = run.hidden[at]
                        let step: Float = 0x1p-6
                        run.hidden[at] = value + step
                        let up = try loss()
                        run.hidden[at] = value - step
                        let down = try loss()
                        run.hidden[at] = value
                        let difference = (up - down) / Double(2 * step)
                        // A maximum has a corner where another token is as large.
                        if mode == .max, abs(difference) > 0, abs(difference - Double(weights[0][row % width])) > 1e-3 {
                            continue
                        }
                        #expect(abs(difference - Double(run.hiddenGradient[at])) < 2e-3, "row \(row) by \(mode)")
                    }
                }
                return withExtendedLifetime(run) {
                    run.tiles.map { tile in
                        (
                            tile.number,
                            Array(
                                UnsafeBufferPointer(
                                    start: run.hiddenGradient.pointer + tile.firstRow * width,
                                    count: tile.tokens.count * width))
                        )
                    }
                }
            }
            let tiles = parts.joined().sorted { $0.0 < $1.0 }.map(\.1)
            #expect(tiles.contains { $0.contains { $0 != 0 } })
            #expect(
                tiles.map { $0.map(\.bitPattern) } == (first ?? tiles).map { $0.map(\.bitPattern) }, "\(ranks) ranks")
            first = first ?? tiles
        }
    }

    @Test func normalizedVectorsGoBack() {
        let vector = splitmixFloats(seed: 3, count: 19), gradient = splitmixFloats(seed: 4, count: 19)
        let found = normalizedBackward(vector, gradient)
        func loss(_ place: Int, _ step: Double) -> Double {
            var moved = vector.map(Double.init)
            moved[place] += step
            let norm = moved.reduce(0) { $0 + $1 * $1 }.squareRoot()
            return zip(moved, gradient).reduce(0) { $0 + $1.0 / norm * Double($1.1) }
        }
        for place in vector.indices {
            let difference = (loss(place, 1e-6) - loss(place, -1e-6)) / 2e-6
            #expect(abs(Double(found[place]) - difference) < 1e-7)
        }
        #expect(normalizedBackward([0, 0], [1, 2]) == [1 / 1e-12, 2 / 1e-12])
    }
}
