// One step of a training: examples through the model and back, and the update.

import Foundation
import Matrices
import Plans
import RingAttention
import Tiles
import Training
import Transformers

/// The documents of a step, as all ranks know them.
struct StepDocuments {
    /// A text of an example: a sequence of the step.
    struct Sequence {
        let task: Int
        /// The example's place among those of its task in the step.
        let example: Int
        /// 0, or 1 for the second text of a pair that is compared.
        let text: Int
        /// Its number among all texts of the training, by which random numbers are drawn.
        let number: Int
        let ids: [Int32]
        let typeIds: [Int32]
        /// The tokens that have a loss, ascending, and what they should be: masked ones their ids, others their labels.
        let wanted: [(row: Int, label: Int)]
    }

    let sequences: [Sequence]
    /// How many sequences each example takes.
    let groups: [Int]
    /// By task, the targets of its examples in the order of the step.
    let targets: [[ExampleTarget]]

    var lengths: [Int] { sequences.map(\.ids.count) }
    var tokenCount: Int { lengths.reduce(0, +) }

    /// By task: what its sum of losses is divided by.
    func counts(_ tasks: [TrainedTask]) -> [Int] {
        tasks.enumerated().map { number, task in
            switch task.kind {
            case .maskedLanguage, .entities:
                sequences.reduce(0) { $0 + ($1.task == number ? $1.wanted.count : 0) }
            case .classify: targets[number].count
            case .multiLabel, .regress: targets[number].count * task.labels.count
            case .similarity: targets[number].count
            }
        }
    }
}

/// What a step gave.
struct StepResult {
    /// By task, the mean loss; nil where the step has nothing of it.
    var losses: [Double?]
    /// The sum by the tasks' weights; of learned ones with half their logarithms of variances.
    var loss: Double
    /// By task, what its loss was multiplied by.
    var weights: [Double]
    /// The norm of all gradients, before clipping.
    var norm: Double
    var tokens: Int
}

/// Carries steps through the model, on one rank. All its functions are collective.
final class StepRunner {
    private let session: Session
    private let model: TrainedModel
    private let settings: TrainingSettings
    private let shard: OptimizerShard
    private let strategy: Strategy
    private let gradient: AlignedBuffer
    private let memory = BufferPool()

    init(
        _ model: TrainedModel, _ settings: TrainingSettings, _ shard: OptimizerShard, _ strategy: Strategy,
        _ session: Session
    ) {
        self.model = model
        self.settings = settings
        self.shard = shard
        self.strategy = strategy
        self.session = session
        gradient = AlignedBuffer(count: shard.floats.count)
    }

    private var transport: any Transport { session.transport }

    /// One step.
    /// - Parameters:
    ///   - number: counted from 0.
    ///   - rate: the learning rate; that of heads stands in the same proportion to it as the two that were asked for.
    func run(_ documents: StepDocuments, number: Int, rate: Double, headRate: Double) throws -> StepResult {
        let encoder = try model.encoder(session.kernels)
        let heads = try model.tasks.indices.map { try model.head($0, session.kernels) }
        let slots = model.slots(encoder, heads)
        let numbering = TileNumbering(lengths: documents.lengths)
        let reduction = GradientReduction(
            slots: slots, model.blocks, tiles: numbering.tileCount, over: transport, threads: session.threads)
        var sums = StepSums(count: model.tasks.count, tiles: numbering.tileCount)
        let counts = documents.counts(model.tasks)
        let weights = model.weights(session.kernels)
        var pairLosses = [Double](repeating: 0, count: model.tasks.count)
        let batches = microBatches(
            lengths: documents.lengths, groups: documents.groups, count: settings.accumulationSteps)
        for batch in batches {
            let firstTile = numbering.firstTile[batch.lowerBound]
            let work = try MicroBatch(
                documents, batch, StepTiles(first: firstTile, count: numbering.tileCount), model, encoder, heads,
                settings, strategy, step: number, counts: counts, weights: weights, session, memory)
            try work.run()
            for (tile, losses) in work.losses { sums.add(losses, tile: tile) }
            for task in pairLosses.indices { pairLosses[task] += work.pairLosses[task] }
            try reduction.add(work.takeParts(), nodes: work.nodes)
        }
        reduction.finish(into: gradient)
        let totals = try sums.total(over: transport)
        let losses = model.tasks.indices.map { task -> Double? in
            guard counts[task] > 0 else { return nil }
            return model.tasks[task].kind == .similarity
                ? pairLosses[task] : totals[task] / Double(counts[task])
        }
        let loss = finish(losses, weights)
        let norm = try GradientNorm.norm(gradient, model.blocks, over: transport, threads: session.threads)
        let result = StepResult(
            losses: losses, loss: loss, weights: weights, norm: norm, tokens: documents.tokenCount)
        guard norm.isFinite, loss.isFinite else { return result }
        shard.update(
            model.masters, gradient: gradient,
            factor: GradientNorm.factor(norm: norm, most: settings.maxGradientNorm), rate: rate, headRate: headRate,
            threads: session.threads)
        try model.masters.share(over: transport)
        return result
    }

    /// Makes the tasks' losses one. Where their weights are learned, every rank knows all that the gradients of these are
    /// made of; they go to where this rank owns them.
    private func finish(_ losses: [Double?], _ weights: [Double]) -> Double {
        guard let learned = model.learnedWeights, let logVariances = model.logVariances else {
            return zip(weights, losses).reduce(0) { $0 + $1.0 * ($1.1 ?? 0) }
        }
        for (place, value) in zip(logVariances.range, learned.gradients(losses, weights: weights))
        where shard.floats.contains(place) {
            gradient.pointer[place - shard.floats.lowerBound] = value
        }
        return learned.loss(losses, logVariances: logVariances.values, weights: weights)
    }
}

/// The documents of a step that go through the model together, on one rank.
private final class MicroBatch {
    private let documents: [StepDocuments.Sequence]
    private let targets: [[ExampleTarget]]
    private let step: StepTiles
    private let model: TrainedModel
    private let heads: [TaskHead?]
    private let counts: [Int]
    /// By task, what its loss is multiplied by in this step.
    private let weights: [Double]
    private let settings: TrainingSettings
    private let session: Session
    private let encoderRun: EncoderRun
    private let encoderGradients: Gradients
    private let headGradients: [Gradients?]

    /// The maximal subtrees that the tiles of each rank fill.
    let nodes: [[TreeNode]]
    /// Of each of this rank's tiles, by its number in the step: by task the sum of its losses.
    private(set) var losses: [(tile: Int, [Double])] = []
    /// By task, the mean loss of the step's pairs.
    private(set) var pairLosses: [Double]

    init(
        _ all: StepDocuments, _ batch: Range<Int>, _ step: StepTiles, _ model: TrainedModel, _ encoder: Encoder,
        _ heads: [TaskHead?], _ settings: TrainingSettings, _ strategy: Strategy, step number: Int, counts: [Int],
        weights: [Double], _ session: Session, _ memory: BufferPool
    ) throws {
        documents = Array(all.sequences[batch])
        targets = all.targets
        self.step = step
        self.model = model
        self.heads = heads
        self.counts = counts
        self.weights = weights
        self.settings = settings
        self.session = session
        let lengths = documents.map(\.ids.count)
        let ranks = session.transport.size
        let sharding = Sharding.ofStep(
            lengths: lengths, costs: EncoderRun.costs(lengths: lengths, configuration: encoder.configuration),
            firstTile: step.first, ranks: ranks)
        nodes = (0..<ranks).map { rank in
            TreeNode.maximal(in: sharding.tiles(of: Rank(rank)).shifted(by: step.first), of: Runs(0..<step.count))
        }
        let dropout = Dropout(
            probability: settings.dropout, attention: settings.attentionDropout,
            head: settings.classifierDropout ?? settings.dropout, seed: settings.seed, step: number,
            documents: documents.map(\.number))
        let dropsAny = dropout.probability > 0 || dropout.attention > 0 || dropout.head > 0
        let monitor = session.monitor
        encoderRun = try EncoderRun(
            encoder: encoder, sharding: sharding, strategy: strategy,
            topology: session.topology, wire: session.settings.wire, transport: session.transport,
            threads: session.threads, memory: memory, training: TrainingPass(dropout: dropsAny ? dropout : nil),
            progressed: { monitor.progress() })
        session.warn(encoderRun.shortages)
        encoderGradients = Gradients(encoder.gradientSlots, frozen: model.frozen)
        headGradients = heads.map { $0.map { Gradients($0.gradientSlots, frozen: model.frozen) } }
        pairLosses = Array(repeating: 0, count: model.tasks.count)
    }

    /// Forward, losses, and back.
    func run() throws {
        session.monitor.progress(.encoding)
        try encoderRun.run(ids: documents.map(\.ids), typeIds: documents.map(\.typeIds))
        var byTile = Array(repeating: Array(repeating: 0.0, count: model.tasks.count), count: encoderRun.tiles.count)
        for (number, task) in model.tasks.enumerated() {
            switch task.kind {
            case .maskedLanguage, .entities: learnTokens(number, task, &byTile)
            case .classify, .multiLabel, .regress: try learnDocuments(number, task, &byTile)
            case .similarity: try learnPairs(number, task)
            }
        }
        losses = zip(encoderRun.tiles, byTile).map { (step.first + $0.number, $1) }
        try encoderRun.backward(into: encoderGradients, step: step)
    }

    /// The parts of all slots, the encoder's first.
    func takeParts() -> [[GradientPart]] {
        var parts = encoderGradients.slots.indices.map { encoderGradients.takeParts(of: $0) }
        for gradients in headGradients {
            guard let gradients else { continue }
            parts += gradients.slots.indices.map { gradients.takeParts(of: $0) }
        }
        return parts
    }

    /// What the gradient of a task's sum of losses is multiplied by.
    private func factor(_ number: Int) -> Float { Float(weights[number] / Double(max(1, counts[number]))) }

    /// A loss for some tokens of each document.
    private func learnTokens(_ number: Int, _ task: TrainedTask, _ byTile: inout [[Double]]) {
        guard let head = heads[number], let gradients = headGradients[number] else { return }
        let wanted = encoderRun.tiles.map { tile -> [(row: Int, label: Int)] in
            let sequence = documents[tile.sequence]
            guard sequence.task == number else { return [] }
            return sequence.wanted.filter { tile.tokens.contains($0.row) }.map {
                ($0.row - tile.tokens.lowerBound, $0.label)
            }
        }
        let places = Dictionary(uniqueKeysWithValues: encoderRun.tiles.enumerated().map { ($1.number, $0) })
        let losses = RowLosses(encoderRun.tiles.map { $0.tokens.count })
        let (loss, factor, kernels) = (task.loss, factor(number), session.kernels)
        encoderRun.backward(
            head, wanted: { tile in wanted[places[tile.number] ?? 0].map(\.row) }, into: gradients, step: step
        ) { tile, row, logits in
            let place = places[tile.number] ?? 0
            let label = wanted[place].first { $0.row == row }?.label ?? 0
            losses[place, row] = loss.differentiate(
                logits, outputs: head.outputs, .index(label), factor: factor, kernels: kernels)
        }
        for place in byTile.indices {
            for (row, _) in wanted[place] { byTile[place][number] += losses[place, row] }
        }
    }

    /// A loss for each document.
    private func learnDocuments(_ number: Int, _ task: TrainedTask, _ byTile: inout [[Double]]) throws {
        guard let head = heads[number], let gradients = headGradients[number] else { return }
        let (spans, sequences) = spans(number)
        let vectors = try encoderRun.pool(spans, mode: head.pooling, transport: session.transport)
        let losses = RowLosses([spans.count])
        let (loss, factor, kernels) = (task.loss, factor(number), session.kernels)
        let targets = sequences.map { self.targets[number][documents[$0].example].row }
        let changes = encoderRun.backward(head, vectors: vectors, of: spans, into: gradients, step: step) {
            span, logits in
            losses[0, span] = loss.differentiate(
                logits, outputs: head.outputs, targets[span], factor: factor, kernels: kernels)
        }
        try encoderRun.backward(
            throughPooling: spans, mode: head.pooling, gradients: changes, transport: session.transport)
        for (span, _) in vectors {
            // A document's loss is one of its first tile, whose rank has its vector.
            let tile = encoderRun.sharding.numbering.firstTile[sequences[span]]
            if let place = encoderRun.tiles.firstIndex(where: { $0.number == tile }) {
                byTile[place][number] += losses[0, span]
            }
        }
    }

    /// A loss for the pairs of the step.
    private func learnPairs(_ number: Int, _ task: TrainedTask) throws {
        let (spans, sequences) = spans(number)
        if spans.isEmpty { return }
        let mine = try encoderRun.pool(spans, mode: task.pooling, transport: session.transport)
        let head = heads[number]
        let width = head?.outputs ?? encoderRun.encoder.configuration.hiddenSize
        var message = Message()
        for (span, vector) in mine {
            message.write(span)
            message.write(head?.logits(rows: 1, vector) ?? vector)
        }
        let pairs = targets[number].count
        var vectors = PairVectors(
            pairs: pairs, width: width, first: Array(repeating: 0, count: pairs * width),
            second: Array(repeating: 0, count: pairs * width))
        for bytes in try session.transport.allGather(message.bytes) {
            var told = Message(bytes)
            while !told.isAtEnd {
                let sequence = documents[sequences[told.readInt()]]
                let values = told.readFloats()
                let place = sequence.example * width..<(sequence.example + 1) * width
                if sequence.text == 0 {
                    vectors.first.replaceSubrange(place, with: values)
                } else {
                    vectors.second.replaceSubrange(place, with: values)
                }
            }
        }
        let scores = targets[number].compactMap { target -> Float? in
            if case .pair(let score) = target { score } else { nil }
        }
        let loss: PairLoss =
            scores.count == pairs
            ? .scores(scores)
            : .negatives(temperature: Float(settings.temperature), isSymmetric: settings.isSymmetric)
        let (mean, gradients) = loss.differentiate(
            vectors, weight: weights[number], threads: session.threads, kernels: session.kernels)
        pairLosses[number] = mean
        func change(_ span: Int) -> [Float] {
            let sequence = documents[sequences[span]]
            let place = sequence.example * width..<(sequence.example + 1) * width
            return Array((sequence.text == 0 ? gradients.first : gradients.second)[place])
        }
        var changes = mine.map { span, _ in (span: span, gradient: change(span)) }
        if let head, let ofHead = headGradients[number] {
            changes = encoderRun.backward(head, vectors: mine, of: spans, into: ofHead, step: step) { span, vector in
                vector.update(from: change(span), count: width)
            }
        }
        try encoderRun.backward(
            throughPooling: spans, mode: task.pooling, gradients: changes, transport: session.transport)
    }

    /// The documents of a task as spans, and their places in the batch.
    private func spans(_ number: Int) -> (spans: [Span], sequences: [Int]) {
        let sequences = documents.indices.filter { documents[$0].task == number }
        return (sequences.map { Span(sequence: $0, tokens: 0..<documents[$0].ids.count) }, sequences)
    }
}

/// A loss for each row of some tiles, written by the threads that have the rows.
private final class RowLosses {
    private let values: UnsafeMutablePointer<Double>
    private let starts: [Int]

    /// - Parameter counts: the rows of each tile.
    init(_ counts: [Int]) {
        var starts = [0]
        for count in counts { starts.append(starts[starts.count - 1] + count) }
        self.starts = starts
        values = .allocate(capacity: max(1, starts[counts.count]))
        values.initialize(repeating: 0, count: max(1, starts[counts.count]))
    }

    deinit { values.deallocate() }

    subscript(tile: Int, row: Int) -> Double {
        get { values[starts[tile] + row] }
        // Disjoint: each row is one thread's.
        set { values[starts[tile] + row] = newValue }
    }
}

extension ExampleTarget {
    /// What a document's row of logits should have been.
    var row: RowTarget {
        switch self {
        case .label(let index): .index(index)
        case .values(let values): .values(values)
        case .tokens, .pair: .ignored
        }
    }
}
