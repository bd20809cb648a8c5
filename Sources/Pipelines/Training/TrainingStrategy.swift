// By which strategy the steps of a training attend.

import Attention
import Plans
import RingAttention
import Training
import Transformers

extension Session {
    /// The strategy of a training: the one that was asked for, or the one that is predicted to be fastest for a part of a step,
    /// there and back. Collective.
    /// - Parameter lengths: those of the part's documents.
    func decideTraining(_ configuration: EncoderConfiguration, lengths: [Int]) throws -> Strategy {
        guard transport.size > 1, let first = configuration.attention.first else {
            return settings.strategy ?? .passKeyValue
        }
        var footprint = try configuration.footprint(.float32, threads: threads.threads, weights: false)
        for index in footprint.layers.indices {
            guard let heads = footprint.layers[index].heads else { continue }
            footprint.layers[index].operations = [.attend(heads), .differentiate(heads)]
        }
        // The gradients of a dense layer's input and weights are products of its own size.
        footprint.denseFlopPerToken *= 3
        let sharding = Sharding.ofStep(
            lengths: lengths, costs: EncoderRun.costs(lengths: lengths, configuration: configuration), firstTile: 0,
            ranks: transport.size)
        let problem = AttentionProblem(
            shapes: lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding, mask: first.mask,
            heads: first.heads)
        return try decide(spread(problem), footprint, settings.strategy).strategy
    }
}
