// What an encoder does and holds beside its attention, for plans and for the refusal of what memory cannot hold.

import Attention
import Files
import Matrices
import Plans
import Tiles

extension EncoderConfiguration {
    /// What a rank of `threads` threads does and holds beside attention.
    ///
    /// A token has its hidden state and its query, which the output replaces; a thread has room for a block of rows.
    /// - Parameters:
    ///   - element: what the weights of dense layers are stored in.
    ///   - threads: those of a rank.
    ///   - weights: whether the weights count, or are there already.
    public func footprint(_ element: ElementKind, threads: Int = 1, weights: Bool = true) throws(FileError)
        -> Footprint
    {
        var result = Footprint()
        result.layers = kinds.map { kind in
            Footprint.Layers(mask: kind.mask, heads: kind.heads, count: attention.count { $0.kind == kind })
        }
        result.denseFlopPerToken = denseFlopPerToken
        result.bytesPerToken = Double(4 * (hiddenSize + widestQueries))
        result.bytesPerNode = weights ? try weightBytes(element) : 0
        result.bytesPerRank =
            Double(threads) * Double(TileGrid.tileSize) * 4 * (3 * Double(hiddenSize) + Double(innerWidth))
        return result
    }
}
