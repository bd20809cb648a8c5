// Dropout on the way forward and back: what is dropped, and that gradients are those of what is left.

import Checkpoints
import Files
import Matrices
import Plans
import RingAttention
import Synchronization
import Testing
import Tiles
import Transformers

/// Parameters of which one is moved.
struct ShiftedParameters: ParameterSource {
    let checkpoint: any ParameterSource
    let moved: String
    let movement: [Float]

    func has(_ name: String) -> Bool { checkpoint.has(name) }
    func check(_ name: String, shape: [Int]) throws(FileError) { try checkpoint.check(name, shape: shape) }

    func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
        throws(FileError)
    {
        try checkpoint.read(name, shape: shape, range: range, into: floats)
        if name == moved { for (place, index) in range.enumerated() { floats[place] += movement[index] } }
    }
}

@Suite struct DropoutGradientTests {
    private let dropout = Dropout(probability: 0.3, attention: 0.25, head: 0.4, seed: 11, step: 6, documents: [5, 2])
    private let ids: [[Int32]] = [(0..<40).map { Int32(4 + $0 * 7 % 20) }, [5, 9, 11]]

    /// The hidden states behind dropout, document by document.
    private func states(_ encoder: Encoder, _ dropout: Dropout?) throws -> [Float] {
        try VirtualRanks.run(count: 1, seed: 0) { transport in
            let sharding = Sharding(lengths: ids.map(\.count), layout: .contiguous, rankCount: 1)
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1),
                training: TrainingPass(dropout: dropout))
            try run.run(ids: ids)
            let count = ids.joined().count * encoder.configuration.hiddenSize
            return withExtendedLifetime(run) { (0..<count).map { run.hidden[$0] } }
        }[0]
    }

    private func loss(_ encoder: Encoder) throws -> Double {
        let states = try states(encoder, dropout)
        let width = encoder.configuration.hiddenSize
        var (sum, first) = (0.0, 0)
        for (document, ids) in ids.enumerated() {
            let weights = splitmixFloats(seed: UInt64(document), count: ids.count * width)
            for place in 0..<ids.count * width { sum += Double(states[first + place]) * Double(weights[place]) }
            first += ids.count * width
        }
        return sum
    }

    /// A parameter that moves along its gradient changes the loss by the gradient's norm, but for a hundredth that the
    /// curve and float32 take. A mask that is missing anywhere, or another one, is off by a third.
    @Test(arguments: ["tiny-roberta", "tiny-modernbert", "tiny-electra", "tiny-albert"])
    func gradientsAreThoseOfWhatIsLeft(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: checkpoint, trains: true, kernels: .best)
        var spread = Spread()
        spread.dropout = dropout
        var checked = 0
        for (parameter, gradient) in try gradients(encoder, ids, spread) {
            let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            // What is nearly 0 is roundings.
            guard norm > 1e-2 else { continue }
            let step = Float(2e-3 / norm)
            func moved(_ sign: Float) throws -> Double {
                let source = ShiftedParameters(
                    checkpoint: checkpoint, moved: parameter, movement: gradient.map { sign * step * $0 })
                return try loss(Encoder(configuration, parameters: source, trains: true, kernels: .best))
            }
            let change = try (moved(1) - moved(-1)) / 4e-3
            #expect(abs(change - norm) <= 1e-2 * norm + 1e-2, "\(name): \(parameter) by \(change), gradient \(norm)")
            checked += 1
        }
        #expect(checked > 15, "\(name)")
    }

    /// Σ of a head's logits times numbers, and the gradients of all parameters of encoder and head.
    private func result(_ parameters: any ParameterSource, _ task: Task, _ checkpoint: Checkpoint, _ dropout: Dropout?)
        throws -> (loss: Double, gradients: [String: [Float]])
    {
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: parameters, trains: true, kernels: .best)
        let head = try TaskHead(
            task, labels: 2, config: checkpoint.config, path: "config.json", configuration: configuration,
            parameters: parameters, trains: true, kernels: .best)
        var spread = Spread()
        spread.dropout = dropout
        let loss = Mutex(0.0)
        /// Exchanges a row's logits for their gradients.
        @Sendable func weigh(_ row: Int, _ logits: UnsafeMutablePointer<Float>) {
            let weights = splitmixFloats(seed: UInt64(row), count: head.outputs)
            var sum = 0.0
            for output in 0..<head.outputs { sum += Double(logits[output]) * Double(weights[output]) }
            logits.update(from: weights, count: head.outputs)
            loss.withLock { $0 += sum }
        }
        let (slots, parts) = try gradientParts(encoder, ids, spread, heads: [head.gradientSlots]) {
            run, _, step, transport, gradients in
            if task == .sequenceClassification {
                let spans = run.sharding.numbering.lengths.enumerated().map { Span(sequence: $0, tokens: 0..<$1) }
                let vectors = try run.pool(spans, mode: head.pooling, transport: transport)
                let back = run.backward(head, vectors: vectors, of: spans, into: gradients[0], step: step, loss: weigh)
                try run.backward(throughPooling: spans, mode: head.pooling, gradients: back, transport: transport)
            } else {
                run.backward(
                    head, wanted: { tile in (0..<tile.tokens.count).filter { $0 % 3 != 1 } }, into: gradients[0],
                    step: step
                ) { tile, row, logits in weigh(100 * tile.sequence + row, logits) }
            }
        }
        return (loss.withLock { $0 }, parameterGradients(slots, parts))
    }

    /// The same of heads; and only heads of labels drop anything of their own.
    @Test(arguments: [
        ("heads-roberta", Task.sequenceClassification), ("heads-electra", .sequenceClassification),
        ("heads-bert", .sequenceClassification), ("heads-distilbert", .sequenceClassification),
        ("heads-modernbert", .tokenClassification), ("heads-bert", .maskedLanguage),
    ])
    func gradientsOfHeadsAreThoseOfWhatIsLeft(name: String, task: Task) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let (whole, gradients) = try result(checkpoint, task, checkpoint, dropout)
        let ofBody = Dropout(probability: 0.3, attention: 0.25, seed: 11, step: 6, documents: [5, 2])
        #expect((try result(checkpoint, task, checkpoint, ofBody).loss == whole) == (task == .maskedLanguage))
        var checked = 0
        for (parameter, gradient) in gradients {
            let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            guard norm > 1e-2 else { continue }
            let step = Float(2e-3 / norm)
            func moved(_ sign: Float) throws -> Double {
                let source = ShiftedParameters(
                    checkpoint: checkpoint, moved: parameter, movement: gradient.map { sign * step * $0 })
                return try result(source, task, checkpoint, dropout).loss
            }
            let change = try (moved(1) - moved(-1)) / 4e-3
            #expect(
                abs(change - norm) <= 1e-2 * norm + 1e-2,
                "\(name), \(task): \(parameter) by \(change), gradient \(norm)"
            )
            checked += 1
        }
        #expect(checked > 10, "\(name)")
    }

    /// Without probability nothing is dropped, and every bit is as without dropout.
    @Test(arguments: ["tiny-roberta", "tiny-modernbert"]) func noProbabilityIsNoDropout(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let encoder = try Encoder(
            EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
            kernels: .best)
        let none = Dropout(probability: 0, seed: 1, step: 1, documents: [0, 1])
        let plain = try states(encoder, nil)
        #expect(try states(encoder, none).map(\.bitPattern) == plain.map(\.bitPattern))
        #expect(try states(encoder, dropout) != plain)
        // The corpus' numbers decide, not the batch's.
        let other = Dropout(probability: 0.3, attention: 0.25, seed: 11, step: 6, documents: [5, 3])
        let (first, second) = (try states(encoder, dropout), try states(encoder, other))
        let firstDocument = 40 * encoder.configuration.hiddenSize
        #expect(
            first[..<firstDocument] == second[..<firstDocument] && first[firstDocument...] != second[firstDocument...])
    }
}
