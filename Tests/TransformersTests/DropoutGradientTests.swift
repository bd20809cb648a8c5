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

@Suite struct DropoutGradientTests {
    private let dropout = Dropout(probability: 0.3, attention: 0.25, head: 0.4, seed: 11, step: 6, documents: [5, 2])
    private let ids: [[Int32]] = [(0..<40).map { Int32(4 + $0 * 7 % 20) }, [5, 9, 11]]

    /// The hidden states behind dropout, document by document.
    private func states(_ encoder: Encoder, _ dropout: Dropout?, of ids: [[Int32]]? = nil) throws -> [Float] {
        let ids = ids ?? self.ids
        return try VirtualRanks.run(count: 1, seed: 0) { transport in
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

    /// A mask that is missing anywhere, or another one, is off by a third.
    @Test(arguments: [
        "tiny-roberta", "tiny-modernbert", "tiny-electra", "tiny-albert", "tiny-distilbert", "tiny-esm",
        "tiny-jina-bert",
    ])
    func gradientsAreThoseOfWhatIsLeft(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: checkpoint, trains: true, kernels: .best)
        var spread = Spread()
        spread.dropout = dropout
        try expectChanges(
            alongGradients: try gradients(encoder, ids, spread), of: checkpoint, atLeast: 16, name
        ) { try loss(Encoder(configuration, parameters: $0, trains: true, kernels: .best)) }
    }

    /// Goes through a model with a head and back.
    /// - Parameters:
    ///   - wanted: which tokens of a document the head goes over, unless it is one of whole documents.
    ///   - loss: given a document and, of one of its tokens, the place, exchanges the logits for their gradients.
    /// - Returns: the gradients of all parameters of encoder and head.
    private func headGradients(
        _ parameters: any ParameterSource, _ task: Task, _ checkpoint: Checkpoint, _ dropout: Dropout?,
        of ids: [[Int32]],
        wanted: @escaping @Sendable (Int) -> Bool,
        loss: @escaping @Sendable (_ document: Int, _ row: Int, UnsafeMutableBufferPointer<Float>) -> Void
    ) throws -> [String: [Float]] {
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let encoder = try Encoder(configuration, parameters: parameters, trains: true, kernels: .best)
        let head = try TaskHead(
            task, labels: 2, config: checkpoint.config, path: "config.json", configuration: configuration,
            parameters: parameters, trains: true, kernels: .best)
        var spread = Spread()
        spread.dropout = dropout
        let (slots, parts) = try gradientParts(encoder, ids, spread, heads: [head.gradientSlots]) {
            run, _, step, transport, gradients in
            if task == .sequenceClassification {
                let spans = run.sharding.numbering.lengths.enumerated().map { Span(sequence: $0, tokens: 0..<$1) }
                let vectors = try run.pool(spans, mode: head.pooling, transport: transport)
                let back = run.backward(head, vectors: vectors, of: spans, into: gradients[0], step: step) {
                    loss($0, 0, UnsafeMutableBufferPointer(start: $1, count: head.outputs))
                }
                try run.backward(throughPooling: spans, mode: head.pooling, gradients: back, transport: transport)
            } else {
                run.backward(
                    head, wanted: { tile in (0..<tile.tokens.count).filter(wanted) }, into: gradients[0], step: step
                ) { loss($0.sequence, $1, UnsafeMutableBufferPointer(start: $2, count: head.outputs)) }
            }
        }
        return parameterGradients(slots, parts)
    }

    /// Σ of a head's logits times numbers, and the gradients of all parameters of encoder and head.
    private func result(_ parameters: any ParameterSource, _ task: Task, _ checkpoint: Checkpoint, _ dropout: Dropout?)
        throws -> (loss: Double, gradients: [String: [Float]])
    {
        let loss = Mutex(0.0)
        let found = try headGradients(parameters, task, checkpoint, dropout, of: ids, wanted: { $0 % 3 != 1 }) {
            document, row, logits in
            let weights = splitmixFloats(seed: UInt64(100 * document + row), count: logits.count)
            let sum = zip(logits, weights).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
            _ = logits.update(fromContentsOf: weights)
            loss.withLock { $0 += sum }
        }
        return (loss.withLock { $0 }, found)
    }

    /// Holds values with dropout against those that transformers gives in float64 where the twin of the counter drops: at most
    /// twice as far off as its own float32, or by 1e-5 of the largest value, since some are few. Without dropout, or with it
    /// in another place, they are off by about as much as they are large.
    private func expectTransformers(_ found: [[Float]], _ file: TensorFile, _ key: String, _ name: String) throws {
        func number(_ what: String) throws -> Float {
            let text = try #require(file.metadata["\(key).\(what)"])
            return try #require(Float(text))
        }
        let allowed = max(2 * (try number("float32_error")), 1e-5 * (try number("scale")))
        #expect(try number("dropped") > 1e3 * allowed)
        for (document, values) in found.enumerated() {
            let exact = try file.readFloat32("\(document).\(key)")
            #expect(values.count == exact.count)
            let error = zip(values, exact).reduce(0) { max($0, abs($1.0 - $1.1)) }
            #expect(error <= allowed, "\(name), document \(document): \(key) is off by \(error)")
        }
    }

    private func documents(_ file: TensorFile) throws -> [[Int32]] {
        try ids.indices.map { place in try file.readIntegers("\(place).input_ids").map { Int32($0) } }
    }

    /// Families drop in places of their own.
    @Test(arguments: FamilyTests.names.filter { !$0.contains("deberta") && !$0.contains("jina") })
    func statesAreThoseOfTransformers(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let file = try TensorFile(path: golden(name) + "/dropout.safetensors")
        let encoder = try Encoder(
            EncoderConfiguration(checkpoint.config, path: "config.json"), parameters: checkpoint, trains: true,
            kernels: .best)
        let ids = try documents(file)
        let all = try states(encoder, dropout, of: ids)
        let first = ids[0].count * encoder.configuration.hiddenSize
        try expectTransformers([Array(all[..<first]), Array(all[first...])], file, "last_hidden_state", name)
    }

    @Test(arguments: [
        "heads-bert", "heads-roberta", "heads-distilbert", "heads-albert", "heads-electra", "heads-mpnet",
        "heads-modernbert", "heads-esm", "heads-nomic",
    ]) func logitsAreThoseOfTransformers(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let file = try TensorFile(path: golden(name) + "/dropout.safetensors")
        let ids = try documents(file)
        for task in [Task.sequenceClassification, .tokenClassification] {
            let found = Mutex([[Int: [Float]]](repeating: [:], count: ids.count))
            _ = try headGradients(checkpoint, task, checkpoint, dropout, of: ids, wanted: { _ in true }) {
                document, row, logits in
                found.withLock { $0[document][row] = Array(logits) }
            }
            let logits = found.withLock { $0 }.map { rows in rows.sorted { $0.key < $1.key }.flatMap(\.value) }
            try expectTransformers(logits, file, task.rawValue, name)
        }
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
        try expectChanges(alongGradients: gradients, of: checkpoint, atLeast: 11, "\(name), \(task)") {
            try result($0, task, checkpoint, dropout).loss
        }
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
