// What an encoder does and holds beside its attention, for plans and for the refusal of what memory cannot hold.

import Attention
import Matrices
import Plans
import Tiles

extension EncoderConfiguration {
    /// The head shape of its self-attention.
    public var heads: HeadShape { HeadShape(heads: headCount, headDimension: headDimension) }

    /// Bytes of the weights in memory: packed dense layers in `element`, everything else in float32.
    public func weightBytes(_ element: ElementKind) -> Double {
        func dense(_ inputs: Int, _ outputs: Int) -> Double {
            Double(element.slots(inputs)) * Double((outputs + 15) / 16 * 16) * 4 + Double(outputs) * 4
        }
        let layer = 4 * dense(hiddenSize, hiddenSize) + dense(hiddenSize, innerWidth) + dense(intermediateSize, hiddenSize)
            + 4 * Double(hiddenSize) * 4
        // Layers that several use are held once.
        return Double(vocabularySize + positionRows + tokenTypeCount + 2) * Double(embeddingSize) * 4
            + Double(Set(layerSources).count) * layer
    }

    /// What a rank of `threads` threads does and holds beside attention.
    ///
    /// A token has its hidden state and its query, which the output replaces; a thread has room for a block of rows.
    /// - Parameter weights: whether the weights count, or are there already.
    public func surroundings(_ element: ElementKind, threads: Int = 1, weights: Bool = true) -> Surroundings {
        var result = Surroundings()
        result.layers = layerCount
        result.denseFlopPerToken = denseFlopPerToken
        result.bytesPerToken = Double(2 * 4 * hiddenSize)
        result.bytesPerRank = (weights ? weightBytes(element) : 0)
            + Double(threads) * Double(TileGrid.tileSize) * 4 * (3 * Double(hiddenSize) + Double(innerWidth))
        return result
    }
}
