// What a training takes of memory, told beforehand.

import Foundation
import Plans
import RingAttention
import Tiles
import Training
import Transformers

extension TrainedModel {
    /// Bytes that a rank takes for a training.
    ///
    /// Of weights: the masters, the tables, and every step the packed panels of dense layers and of their transposes. Of
    /// gradients: a sum for each of the rank's maximal subtrees, and what it owns of the sums of all ranks and of the
    /// optimizer's means. Of a token: each layer's input and attention's result with two numbers a head, kept for the way
    /// back, and what one layer takes on that way. Of a language model's head the logits of a pass.
    /// - Parameters:
    ///   - rows: tokens of the rank, in one part of a step.
    ///   - subtrees: maximal ones that its tiles fill.
    func trainingBytes(rows: Int, subtrees: Int, ranks: Int, threads: Int) -> Double {
        let configuration = start.configuration
        func floats(_ parameters: [Parameter], _ counts: (Parameter) -> Bool) -> Double {
            Double(parameters.filter(counts).reduce(0) { $0 + $1.shape.reduce(1, *) })
        }
        let isTable = { (parameter: Parameter) in
            parameter.shape.count == 2 && parameter.name.contains("embeddings") && parameter.name.hasSuffix("weight")
                && self.encoderNames.contains(parameter.name)
        }
        let (all, tables) = (floats(parameters) { _ in true }, floats(parameters, isTable))
        let trained = Double(blocks.count)
        // A tied decoder is packed like any dense layer, and has a gradient of its own.
        let decoders = tasks.filter { $0.kind == .maskedLanguage }.flatMap(\.head).filter {
            encoderNames.contains($0.name)
        }
        let tied = floats(decoders) { _ in true }
        let weights = 4 * trained + 4 * tables + 8 * (all - tables + tied)
        let parts = trained - min(trained, tables) + tied
        let gradients = 4 * parts * Double(subtrees) + (4 * (parts + trained) + 8 * trained) / Double(ranks)

        let hidden = configuration.hiddenSize
        let inner = configuration.intermediateSize * (configuration.isGated ? 2 : 1)
        var (kept, queries, attended, keyValues) = (0, 0, 0, 0)
        for pattern in configuration.attention {
            let heads = pattern.heads
            kept += hidden + heads.queryHeads * (heads.valueDimension + 2)
            queries = max(queries, heads.queryHeads * heads.headDimension)
            attended = max(attended, heads.queryHeads * heads.valueDimension)
            keyValues = max(keyValues, heads.keyValueHeads * (heads.headDimension + heads.valueDimension))
        }
        let levels = Int.bitWidth - (rows / TileGrid.tileSize).leadingZeroBitCount
        let back = 7 * hidden + 2 * inner + 3 * attended + (2 + levels) * queries + 3 * keyValues
        let masked =
            tasks.contains { $0.kind == .maskedLanguage }
            ? min(Double(1 << 24), 0.15 * Double(rows * configuration.vocabularySize)) : 0
        let scratch = Double(threads * TileGrid.tileSize * (6 * hidden + 3 * inner))
        // Buffers that wait in the pool for another size, and parts on their way up the trees, come to as much again:
        // `/usr/bin/time -v annulus bench train --length N` saw within 5 % of this for 1,024 and 4,096 tokens, on one rank
        // and on two.
        return weights + gradients + 4 * (2 * Double(kept + back) * Double(rows) + masked + scratch)
    }
}

extension TrainedModel {
    /// Bytes that the fullest rank takes for steps whose largest part has documents of these lengths.
    func trainingBytes(lengths: [Int], _ session: Session) -> Double {
        let ranks = session.transport.size
        let sharding = Sharding.ofStep(
            lengths: lengths, costs: EncoderRun.costs(lengths: lengths, configuration: start.configuration),
            firstTile: 0, ranks: ranks)
        let all = Runs(0..<TileNumbering(lengths: lengths).tileCount)
        return (0..<ranks).map { rank in
            let own = TreeNode.maximalCount(in: sharding.tiles(of: Rank(rank)), of: all)
            return trainingBytes(
                rows: sharding.tokenCount(of: Rank(rank)),
                // Where documents differ, a rank's run of tiles begins and ends as it comes.
                subtrees: ranks > 1 && lengths.count > 1 ? max(own, 3) : own,
                ranks: ranks, threads: session.threads.threads)
        }.max() ?? 0
    }
}

extension Session {
    /// Refuses a training that the hosts' memory would not hold, by its largest step. Collective.
    /// - Returns: the bytes that a rank will take.
    /// - Throws: `AgreedFailure` with status 71.
    func refuseTraining(_ model: TrainedModel, _ order: StepOrder, _ settings: TrainingSettings) throws -> Double {
        let longest = max(1, order.lengths.flatMap { $0 }.max() ?? 1)
        let documents = max(1, settings.batchTokens / settings.accumulationSteps / longest)
        let bytes = model.trainingBytes(lengths: Array(repeating: longest, count: documents), self)
        try refuse(
            bytesPerRank: bytes, "the training", "lower --batch-tokens, or raise --gradient-accumulation-steps")
        return bytes
    }
}
