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
    /// Deals documents out to ranks.
    /// - Parameter speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], configuration: EncoderConfiguration, layout: Layout, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        var costs: [Double]?
        if layout == .balanced {
            let shapes = lengths.map { SequenceShape(length: $0) }
            // The order of the sum is the same on every rank, and so is the sharding.
            for window in configuration.windows {
                let count = configuration.attention.count { $0.window == window }
                let ofKind = AttentionJob.costs(
                    shapes: shapes, mask: EncoderConfiguration.mask(window: window), heads: configuration.heads,
                    denseFlopPerToken: configuration.denseFlopPerToken)
                let before = costs ?? Array(repeating: 0, count: ofKind.count)
                costs = zip(before, ofKind).map { $0 + $1 * Double(count) }
            }
        }
        return Sharding(lengths: lengths, layout: layout, rankCount: rankCount, costs: costs, speeds: speeds)
    }

    /// Deals documents out to ranks.
    /// - Parameter speeds: the ranks' relative speeds, for `balanced`.
    public static func sharding(
        lengths: [Int], encoder: Encoder, layout: Layout, rankCount: Int, speeds: [Double]? = nil
    ) -> Sharding {
        sharding(lengths: lengths, configuration: encoder.configuration, layout: layout, rankCount: rankCount, speeds: speeds)
    }

    /// The attention of the layers that see most, over a batch of documents: what a plan is priced and chosen for.
    /// - Parameter speeds: the ranks' relative speeds, for `balanced`.
    public static func job(
        lengths: [Int], configuration: EncoderConfiguration, element: ElementKind, layout: Layout, rankCount: Int,
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
