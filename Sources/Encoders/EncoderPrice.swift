// What an encoder does and holds beside its attention, for plans and for the refusal of what memory cannot hold.

import Attention
import Checkpoints
import Matrices
import Plans
import Tiles

extension EncoderConfiguration {
    /// The head shape of its self-attention.
    public var heads: HeadShape { HeadShape(heads: headCount, headDimension: headDimension) }

    /// What a rank of `threads` threads does and holds beside attention.
    ///
    /// A token has its hidden state and its query, which the output replaces; a thread has room for a block of rows.
    /// - Parameter weights: whether the weights count, or are there already.
    public func surroundings(_ element: ElementKind, threads: Int = 1, weights: Bool = true) throws(FileError) -> Surroundings {
        var result = Surroundings()
        result.layers = windows.map { window in
            Surroundings.Layers(mask: Self.mask(window: window), count: attention.count { $0.window == window })
        }
        result.denseFlopPerToken = denseFlopPerToken
        result.bytesPerToken = Double(2 * 4 * hiddenSize)
        result.bytesPerNode = weights ? try weightBytes(element) : 0
        result.bytesPerRank = Double(threads) * Double(TileGrid.tileSize) * 4 * (3 * Double(hiddenSize) + Double(innerWidth))
        return result
    }
}
