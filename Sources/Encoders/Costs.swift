// What an encoder's work costs, for dealing documents out to ranks and for progress.

import Attention
import Matrices
import Plans
import Tiles

extension EncoderConfiguration {
    /// The columns of the inner layer: both halves where it is gated.
    var innerWidth: Int { intermediateSize * (isGated ? 2 : 1) }

    /// The distinct windows of the layers, in the order in which they come; nil is all keys.
    var windows: [Int?] {
        attention.reduce(into: []) { if !$0.contains($1.window) { $0.append($1.window) } }
    }

    static func mask(window: Int?) -> Mask { window.map { .window(left: $0, right: $0) } ?? .full }

    /// Floating-point operations of one token in the dense layers of one block.
    public var denseFlopPerToken: Double {
        let hidden = Double(hiddenSize)
        return 2 * (4 * hidden * hidden + hidden * Double(innerWidth + intermediateSize))
    }
}

extension EncoderRun {
    /// The modelled cost of each tile of a batch, all layers together.
    static func costs(lengths: [Int], configuration: EncoderConfiguration) -> [Double] {
        let shapes = lengths.map { SequenceShape(length: $0) }
        var costs: [Double] = []
        // The order of the sum is the same on every rank, and so is what follows from it.
        for window in configuration.windows {
            let count = configuration.attention.count { $0.window == window }
            let ofKind = AttentionJob.costs(
                shapes: shapes, mask: EncoderConfiguration.mask(window: window), heads: configuration.heads,
                denseFlopPerToken: configuration.denseFlopPerToken)
            costs = costs.isEmpty ? ofKind.map { $0 * Double(count) } : zip(costs, ofKind).map { $0 + $1 * Double(count) }
        }
        return costs
    }

    /// Deals documents out to ranks.
    /// - Parameters:
    ///   - layout: nil: `contiguous`, unless its largest modelled cost of a rank is more than a twentieth above the mean and that
    ///     of `balanced` is smaller; where `balanced` keeps documents whole, it is taken unless `contiguous` does so too and
    ///     is as even.
    ///   - speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], configuration: EncoderConfiguration, layout: Layout?, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        func sharding(_ layout: Layout, _ costs: [Double]?) -> Sharding {
            Sharding(lengths: lengths, layout: layout, rankCount: rankCount, costs: costs, speeds: speeds)
        }
        if let layout { return sharding(layout, layout == .balanced ? costs(lengths: lengths, configuration: configuration) : nil) }
        let contiguous = sharding(.contiguous, nil)
        if rankCount == 1 { return contiguous }
        let costs = costs(lengths: lengths, configuration: configuration)
        let largest = contiguous.largest(of: costs)
        let balanced = sharding(.balanced, costs)
        let itsLargest = balanced.largest(of: costs)
        if balanced.keepsSequencesWhole { return contiguous.keepsSequencesWhole && largest <= 1.001 * itsLargest ? contiguous : balanced }
        if largest <= 1.05 * costs.reduce(0, +) / Double(rankCount) { return contiguous }
        return itsLargest < largest ? balanced : contiguous
    }

    /// Deals documents out to ranks.
    /// - Parameter speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], encoder: Encoder, layout: Layout?, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        sharding(lengths: lengths, configuration: encoder.configuration, layout: layout, rankCount: rankCount, speeds: speeds)
    }

    /// The attention of the layers that see most, over a batch of documents; what the others see is in
    /// `EncoderConfiguration.surroundings`.
    /// - Parameters: as `sharding`.
    public static func job(
        lengths: [Int], configuration: EncoderConfiguration, element: ElementKind, layout: Layout?, rankCount: Int,
        speeds: [Double]? = nil
    ) -> AttentionJob {
        let sharding = sharding(lengths: lengths, configuration: configuration, layout: layout, rankCount: rankCount, speeds: speeds)
        let window = configuration.windows.contains(nil) ? nil : configuration.windows.compactMap { $0 }.max()
        var job = AttentionJob(
            shapes: lengths.map { SequenceShape(length: $0) }, queries: sharding, keys: sharding,
            mask: EncoderConfiguration.mask(window: window), heads: configuration.heads)
        job.element = element
        return job
    }

    /// Floating-point operations of a batch, all ranks together: dense layers and attention.
    public static func flop(lengths: [Int], configuration: EncoderConfiguration) -> Double {
        lengths.reduce(0.0) { sum, length in
            let n = Double(length)
            let pairs = configuration.attention.reduce(0.0) { $0 + visiblePairs(n, window: $1.window) }
            return sum + n * configuration.denseFlopPerToken * Double(configuration.layerCount) + 4 * pairs * Double(configuration.hiddenSize)
        }
    }

    private static func visiblePairs(_ n: Double, window: Int?) -> Double {
        guard let window, Double(window) < n else { return n * n }
        let w = Double(window)
        return n * (2 * w + 1) - w * (w + 1)
    }
}

extension Sharding {
    /// The largest sum of a rank's tiles.
    /// - Parameter costs: of every tile.
    fileprivate func largest(of costs: [Double]) -> Double {
        (0..<rankCount).map { rank in tiles(of: Rank(rank)).reduce(0) { $0 + costs[$1] } }.max() ?? 0
    }
}
