// Dropout: channels of rows, and attention weights, set to zero at random, by a counter, while a model is trained; and in
// which places a family has it.

import Attention
import Matrices
import Tiles

/// With what probabilities values are dropped in one step, and what the numbers are drawn for.
///
/// A value is zero where the 32 bits of its channel are below probability·2³², else it is multiplied by
/// 1 / (1 − probability), rounded to float32 (Srivastava et al. 2014). Dropped are
///
/// - with `probability`: hidden rows, in the places of the family (`DropoutPlaces`);
/// - with `attention`: attention weights, behind the softmax (`WeightDropout`), and hidden rows where a family has that
///   probability for them;
/// - with `head`: what the last layer of a head of labels reads, and where transformers has it also the states that such a
///   head begins with. A language model's head drops nothing.
public struct Dropout: Sendable, Hashable {
    /// That of each value of hidden rows.
    public let probability: Double
    /// That of each attention weight.
    public let attention: Double
    /// That of each value in the heads of labels.
    public let head: Double
    /// The whole training's.
    public let seed: UInt64
    /// The step, counted from 0.
    public let step: Int
    /// For each document of the batch its number in the corpus, which does not depend on the batch.
    public let documents: [Int]

    /// - Parameters:
    ///   - probability: that of each value of hidden rows.
    ///   - attention: that of each attention weight.
    ///   - head: that of each value in the heads of labels.
    ///   - seed: the whole training's.
    ///   - step: the step, counted from 0.
    ///   - documents: for each document of the batch its number in the corpus.
    /// - Precondition: probabilities are in 0..<1.
    public init(
        probability: Double, attention: Double = 0, head: Double = 0, seed: UInt64, step: Int, documents: [Int]
    ) {
        precondition([probability, attention, head].allSatisfy { $0 >= 0 && $0 < 1 }, "probabilities below 1")
        (self.probability, self.attention, self.head) = (probability, attention, head)
        (self.seed, self.step, self.documents) = (seed, step, documents)
    }

    /// The same of some of the batch's documents alone.
    /// - Parameter places: theirs in the batch.
    public func of(_ places: Range<Int>) -> Dropout {
        Dropout(
            probability: probability, attention: attention, head: head, seed: seed, step: step,
            documents: Array(documents[places]))
    }

    /// What is dropped of a layer's attention weights; nil where nothing is.
    func weights(layer: Int) -> WeightDropout? {
        attention == 0
            ? nil
            : WeightDropout(probability: attention, seed: seed, step: step, layer: layer, documents: documents)
    }

    /// Drops values of a row that a head reads, in place; so too of its gradient.
    /// - Parameters:
    ///   - place: which of the head's dropouts it is: 0 before the last layer, 1 at the states.
    ///   - document: the document's place in the batch.
    ///   - row: the token's place in its document, for a pooled vector the first it was pooled of.
    ///   - x: (width)
    func applyToHead(
        _ place: Int, document: Int, row: Int, _ x: UnsafeMutablePointer<Float>, width: Int, kernels: KernelSet
    ) {
        let draws = CountedDraws(seed: seed, step: step, site: .head, layer: place)
        kernels.gradientFunctions.drop_row(
            width, x, draws.state(document: documents[document], row: row), CountedDraws.threshold(head),
            Float(1 / (1 - head)))
    }

    /// Drops values of some rows, in place; so too of their gradients.
    /// - Parameters:
    ///   - rate: with which probability.
    ///   - block: which rows of the batch they are.
    ///   - x: (rows of the block, width), `stride` floats from row to row.
    func apply(
        _ site: DrawSite, _ rate: DropoutPlaces.Rate, layer: Int, _ block: RowBlock, _ x: UnsafeMutablePointer<Float>,
        width: Int, stride: Int, kernels: KernelSet
    ) {
        let probability =
            switch rate {
            case .values: self.probability
            case .weights: attention
            }
        if probability == 0 { return }
        let draws = CountedDraws(seed: seed, step: step, site: site, layer: layer)
        let (threshold, factor) = (CountedDraws.threshold(probability), Float(1 / (1 - probability)))
        var row = x
        for part in block.parts {
            let document = documents[part.tile.sequence]
            for place in part.rows {
                kernels.gradientFunctions.drop_row(
                    width, row, draws.state(document: document, row: part.tile.tokens.lowerBound + place), threshold,
                    factor)
                row += stride
            }
        }
    }
}

/// In which places a family drops values of hidden rows while it is trained, as transformers has it; as it is made, where
/// BERT does. nil where nothing is dropped.
public struct DropoutPlaces: Sendable, Hashable {
    /// Which of a training's probabilities counts.
    public enum Rate: Sendable, Hashable {
        /// That of hidden rows, ``Dropout/probability``.
        case values
        /// That of attention weights, ``Dropout/attention``.
        case weights
    }

    /// Embeddings, behind their norm where that stands before the projection.
    public var embeddings: Rate? = .values
    /// What attention's dense layer gives, bias included, before it meets the residual.
    public var attentionOutput: Rate? = .values
    /// What the second layer of the feed-forward network reads.
    public var feedForwardInner: Rate?
    /// What that layer gives, bias included, before it meets the residual.
    public var feedForwardOutput: Rate? = .values

    /// That of a place in a layer.
    func rate(_ site: DrawSite) -> Rate? {
        switch site {
        case .embeddings: embeddings
        case .attentionOutput: attentionOutput
        case .feedForwardInner: feedForwardInner
        case .feedForwardOutput: feedForwardOutput
        case .attentionWeights, .maskedTokens, .shuffling, .head: nil
        }
    }
}

/// What is dropped of a block of rows in one layer.
struct LayerDropout {
    let dropout: Dropout
    let places: DropoutPlaces
    /// The layer's number, from 0.
    let layer: Int
    let rows: RowBlock

    /// Drops values in a place, if the family has it.
    /// - Parameters:
    ///   - x: (rows, width), changed in place: values, or their gradients.
    ///   - stride: floats from row to row; nil: as many as are dropped from.
    func apply(
        _ site: DrawSite, _ x: UnsafeMutablePointer<Float>, width: Int, stride: Int? = nil, kernels: KernelSet
    ) {
        guard let rate = places.rate(site) else { return }
        dropout.apply(site, rate, layer: layer, rows, x, width: width, stride: stride ?? width, kernels: kernels)
    }
}
