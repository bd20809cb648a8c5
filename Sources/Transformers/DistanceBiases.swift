// Biases by the distance of query and key, as the families define them, for the score modifiers of the tile kernel.

import Attention
import CLibrary
import Files

extension EncoderConfiguration {
    /// The shape of the table of learned biases by distance, if there is one.
    var distanceBiasShape: [Int]? {
        if case .buckets(let count, _) = distanceBias { [count, headCount] } else { nil }
    }
}

extension ScoreModifiers {
    /// What an encoder's layers do to their scores; `path` is where a learned bias is.
    init(_ configuration: EncoderConfiguration, _ path: ParameterPath) throws(FileError) {
        self.init()
        switch configuration.distanceBias {
        case nil: break
        case .alibi: alibiSlopes = Self.alibiSlopes(heads: configuration.headCount)
        case .buckets(let count, let maximumDistance):
            let table = try path["weight"].read(shape: configuration.distanceBiasShape ?? [])
            relativeBias = Self.bucketBias(
                table: table, heads: configuration.headCount, buckets: count, maximumDistance: maximumDistance)
        }
    }

    /// The slopes of ALiBi: 2^(−8/n), 2^(−16/n), … for n heads, n a power of two; for other numbers those of the power
    /// below, and then every second one of the power above.
    package static func alibiSlopes(heads: Int) -> [Float] {
        func powers(_ count: Int) -> [Float] {
            let start = exp2(-8 / Double(count))
            return (1...count).map { Float(pow(start, Double($0))) }
        }
        var below = 1
        while below * 2 <= heads { below *= 2 }
        if below == heads { return powers(heads) }
        let above = powers(2 * below)
        return powers(below) + (0..<heads - below).map { above[2 * $0] }
    }

    /// T5's buckets (Raffel et al. 2020, §2.1) as a table over distances, which is constant from the largest one on.
    /// - Parameter table: (buckets, heads).
    static func bucketBias(table: [Float], heads: Int, buckets: Int, maximumDistance: Int) -> RelativeBias {
        let reach = maximumDistance
        var rows: [Float] = []
        for head in 0..<heads {
            for distance in -reach...reach {
                rows.append(
                    table[bucket(of: distance, buckets: buckets, maximumDistance: maximumDistance) * heads + head])
            }
        }
        return RelativeBias(table: rows, reach: reach)
    }

    /// The backward of `bucketBias`, for one tile of queries: a bucket gets what its distances got, ascending.
    /// - Parameters:
    ///   - distances: (heads, 2·reach + 1)
    ///   - table: (buckets, heads), overwritten.
    static func bucketGradient(
        _ distances: UnsafePointer<Float>, heads: Int, buckets: Int, maximumDistance reach: Int,
        into table: UnsafeMutablePointer<Float>
    ) {
        table.update(repeating: 0, count: buckets * heads)
        for distance in -reach...reach {
            let bucket = bucket(of: distance, buckets: buckets, maximumDistance: reach)
            for head in 0..<heads {
                table[bucket * heads + head] += distances[head * (2 * reach + 1) + reach + distance]
            }
        }
    }

    /// The bucket of the distance j − i: one each for small ones, then logarithmically wider ones; those of keys after
    /// the query in the second half.
    static func bucket(of distance: Int, buckets: Int, maximumDistance: Int) -> Int {
        let half = buckets / 2
        let exact = half / 2
        let size = abs(distance)
        let side = distance > 0 ? half : 0
        if size < exact { return side + size }
        // In float32, as transformers computes it: at a bucket's edge the rounding decides.
        let ratio = logf(Float(size) / Float(exact)) / Float(log(Double(maximumDistance) / Double(exact)))
        return side + min(half - 1, exact + Int(ratio * Float(half - exact)))
    }
}
