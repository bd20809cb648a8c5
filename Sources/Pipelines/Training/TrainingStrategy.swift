// By which strategy the steps of a training attend, and the refusal of one that memory cannot hold.

import Attention
import Plans
import RingAttention
import Tiles
import Training
import Transformers

extension Session {
    /// The strategy of a training: the one that was asked for, or the one that is predicted to be fastest for a part of a step,
    /// there and back, of those that fit into the hosts' memory; and the bytes that the fullest rank is to take. Collective.
    /// - Parameters:
    ///   - lengths: those of the documents of the largest part of a step.
    ///   - maskProbability: the share of tokens that a language model is to guess.
    ///   - remedy: what can be done about a training that does not fit.
    /// - Throws: `AgreedFailure` with status 71 where none fits.
    func decideTraining(
        _ model: TrainedModel, lengths: [Int], maskProbability: Double, remedy: String = Decision.remedy
    ) throws -> Decision {
        let (configuration, ranks) = (model.start.configuration, transport.size)
        let sharding = Sharding.ofStep(
            lengths: lengths, costs: EncoderRun.costs(lengths: lengths, configuration: configuration), firstTile: 0,
            ranks: ranks)
        let tiles = Runs(0..<sharding.numbering.tileCount)
        let subtrees = (0..<ranks).map { TreeNode.maximalCount(in: sharding.tiles(of: Rank($0)), of: tiles) }.max() ?? 1
        let rows = (0..<ranks).map { sharding.tokenCount(of: Rank($0)) }.max() ?? 0
        var footprint = try configuration.footprint(.float32, threads: threads.threads, weights: false)
        for index in footprint.layers.indices {
            guard let heads = footprint.layers[index].heads else { continue }
            footprint.layers[index].operations = [.attend(heads), .differentiate(heads)]
        }
        // The gradients of a dense layer's input and weights are products of its own size.
        footprint.denseFlopPerToken *= 3
        footprint.bytesPerToken =
            4 * Double(configuration.trainingFloatsPerRow(longestDocument: lengths.max() ?? 0))
        footprint.bytesPerRank = model.trainingBytes(
            rows: rows,
            // Where documents differ, a rank's run of tiles begins and ends as it comes.
            subtrees: ranks > 1 && lengths.count > 1 ? max(subtrees, 3) : subtrees,
            ranks: ranks, threads: threads.threads, maskProbability: maskProbability)
        let attention = configuration.attention[0]
        let problem = AttentionProblem(
            shapes: lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding, mask: attention.mask,
            heads: attention.heads)
        return try decide(spread(problem), footprint, settings.strategy, remedy: remedy)
    }
}
