// Dropout: channels of rows set to zero at random, by a counter, while a model is trained.

import Matrices
import Tiles

/// With what probability values of rows are dropped in one step, and what the numbers are drawn for.
///
/// A value is zero where the 32 bits of its channel are below probability·2³², else it is multiplied by
/// 1 / (1 − probability), rounded to float32 (Srivastava et al. 2014). Dropped are embeddings, behind their norm where
/// that stands before the projection, and what each of a block's two dense ways gives, bias included, before it meets
/// the residual.
public struct Dropout: Sendable, Hashable {
    /// That of each value.
    public let probability: Double
    /// The whole training's.
    public let seed: UInt64
    /// The step, counted from 0.
    public let step: Int
    /// For each document of the batch its number in the corpus, which does not depend on the batch.
    public let documents: [Int]

    /// - Precondition: the probability is in 0..<1.
    public init(probability: Double, seed: UInt64, step: Int, documents: [Int]) {
        precondition(probability >= 0 && probability < 1, "a probability below 1")
        (self.probability, self.seed, self.step, self.documents) = (probability, seed, step, documents)
    }

    /// Drops values of some rows, in place; so too of their gradients.
    /// - Parameters:
    ///   - block: which rows of the batch they are.
    ///   - x: (rows of the block, width)
    func apply(
        _ site: DrawSite, layer: Int, _ block: RowBlock, _ x: UnsafeMutablePointer<Float>, width: Int,
        kernels: KernelSet
    ) {
        let draws = CountedDraws(seed: seed, step: step, site: site, layer: layer)
        let (threshold, factor) = (CountedDraws.threshold(probability), Float(1 / (1 - probability)))
        var row = x
        for part in block.parts {
            let document = documents[part.tile.sequence]
            for place in part.rows {
                kernels.gradientFunctions.drop_row(
                    width, row, draws.state(document: document, row: part.tile.tokens.lowerBound + place), threshold,
                    factor)
                row += width
            }
        }
    }
}

/// What is dropped of a block of rows in one layer.
struct LayerDropout {
    let dropout: Dropout
    /// The layer's number, from 0.
    let layer: Int
    let rows: RowBlock

    /// - Parameter x: (rows, width), changed in place: values, or their gradients.
    func apply(_ site: DrawSite, _ x: UnsafeMutablePointer<Float>, width: Int, kernels: KernelSet) {
        dropout.apply(site, layer: layer, rows, x, width: width, kernels: kernels)
    }
}
