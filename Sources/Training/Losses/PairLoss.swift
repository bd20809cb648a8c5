// Losses of pairs of vectors: every other pair of the step is a negative, or each pair has a score.

import Matrices

/// The vectors of a step's pairs, in the order of the step, and their gradients.
public struct PairVectors: Sendable, Equatable {
    /// How many pairs.
    public let pairs: Int
    /// The width of a vector.
    public let width: Int
    /// (pairs, width)
    public var first: [Float]
    /// (pairs, width)
    public var second: [Float]

    /// - Precondition: both sides hold `pairs` vectors of that width.
    public init(pairs: Int, width: Int, first: [Float], second: [Float]) {
        precondition(first.count == pairs * width && second.count == pairs * width, "a vector for every text")
        (self.pairs, self.width, self.first, self.second) = (pairs, width, first, second)
    }
}

/// A loss of pairs of vectors by their cosines.
///
/// Vectors come as pooling gives them; their norms are part of the loss, as sentence-transformers' `cos_sim`. Sums over
/// the pairs of a step run over all of them in their order, whichever rank holds them: each rank computes the whole,
/// which is little beside the encoder.
public enum PairLoss: Sendable, Equatable {
    /// Cross entropy of a text against the second texts of all pairs, its own being the right one: scores are cosines
    /// over the temperature. This is sentence-transformers' `MultipleNegativesRankingLoss`, whose `scale` is one over the
    /// temperature; symmetric, the mean of both directions, its `MultipleNegativesSymmetricRankingLoss`.
    case negatives(temperature: Float, isSymmetric: Bool)
    /// The mean of (cosine − score)², as its `CosineSimilarityLoss`.
    case scores([Float])

    /// The mean loss over the pairs, and the gradients of weight × loss.
    /// - Parameters:
    ///   - vectors: of all pairs of the step.
    ///   - weight: of the task.
    public func differentiate(_ vectors: PairVectors, weight: Double, threads: ThreadPool, kernels: KernelSet) -> (
        loss: Double, gradients: PairVectors
    ) {
        let first = UnitVectors(vectors.first, width: vectors.width)
        let second = UnitVectors(vectors.second, width: vectors.width)
        var result = vectors
        let loss: Double
        switch self {
        case .negatives(let temperature, let isSymmetric):
            let scale = 1 / temperature
            var square = Square(first.values, second.values, count: vectors.pairs, threads: threads, kernels: kernels)
            let direct = square.crossEntropy(scale: scale, weight: isSymmetric ? weight / 2 : weight)
            if isSymmetric {
                var other = Square(
                    second.values, first.values, count: vectors.pairs, threads: threads, kernels: kernels)
                loss = (direct + other.crossEntropy(scale: scale, weight: weight / 2)) / 2
                let turned = other.transposed()
                for index in square.values.indices { square.values[index] += turned[index] }
            } else {
                loss = direct
            }
            result.first = square.product(with: second.values, width: vectors.width)
            square.values = square.transposed()
            result.second = square.product(with: first.values, width: vectors.width)
        case .scores(let scores):
            precondition(scores.count == vectors.pairs, "a score for every pair")
            loss = Self.squaredErrors(first, second, scores, weight: weight, into: &result)
        }
        first.throughNorm(&result.first)
        second.throughNorm(&result.second)
        return (loss, result)
    }

    private static func squaredErrors(
        _ first: UnitVectors, _ second: UnitVectors, _ scores: [Float], weight: Double,
        into gradients: inout PairVectors
    ) -> Double {
        var sum = 0.0
        for pair in scores.indices {
            let row = pair * first.width..<(pair + 1) * first.width
            var cosine = 0.0
            for index in row { cosine += Double(first.values[index]) * Double(second.values[index]) }
            let difference = cosine - Double(scores[pair])
            sum += difference * difference
            let factor = Float(2 * weight * difference / Double(scores.count))
            for index in row {
                gradients.first[index] = factor * second.values[index]
                gradients.second[index] = factor * first.values[index]
            }
        }
        return sum / Double(max(1, scores.count))
    }
}

/// Vectors divided by their norms.
private struct UnitVectors {
    let width: Int
    /// (rows, width)
    var values: [Float]
    /// (rows), at least 1e-12, as sentence-transformers has it.
    var norms: [Float]

    init(_ vectors: [Float], width: Int) {
        self.width = width
        values = vectors
        norms = []
        for first in stride(from: 0, to: vectors.count, by: max(1, width)) {
            let sum = vectors[first..<first + width].withUnsafeBufferPointer { row in
                row.baseAddress.map { lanedSumOfSquares($0, width) } ?? 0
            }
            let norm = max(Float(sum.squareRoot()), 1e-12)
            norms.append(norm)
            for index in first..<first + width { values[index] = vectors[index] / norm }
        }
    }

    /// The gradient of the vectors from that of their directions: (g − u·(u·g))/‖x‖.
    func throughNorm(_ gradients: inout [Float]) {
        for (row, norm) in norms.enumerated() {
            let columns = row * width..<(row + 1) * width
            var along = 0.0
            for index in columns { along += Double(values[index]) * Double(gradients[index]) }
            for index in columns { gradients[index] = (gradients[index] - Float(along) * values[index]) / norm }
        }
    }
}

/// A number for every pair of a first and a second text: (count, count).
private struct Square {
    var values: [Float]
    let count: Int
    let threads: ThreadPool
    let kernels: KernelSet

    /// The products of rows of `first` with rows of `second`.
    init(_ first: [Float], _ second: [Float], count: Int, threads: ThreadPool, kernels: KernelSet) {
        (self.count, self.threads, self.kernels) = (count, threads, kernels)
        values = Self.products(first, second, rows: count, outputs: count, threads, kernels)
    }

    /// x·Wᵀ, each row by itself.
    private static func products(
        _ x: [Float], _ weights: [Float], rows: Int, outputs: Int, _ threads: ThreadPool, _ kernels: KernelSet
    ) -> [Float] {
        guard rows > 0 else { return [] }
        let inputs = x.count / rows
        let (source, result) = (AlignedBuffer(count: x.count), AlignedBuffer(count: rows * outputs))
        source.pointer.update(from: x, count: x.count)
        let matrix = weights.withUnsafeBufferPointer {
            PackedMatrix(weights: $0, inputs: inputs, outputs: outputs, kernels: kernels)
        }
        let block = 16
        threads.forEach((rows + block - 1) / block) { index, _ in
            let first = index * block
            // Disjoint: each index has its own rows of the result.
            matrix.multiply(
                rows: min(block, rows - first), x: source.pointer + first * inputs, xStride: inputs,
                y: result.pointer + first * outputs, yStride: outputs, kernels: kernels)
        }
        return Array(UnsafeBufferPointer(start: result.pointer, count: rows * outputs))
    }

    /// The mean cross entropy of the rows, each of which should have its diagonal; the values become the gradient, by the
    /// cosines, of weight × loss.
    mutating func crossEntropy(scale: Float, weight: Double) -> Double {
        let factor = Float(weight / Double(max(1, count)))
        var sum = 0.0
        let (count, kernels) = (count, kernels)
        values.withUnsafeMutableBufferPointer { values in
            guard let start = values.baseAddress else { return }
            for row in 0..<count {
                let scores = start + row * count
                for column in 0..<count { scores[column] *= scale }
                sum += RowLoss.crossEntropy.differentiate(
                    scores, outputs: count, .index(row), factor: factor, kernels: kernels)
                for column in 0..<count { scores[column] *= scale }
            }
        }
        return sum / Double(max(1, count))
    }

    func transposed() -> [Float] {
        var result = values
        for row in 0..<count { for column in 0..<count { result[column * count + row] = values[row * count + column] } }
        return result
    }

    /// The values times vectors: (count, width).
    func product(with vectors: [Float], width: Int) -> [Float] {
        var columns = vectors
        for row in 0..<count {
            for column in 0..<width { columns[column * count + row] = vectors[row * width + column] }
        }
        return Self.products(values, columns, rows: count, outputs: width, threads, kernels)
    }
}
