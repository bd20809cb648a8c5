// Norms, dense layers and attention by their definitions, in plain loops.

import Attention
import Files
import Matrices

/// The rows of one document: (rows, width).
struct ReferenceRows<Scalar: ReferenceScalar>: Sendable {
    var width: Int
    var values: [Scalar]

    var count: Int { values.count / width }

    init(count: Int, width: Int) {
        self.width = width
        values = Array(repeating: 0, count: count * width)
    }

    /// Calls `body` with each row to be written, on all threads.
    mutating func fill(_ threads: ThreadPool, _ body: (_ row: Int, UnsafeMutableBufferPointer<Scalar>) -> Void) {
        let (width, count) = (width, count)
        values.withUnsafeMutableBufferPointer { values in
            threads.forEach(count) { row, _ in
                // Disjoint: each index has its own row.
                body(row, UnsafeMutableBufferPointer(rebasing: values[row * width..<(row + 1) * width]))
            }
        }
    }

    static func + (left: Self, right: Self) -> Self {
        var sum = left
        for index in sum.values.indices { sum.values[index] += right.values[index] }
        return sum
    }
}

/// y = W·x + b.
struct ReferenceDense<Scalar: ReferenceScalar>: Sendable {
    let inputs: Int
    let outputs: Int
    /// (inputs, outputs), so that the loop over outputs is the inner one and each sum still runs over inputs in order.
    private let columns: [Scalar]
    private let bias: [Float]?

    /// - Parameter rows: (outputs, inputs), as checkpoints store them.
    init(rows: ArraySlice<Float>, bias: [Float]?, inputs: Int, outputs: Int) {
        self.inputs = inputs
        self.outputs = outputs
        self.bias = bias
        var columns = [Scalar](repeating: 0, count: inputs * outputs)
        for output in 0..<outputs {
            for input in 0..<inputs {
                columns[input * outputs + output] = Scalar(rows[rows.startIndex + output * inputs + input])
            }
        }
        self.columns = columns
    }

    func apply(_ x: ReferenceRows<Scalar>, _ threads: ThreadPool) -> ReferenceRows<Scalar> {
        var y = ReferenceRows<Scalar>(count: x.count, width: outputs)
        columns.withUnsafeBufferPointer { columns in
            y.fill(threads) { row, target in
                for input in 0..<inputs {
                    let factor = x.values[row * inputs + input]
                    for output in 0..<outputs { target[output] += factor * columns[input * outputs + output] }
                }
                if let bias { for output in 0..<outputs { target[output] += Scalar(bias[output]) } }
            }
        }
        return y
    }
}

/// (x − mean) / √(variance + ε)·weight + bias; of the root mean square x / √(mean square + ε)·weight + bias.
struct ReferenceNorm: Sendable {
    let kind: NormKind
    let weight: [Float]
    let bias: [Float]?
    let epsilon: Float

    init(_ path: ParameterPath, width: Int, _ configuration: EncoderConfiguration, hasBias: Bool? = nil)
        throws(FileError)
    {
        kind = configuration.normKind
        weight = try path["weight"].read(shape: [width])
        bias = hasBias ?? configuration.biases.norms ? try path["bias"].read(shape: [width]) : nil
        epsilon = configuration.layerNormEpsilon
    }

    /// - Parameter x: rows of the norm's width, or of several of it, each by itself.
    func apply<Scalar: ReferenceScalar>(_ x: ReferenceRows<Scalar>, _ threads: ThreadPool) -> ReferenceRows<Scalar> {
        var y = x
        y.width = weight.count
        y.fill(threads) { _, row in
            let mean = kind == .layer ? row.reduce(0, +) / Scalar(row.count) : 0
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Scalar(row.count)
            let deviation = (variance + Scalar(epsilon)).squareRoot()
            for column in row.indices {
                row[column] = (row[column] - mean) / deviation * Scalar(weight[column]) + Scalar(bias?[column] ?? 0)
            }
        }
        y.width = x.width
        return y
    }
}

/// Attention of one layer.
struct ReferenceAttention<Scalar: ReferenceScalar>: Sendable {
    let heads: HeadShape
    let scale: Scalar
    let mask: Mask
    /// What is added to a scaled score: (head, query, key).
    let bias: @Sendable (Int, Int, Int) -> Scalar
    /// Keys and queries of relative positions, and the row of a query that stands so far after a key.
    var positionKeys: ReferenceRows<Scalar>?
    var positionQueries: ReferenceRows<Scalar>?
    var positionRow: @Sendable (Int) -> Int = { _ in 0 }

    /// softmax(q·kᵀ·scale + bias)·v, head by head.
    func apply(
        _ q: ReferenceRows<Scalar>, _ k: ReferenceRows<Scalar>, _ v: ReferenceRows<Scalar>, _ threads: ThreadPool
    ) -> ReferenceRows<Scalar> {
        let (dimension, valueDimension) = (heads.headDimension, heads.valueDimension)
        var result = ReferenceRows<Scalar>(count: q.count, width: heads.queryHeads * valueDimension)
        let shape = SequenceShape(length: q.count)
        func product(_ a: ReferenceRows<Scalar>, _ i: Int, _ ofA: Int, _ b: ReferenceRows<Scalar>, _ j: Int, _ ofB: Int)
            -> Scalar
        {
            var sum: Scalar = 0
            let (x, y) = (i * a.width + ofA * dimension, j * b.width + ofB * dimension)
            for channel in 0..<dimension { sum += a.values[x + channel] * b.values[y + channel] }
            return sum
        }
        result.fill(threads) { i, output in
            let keys = (0..<k.count).filter { mask.sees(row: i, key: $0, in: shape) }
            for head in 0..<heads.queryHeads {
                let keyHead = head / heads.groupSize
                let scores = keys.map { j in
                    var score = product(q, i, head, k, j, keyHead)
                    if let positionKeys { score += product(q, i, head, positionKeys, positionRow(i - j), head) }
                    if let positionQueries {
                        score += product(positionQueries, positionRow(i - j), head, k, j, keyHead)
                    }
                    return score * scale + bias(head, i, j)
                }
                let top = scores.max() ?? 0
                let weights = scores.map { Scalar.exponential($0 - top) }
                let sum = weights.reduce(0, +)
                for (weight, j) in zip(weights, keys) {
                    for channel in 0..<valueDimension {
                        output[head * valueDimension + channel] +=
                            weight / sum * v.values[j * v.width + keyHead * valueDimension + channel]
                    }
                }
            }
        }
        return result
    }
}
