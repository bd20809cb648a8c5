// What a training takes of memory, told beforehand.

import Foundation
import RingAttention
import Tiles
import Training
import Transformers

extension TrainedModel {
    /// Bytes that a rank takes, at most, for a training.
    ///
    /// Of weights: the masters, and every step the packed panels and their transposes; of gradients a sum for each of the
    /// rank's maximal subtrees, most of which are few; of the optimizer the rank's share. Of a token: each layer's input
    /// and attention's result with two numbers a head, kept for the way back, and what one layer takes on that way.
    func trainingBytes(rows: Int, subtrees: Int, ranks: Int, threads: Int) -> Double {
        let configuration = start.configuration
        let all = Double(parameters.reduce(0) { $0 + $1.shape.reduce(1, *) })
        let trained = Double(blocks.count)
        let table = Double(configuration.vocabularySize * configuration.embeddingSize)
        // A table's gradient has the rows that occur; a language model's decoder has them all.
        let sparse = tasks.contains { $0.kind == .maskedLanguage } ? 0 : min(table, trained)
        let weights = 4 * all + 8 * (all - table) + 4 * table
        let gradients = 4 * (trained - sparse) * Double(subtrees) + 12 * trained / Double(ranks)
        var perRow = 0.0
        var widest = 0
        for pattern in configuration.attention {
            let heads = pattern.heads
            let width = heads.queryHeads * heads.valueDimension
            perRow += Double(configuration.hiddenSize + width + 2 * heads.queryHeads)
            widest = max(
                widest,
                2 * heads.queryHeads * (heads.headDimension + heads.valueDimension)
                    + 4 * heads.keyValueHeads * (heads.headDimension + heads.valueDimension))
        }
        let inner = configuration.intermediateSize * (configuration.isGated ? 2 : 1)
        perRow += Double(widest + 8 * configuration.hiddenSize + 3 * inner)
        return weights + gradients + 4 * perRow * Double(rows)
            + Double(threads) * 4 * Double(TileGrid.tileSize) * Double(4 * configuration.hiddenSize + 3 * inner)
    }
}

extension Session {
    /// Refuses a training that the hosts' memory would not hold, by its largest step. Collective.
    /// - Throws: `AgreedFailure` with status 71.
    func refuseTraining(_ model: TrainedModel, _ order: StepOrder, _ settings: TrainingSettings) throws {
        let longest = order.lengths.flatMap { $0 }.max() ?? 0
        let tokens = max(longest, settings.batchTokens / settings.accumulationSteps)
        let rows = min(tokens, tokens / transport.size + TileGrid.tileSize)
        let subtrees = transport.size == 1 ? 1 : 3
        try refuse(
            bytesPerRank: model.trainingBytes(
                rows: rows, subtrees: subtrees, ranks: transport.size, threads: threads.threads),
            "the training", "lower --batch-tokens, or raise --gradient-accumulation-steps")
    }
}
