// The loss and the metrics of a model on examples that it does not learn from.

import Foundation
import Matrices
import Plans
import RingAttention
import Tiles
import Training
import Transformers

/// An evaluation of a model as it is, on one rank.
struct Evaluation {
    private let model: TrainedModel
    private let settings: TrainingSettings
    private let strategy: Strategy
    private let session: Session

    init(_ model: TrainedModel, _ settings: TrainingSettings, _ strategy: Strategy, _ session: Session) {
        self.model = model
        self.settings = settings
        self.strategy = strategy
        self.session = session
    }

    /// Masked tokens of an evaluation are always the same: those of step 0 of a seed of its own.
    private static let seed: UInt64 = 0x6576_616C

    /// The loss, and the metrics of the kind. Collective; the values count on rank 0 alone.
    func run(_ set: TrainingSet, task number: Int) throws -> [(String, Double)] {
        let task = model.tasks[number]
        let encoder = try Encoder(model.start.configuration, parameters: model.masters, kernels: session.kernels)
        let head = try model.head(number, session.kernels)
        let masking =
            set.kind == .maskedLanguage
            ? try TrainingCorpus.masking(model.start, settings, seed: Self.seed) : nil
        var collected = Collected()
        let memory = BufferPool()
        var first = 0
        while first < set.examples.count {
            var (end, tokens) = (first, 0)
            while end < set.examples.count,
                end == first || tokens + set.examples[end].tokenCount <= settings.batchTokens
            {
                tokens += set.examples[end].tokenCount
                end += 1
            }
            let documents = TrainingCorpus.documents(
                (first..<end).map { (0, set.examples[$0], 2 * $0) }, tasks: 1, masking: masking, kinds: [set.kind],
                step: 0)
            try collect(documents, task, encoder, head, memory, into: &collected)
            first = end
        }
        return collected.metrics(task)
    }

    /// What has been seen so far; of single documents on rank 0 alone.
    private struct Collected {
        var lossSum = 0.0
        var lossCount = 0
        var right = 0
        var rows = 0
        var chosen: [Int] = []
        var truth: [Int] = []
        var chosenSets: [[Bool]] = []
        var trueSets: [[Bool]] = []
        var predictions: [Double] = []
        var scores: [Double] = []
        var chosenLabels: [[String]] = []
        var trueLabels: [[String]] = []

        func metrics(_ task: TrainedTask) -> [(String, Double)] {
            let loss = lossSum / Double(max(1, lossCount))
            switch task.kind {
            case .maskedLanguage:
                return [
                    ("loss", loss), ("accuracy", Double(right) / Double(max(1, rows))), ("perplexity", exp(loss)),
                ]
            case .classify:
                return [
                    ("loss", loss), ("accuracy", Metrics.accuracy(chosen, truth)),
                    ("f1", Metrics.macroF1(chosen, truth)),
                ]
            case .multiLabel: return [("loss", loss), ("f1", Metrics.microF1(chosenSets, trueSets))]
            case .regress: return [("loss", loss), ("spearman", Metrics.spearman(predictions, scores))]
            case .entities:
                return [
                    ("loss", loss), ("accuracy", Double(right) / Double(max(1, rows))),
                    ("f1", Metrics.entityF1(chosenLabels, trueLabels)),
                ]
            case .similarity:
                return scores.isEmpty
                    ? [("loss", loss), ("accuracy", Double(right) / Double(max(1, rows)))]
                    : [("loss", loss), ("spearman", Metrics.spearman(predictions, scores))]
            }
        }
    }

    private func collect(
        _ documents: StepDocuments, _ task: TrainedTask, _ encoder: Encoder, _ head: TaskHead?, _ memory: BufferPool,
        into collected: inout Collected
    ) throws {
        let lengths = documents.lengths
        let sharding = Sharding.ofStep(
            lengths: lengths, costs: EncoderRun.costs(lengths: lengths, configuration: encoder.configuration),
            firstTile: 0, ranks: session.transport.size)
        let monitor = session.monitor
        let run = try EncoderRun(
            encoder: encoder, sharding: sharding, strategy: strategy,
            topology: session.topology, wire: session.settings.wire, transport: session.transport,
            threads: session.threads, memory: memory, progressed: { monitor.progress() })
        try run.run(ids: documents.sequences.map(\.ids), typeIds: documents.sequences.map(\.typeIds))
        let spans = documents.sequences.indices.map { Span(sequence: $0, tokens: 0..<lengths[$0]) }
        switch task.kind {
        case .maskedLanguage, .entities:
            guard let head else { return }
            try collectTokens(run, documents, task, head, into: &collected)
        case .classify, .multiLabel, .regress:
            guard let head else { return }
            let mine = try run.pool(spans, mode: head.pooling, transport: session.transport).map {
                (span: $0.span, vector: head.logits(rows: 1, $0.vector))
            }
            for (span, logits) in try session.gather(mine) where session.isRoot {
                collect(logits, documents.targets[0][documents.sequences[span].example], task, into: &collected)
            }
        case .similarity:
            let mine = try run.pool(spans, mode: task.pooling, transport: session.transport).map {
                (span: $0.span, vector: head?.logits(rows: 1, $0.vector) ?? $0.vector)
            }
            let all = try session.gather(mine)
            if session.isRoot { collectPairs(all.map(\.vector), documents.targets[0], task, into: &collected) }
        }
    }

    private func collect(
        _ logits: [Float], _ target: ExampleTarget, _ task: TrainedTask, into collected: inout Collected
    ) {
        var row = logits
        collected.lossSum += task.loss.differentiate(
            &row, outputs: logits.count, target.row, factor: 1, kernels: session.kernels)
        collected.lossCount += task.loss.count(target.row, outputs: logits.count)
        switch target {
        case .label(let label):
            collected.chosen.append(Self.largest(logits))
            collected.truth.append(label)
        case .values(let values):
            if task.kind == .multiLabel {
                collected.chosenSets.append(logits.map { $0 > 0 })
                collected.trueSets.append(values.map { $0 > 0.5 })
            } else {
                collected.predictions.append(Double(logits[0]))
                collected.scores.append(Double(values[0]))
            }
        case .tokens, .pair: break
        }
    }

    private static func largest(_ values: [Float]) -> Int {
        values.indices.max { (values[$0], $1) < (values[$1], $0) } ?? 0
    }

    private func collectTokens(
        _ run: EncoderRun, _ documents: StepDocuments, _ task: TrainedTask, _ head: TaskHead,
        into collected: inout Collected
    ) throws {
        let numbering = run.sharding.numbering
        var sums = StepSums(count: 2, tiles: numbering.tileCount)
        var chosen: [(span: Int, vector: [Float])] = []
        for tile in run.tiles {
            // One tile's logits at a time: those of a vocabulary are many.
            let wanted = documents.sequences[tile.sequence].wanted.filter { tile.tokens.contains($0.row) }
            let logits = run.logits(head) {
                $0.number == tile.number ? wanted.map { $0.row - tile.tokens.lowerBound } : []
            }
            var (loss, right) = (0.0, 0.0)
            for (place, entry) in logits.enumerated() {
                var row = entry.values
                let best = Self.largest(row)
                loss += task.loss.differentiate(
                    &row, outputs: head.outputs, .index(wanted[place].label), factor: 1, kernels: session.kernels)
                right += best == wanted[place].label ? 1 : 0
                if task.kind == .entities {
                    chosen.append((tile.sequence << 32 | wanted[place].row, [Float(best)]))
                }
            }
            sums.add([loss, right], tile: tile.number)
        }
        let totals = try sums.total(over: session.transport)
        collected.lossSum += totals[0]
        collected.right += Int(totals[1])
        let rows = documents.sequences.reduce(0) { $0 + $1.wanted.count }
        collected.lossCount += rows
        collected.rows += rows
        guard task.kind == .entities else { return }
        let all = try session.gather(chosen)
        guard session.isRoot else { return }
        var ofSequence = Array(repeating: [String](), count: documents.sequences.count)
        for (place, best) in all { ofSequence[place >> 32].append(task.labels[Int(best[0])]) }
        collected.chosenLabels += ofSequence
        collected.trueLabels += documents.sequences.map { $0.wanted.map { task.labels[$0.label] } }
    }

    private func collectPairs(
        _ vectors: [[Float]], _ targets: [ExampleTarget], _ task: TrainedTask, into collected: inout Collected
    ) {
        let first = stride(from: 0, to: vectors.count, by: 2).map { normalized(vectors[$0]) }
        let second = stride(from: 1, to: vectors.count, by: 2).map { normalized(vectors[$0]) }
        func cosine(_ one: [Float], _ other: [Float]) -> Double {
            zip(one, other).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        }
        let scores = targets.compactMap { if case .pair(let score) = $0 { score } else { nil } }
        if scores.count == targets.count {
            for (place, score) in scores.enumerated() {
                let value = cosine(first[place], second[place])
                collected.lossSum += (value - Double(score)) * (value - Double(score))
                collected.predictions.append(value)
                collected.scores.append(Double(score))
            }
        } else {
            let width = vectors[0].count
            let (loss, _) = PairLoss.negatives(
                temperature: Float(settings.temperature), isSymmetric: settings.isSymmetric
            ).differentiate(
                PairVectors(
                    pairs: first.count, width: width, first: first.flatMap { $0 }, second: second.flatMap { $0 }),
                weight: 1, threads: session.threads, kernels: session.kernels)
            collected.lossSum += loss * Double(first.count)
            for (place, vector) in first.enumerated() {
                let cosines = second.map { Float(cosine(vector, $0)) }
                collected.right += Self.largest(cosines) == place ? 1 : 0
            }
            collected.rows += first.count
        }
        collected.lossCount += targets.count
    }
}
