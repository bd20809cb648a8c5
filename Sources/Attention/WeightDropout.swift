// Dropout of attention weights: what of a unit's weights is set to zero at random, by a counter, while a model is trained.

import CKernels
import Matrices
import Tiles

/// With what probability weights are dropped in one attention, and what the numbers are drawn for.
///
/// As in PyTorch, weights are dropped behind the softmax: m, ℓ and L are those of all weights, and the output is
/// Σ fᵢⱼ·pᵢⱼ·vⱼ, where f is 0 where the 32 bits of a query head, query and key are below probability·2³², else
/// 1/(1 − probability) rounded to float32. The bits are those of the query's row and the key's channel
/// (`CountedDraws`, at `DrawSite.attentionWeights`), so they depend neither on who computes a unit nor on what shares the batch.
public struct WeightDropout: Sendable, Hashable {
    /// That of each weight.
    public let probability: Double
    /// The whole training's.
    public let seed: UInt64
    /// The step, counted from 0.
    public let step: Int
    /// The layer, counted from 0.
    public let layer: Int
    /// For each sequence of the batch its number in the corpus, which does not depend on the batch.
    public let documents: [Int]

    /// - Parameters:
    ///   - probability: that of each weight.
    ///   - seed: the whole training's.
    ///   - step: the step, counted from 0.
    ///   - layer: the layer, counted from 0.
    ///   - documents: for each sequence of the batch its number in the corpus.
    /// - Precondition: the probability is in 0..<1.
    public init(probability: Double, seed: UInt64, step: Int, layer: Int, documents: [Int]) {
        precondition(probability >= 0 && probability < 1, "a probability below 1")
        self.probability = probability
        self.seed = seed
        self.step = step
        self.layer = layer
        self.documents = documents
    }

    /// The bits of a query head.
    func draws(head: Int) -> CountedDraws {
        CountedDraws(seed: seed, step: step, site: .attentionWeights, layer: layer, head: head)
    }

    /// What is left of a weight is multiplied by this.
    var factor: Float { Float(1 / (1 - probability)) }

    /// What a weight is multiplied by: 0, or what is left's factor.
    /// - Parameters:
    ///   - sequence: the place of query and key in the batch.
    ///   - head: the query head.
    ///   - query: the query's place in its sequence.
    ///   - key: the key's place in its sequence.
    func factor(sequence: Int, head: Int, query: Int, key: Int) -> Float {
        draws(head: head).bits(document: documents[sequence], row: query, channel: key)
            < CountedDraws.threshold(probability) ? 0 : factor
    }
}

/// What is dropped of the weights of one query tile and head, as a thread has loaded them.
struct TileDropout {
    private let draws: CountedDraws
    private let documents: [Int]
    private let threshold: UInt32
    private let factor: Float
    private let kernels: annulus_gradient_kernels

    init(_ dropout: WeightDropout, head: Int, kernels: KernelSet) {
        draws = dropout.draws(head: head)
        documents = dropout.documents
        threshold = CountedDraws.threshold(dropout.probability)
        factor = dropout.factor
        self.kernels = kernels.gradientFunctions
    }

    /// Drops weights of some rows and keys of a pair in place; so too of their gradients.
    /// - Parameters:
    ///   - rows: counted from the query tile's first.
    ///   - keys: counted from the key tile's first; begins at a whole vector.
    ///   - weights: (rows, keys)
    ///   - stride: from one row of weights to the next.
    func apply(
        _ pair: TilePair, rows: Range<Int>, keys: Range<Int>, _ weights: UnsafeMutablePointer<Float>, stride: Int
    ) {
        let (firstRow, firstKey) = (pair.rows.lowerBound, pair.keys.lowerBound + keys.lowerBound)
        for (place, row) in rows.enumerated() {
            kernels.drop_row(
                keys.count, weights + place * stride,
                draws.state(document: documents[pair.number], row: firstRow + row, from: firstKey), threshold, factor)
        }
    }
}
