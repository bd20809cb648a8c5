// What an encoder's work costs, for dealing documents out to ranks and for progress.

import Attention
import Matrices
import Plans
import Tiles

extension EncoderConfiguration {
    /// The columns of the inner layer: both halves where it is gated.
    var innerWidth: Int { intermediateSize * (isGated ? 2 : 1) }

    /// The distinct kinds of attention of the layers, in the order in which they come.
    var kinds: [AttentionKind] {
        attention.reduce(into: []) { if !$0.contains($1.kind) { $0.append($1.kind) } }
    }

    /// The floats of a row's queries, of the layer that has most.
    var widestQueries: Int { attention.map { $0.heads.queryHeads * $0.heads.headDimension }.max() ?? 0 }
    /// The floats of a row's attention, before its dense layer.
    var widestAttended: Int { attention.map { $0.heads.queryHeads * $0.heads.valueDimension }.max() ?? 0 }
    /// The floats of a row of keys, of values, of hidden states or of embeddings, whichever has most.
    var widestProjection: Int {
        attention.map { $0.heads.keyValueHeads * max($0.heads.headDimension, $0.heads.valueDimension) }.reduce(
            max(hiddenSize, embeddingSize), max)
    }

    /// Floating-point operations of one token in the dense layers of one block; the mean of all.
    public var denseFlopPerToken: Double {
        let hidden = Double(hiddenSize)
        let projected = attention.reduce(0.0) { sum, pattern in
            let heads = pattern.heads
            return sum + Double((heads.queryHeads + heads.keyValueHeads) * (heads.headDimension + heads.valueDimension))
        }
        return 2 * (hidden * projected / Double(attention.count) + hidden * Double(innerWidth + intermediateSize))
    }
}

extension EncoderRun {
    /// The modelled cost of each tile of a batch, all layers together.
    package static func costs(lengths: [Int], configuration: EncoderConfiguration) -> [Double] {
        let shapes = lengths.map { SequenceShape(length: $0) }
        var costs: [Double] = []
        // The order of the sum is the same on every rank, and so is what follows from it.
        for kind in configuration.kinds {
            let count = configuration.attention.count { $0.kind == kind }
            let ofKind = AttentionProblem.costs(
                shapes: shapes, mask: kind.mask, heads: kind.heads, denseFlopPerToken: configuration.denseFlopPerToken)
            costs =
                costs.isEmpty ? ofKind.map { $0 * Double(count) } : zip(costs, ofKind).map { $0 + $1 * Double(count) }
        }
        return costs
    }

    /// Deals documents out to ranks.
    /// - Parameters:
    ///   - lengths: the tokens of each document.
    ///   - configuration: that of the encoder, by which costs are modelled.
    ///   - layout: nil: `contiguous`, unless its largest modelled cost of a rank is more than a twentieth above the
    ///     mean and that of `balanced` is smaller; where `balanced` keeps documents whole, it is taken unless
    ///     `contiguous` does so too and is as even.
    ///   - rankCount: how many ranks there are.
    ///   - speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], configuration: EncoderConfiguration, layout: Layout?, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        func sharding(_ layout: Layout, _ costs: [Double]?) -> Sharding {
            Sharding(lengths: lengths, layout: layout, rankCount: rankCount, costs: costs, speeds: speeds)
        }
        if let layout {
            return sharding(layout, layout == .balanced ? costs(lengths: lengths, configuration: configuration) : nil)
        }
        let contiguous = sharding(.contiguous, nil)
        if rankCount == 1 { return contiguous }
        let costs = costs(lengths: lengths, configuration: configuration)
        let largest = contiguous.largest(of: costs)
        let balanced = sharding(.balanced, costs)
        let itsLargest = balanced.largest(of: costs)
        if balanced.keepsSequencesWhole {
            return contiguous.keepsSequencesWhole && largest <= 1.001 * itsLargest ? contiguous : balanced
        }
        if largest <= 1.05 * costs.reduce(0, +) / Double(rankCount) { return contiguous }
        return itsLargest < largest ? balanced : contiguous
    }

    /// Deals documents out to ranks.
    /// - Parameters:
    ///   - lengths: the tokens of each document.
    ///   - encoder: the one that is to run over them.
    ///   - layout: nil: as in ``sharding(lengths:configuration:layout:rankCount:speeds:)``.
    ///   - rankCount: how many ranks there are.
    ///   - speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], encoder: Encoder, layout: Layout?, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        sharding(
            lengths: lengths, configuration: encoder.configuration, layout: layout, rankCount: rankCount, speeds: speeds
        )
    }

    /// The attention of the layers that see most, over a batch of documents; what the others see is in
    /// `EncoderConfiguration.surroundings`.
    /// - Parameters: as `sharding`.
    public static func problem(
        lengths: [Int], configuration: EncoderConfiguration, element: ElementKind, layout: Layout?, rankCount: Int,
        speeds: [Double]? = nil
    ) -> AttentionProblem {
        let sharding = sharding(
            lengths: lengths, configuration: configuration, layout: layout, rankCount: rankCount, speeds: speeds)
        let shapes = lengths.map { SequenceShape(length: $0) }
        // Of a long document: what is the most of it is the most of any.
        let longest = shapes.max { $0.keys < $1.keys } ?? SequenceShape(length: 0)
        let kinds = configuration.kinds
        let most = kinds.max { $0.mask.visiblePairs(in: longest) < $1.mask.visiblePairs(in: longest) } ?? kinds[0]
        var problem = AttentionProblem(
            shapes: shapes, queries: sharding, keys: sharding, mask: most.mask, heads: most.heads)
        problem.element = element
        return problem
    }

    /// Floating-point operations of a batch, all ranks together: dense layers and attention.
    public static func flop(lengths: [Int], configuration: EncoderConfiguration) -> Double {
        let dense = configuration.denseFlopPerToken * Double(configuration.layerCount)
        return Dictionary(grouping: lengths, by: { $0 }).sorted { $0.key < $1.key }.reduce(0.0) { sum, documents in
            let shape = SequenceShape(length: documents.key)
            let attention = configuration.kinds.reduce(0.0) { sum, kind in
                let layers = configuration.attention.count { $0.kind == kind }
                let flop = OperationShape.attend(kind.heads).flopPerPair * kind.heads.queryHeads
                return sum + Double(layers * flop) * Double(kind.mask.visiblePairs(in: shape))
            }
            return sum + Double(documents.value.count) * (Double(documents.key) * dense + attention)
        }
    }
}

extension Sharding {
    /// The largest sum of a rank's tiles.
    /// - Parameter costs: of every tile.
    fileprivate func largest(of costs: [Double]) -> Double {
        (0..<rankCount).map { rank in tiles(of: Rank(rank)).reduce(0) { $0 + costs[$1] } }.max() ?? 0
    }
}
