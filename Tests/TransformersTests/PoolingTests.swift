// Pooled vectors: by definition in double precision, and the same bits on any number of ranks.

import Checkpoints
import Files
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

@Suite struct PoolingTests {
    @Test(arguments: PoolingMode.allCases) func poolingFollowsItsDefinition(mode: PoolingMode) throws {
        let encoder = try Encoder(Checkpoint(folder: golden("tiny-bert")), kernels: .best)
        let width = encoder.configuration.hiddenSize
        let vocabulary = Int32(encoder.configuration.vocabularySize)
        let lengths = [5, 700, 256]
        let ids = lengths.map { length in (0..<length).map { Int32($0 * 5 + length) % vocabulary } }
        let spans = [
            Span(sequence: 0, tokens: 0..<5), Span(sequence: 1, tokens: 0..<700), Span(sequence: 1, tokens: 250..<520),
            Span(sequence: 1, tokens: 300..<301), Span(sequence: 2, tokens: 0..<256),
        ]
        let states = try hiddenStates(encoder, ids)
        var first: [[Float]]?
        for ranks in [1, 2, 3, 5] {
            let sharding = Sharding(lengths: lengths, layout: .zigzag, rankCount: ranks)
            let parts = try VirtualRanks.run(count: ranks, seed: 3) { transport in
                let run = try EncoderRun(
                    encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1))
                try run.run(ids: ids)
                return try run.pool(spans, mode: mode, transport: transport)
            }
            let vectors = parts.joined().sorted { $0.span < $1.span }
            #expect(vectors.map(\.span) == Array(spans.indices))
            if let first {
                let same = zip(vectors, first).allSatisfy { $0.vector.map(\.bitPattern) == $1.map(\.bitPattern) }
                #expect(same, "\(ranks) ranks")
            }
            first = vectors.map(\.vector)
            for (span, vector) in zip(spans, vectors) {
                for column in 0..<width {
                    let values = span.tokens.map { Double(states[span.sequence][$0 * width + column]) }
                    let n = Double(values.count)
                    let magnitude = values.reduce(0) { $0 + abs($1) }
                    let exact: Double
                    var terms = n
                    switch mode {
                    case .cls: exact = values[0]
                    case .lastToken: exact = values[values.count - 1]
                    case .max: exact = values.max()!
                    case .mean: exact = values.reduce(0, +) / n
                    case .meanSquareRootLength: exact = values.reduce(0, +) / n.squareRoot(); terms = n.squareRoot()
                    case .weightedMean:
                        var sum = 0.0
                        for (index, value) in values.enumerated() { sum += Double(index + 1) * value }
                        terms = (n + 1) / 2
                        exact = sum / (n * terms)
                    }
                    // A sum of n terms, each product and the quotient rounded once: γ(n + 3) of the magnitudes.
                    let bound = (n + 3) * 0x1p-24 * magnitude / terms * 1.01
                    #expect(abs(Double(vector.vector[column]) - exact) <= bound, "\(mode), \(span), channel \(column)")
                }
            }
        }
    }

    @Test func sentenceVectorsEqualSentenceTransformers() throws {
        let folder = golden("tiny-bert-sentence")
        let model = try ModelFolder(path: folder)
        let head = try VectorHead(
            model, pooling: nil, hidden: 32, pools: true, storage: WeightStorage(), kernels: .best)
        #expect(head.poolings == [.mean] && head.normalizes && head.width == 32)
        let file = try TensorFile(path: folder + "/goldens.safetensors")
        let encoder = try Encoder(Checkpoint(folder: folder), kernels: .best)
        let ids = try file.readIntegers("17.input_ids").map { Int32($0) }
        let sharding = Sharding(lengths: [17], layout: .contiguous, rankCount: 1)
        let vectors = try VirtualRanks.run(count: 1, seed: 0) { transport in
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1))
            try run.run(ids: [ids])
            return try run.pool([Span(sequence: 0, tokens: 0..<17)], mode: .mean, transport: transport)
        }[0]
        let unit = normalized(vectors[0].vector)
        let length = unit.reduce(0.0) { $0 + Double($1) * Double($1) }
        #expect(abs(length - 1) < 1e-6)
        let states = try file.readFloat32("17.last_hidden_state")
        let mean: [Double] = (0..<32).map { column in
            var sum = 0.0
            for row in 0..<17 { sum += Double(states[row * 32 + column]) }
            return sum / 17
        }
        let norm = mean.reduce(0) { $0 + $1 * $1 }.squareRoot()
        #expect(zip(unit, mean).allSatisfy { abs(Double($0) - $1 / norm) < 1e-5 })
    }
}
