// The relative positions of disentangled attention, and what they are to each layer.

import Attention
import CLibrary
import Files
import Matrices

extension DisentangledPositions {
    /// The row of the table for a query that stands `distance` after a key.
    package func row(_ distance: Int) -> Int {
        var place = distance
        if let buckets {
            let half = buckets / 2
            if abs(distance) > half {
                // In float32, as transformers computes it: at a bucket's edge the rounding decides.
                let ratio =
                    logf(Float(abs(distance)) / Float(half)) / logf(Float(Double(maximumDistance - 1) / Double(half)))
                place = (Int((ratio * Float(half - 1)).rounded(.up)) + half) * distance.signum()
            }
        }
        return max(0, min(2 * span - 1, place + span))
    }

    /// The rows as the tile kernel looks them up: up to the distance from which on they are the table's first and last.
    var positions: RelativePositions {
        var reach = 1
        while row(-reach) > 0 || row(reach) < 2 * span - 1 { reach += 1 }
        return RelativePositions(count: 2 * span, reach: reach, position: row)
    }
}

/// The table of relative positions, from which each layer makes its keys and queries.
struct PositionEmbeddings: Sendable {
    let positions: RelativePositions
    private let shape: DisentangledPositions
    /// (2·span, hiddenSize), the norm applied.
    private let rows: [Float]

    init(
        _ root: ParameterPath, _ shape: DisentangledPositions, _ configuration: EncoderConfiguration,
        _ names: ParameterNames, _ kernels: KernelSet
    ) throws(FileError) {
        let width = configuration.hiddenSize
        self.shape = shape
        positions = shape.positions
        var rows = try root[names.relativePositions]["weight"].read(shape: [2 * shape.span, width])
        if shape.hasNorm {
            let norm = try Norm(root[names.relativePositionNorm], width: width, configuration, hasBias: true)
            rows.withUnsafeMutableBufferPointer { rows in
                guard let start = rows.baseAddress else { return }
                norm.forward(rows: 2 * shape.span, start, into: start, kernels: kernels)
            }
        }
        self.rows = rows
    }

    /// What the positions are to the layer at `path`.
    func contents(
        _ path: ParameterPath, query: Dense, key: Dense, _ heads: HeadShape, _ configuration: EncoderConfiguration,
        _ names: ParameterNames,
        _ element: ElementKind, _ kernels: KernelSet
    ) throws(FileError) -> PositionContents {
        let width = configuration.hiddenSize
        func projection(_ shared: Dense, _ own: String, if wanted: Bool) throws(FileError) -> (
            () throws(FileError) -> [Float]
        )? {
            if !wanted { return nil }
            // Needed for this alone, so not in the storage.
            let own = ParameterPath(source: path.source, storage: WeightStorage(), name: path[own].name)
            if !shape.sharesProjections {
                try own["weight"].check(shape: [width, width])
                try own["bias"].check(shape: [width])
            }
            return { () throws(FileError) -> [Float] in
                let dense =
                    shape.sharesProjections
                    ? shared : try Dense(own, inputs: width, outputs: width, element: element, kernels: kernels)
                var result = [Float](repeating: 0, count: rows.count)
                rows.withUnsafeBufferPointer { source in
                    result.withUnsafeMutableBufferPointer { result in
                        guard let source = source.baseAddress, let result = result.baseAddress else { return }
                        dense.forward(rows: 2 * shape.span, source, into: result, kernels: kernels)
                    }
                }
                return result
            }
        }
        return try PositionContents(
            keys: try projection(key, names.positionKey, if: shape.hasKeys),
            queries: try projection(query, names.positionQuery, if: shape.hasQueries),
            positions: positions, heads: heads, scale: configuration.scoreScale(heads), element: element,
            kernels: kernels
        ) { (floats: Int, fill: (UnsafeMutablePointer<Float>) throws(FileError) -> Void) throws(FileError) in
            try path.storage.block(floats, fill: fill)
        }
    }
}
