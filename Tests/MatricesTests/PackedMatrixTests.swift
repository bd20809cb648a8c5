// Dense layers: the product with packed weights against float64, and its independence of how rows are grouped.

import Matrices
import Testing

struct PackedMatrixTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        let rows: Int, inputs: Int, outputs: Int
        var testDescription: String { "\(rows) × \(inputs) → \(outputs)" }
    }

    static let shapes = [
        Shape(rows: 1, inputs: 1, outputs: 1), Shape(rows: 7, inputs: 33, outputs: 17),
        Shape(rows: 13, inputs: 384, outputs: 64), Shape(rows: 5, inputs: 385, outputs: 130),
        Shape(rows: 9, inputs: 1000, outputs: 72), Shape(rows: 200, inputs: 20, outputs: 70),
        Shape(rows: 3, inputs: 800, outputs: 48), Shape(rows: 0, inputs: 4, outputs: 4),
    ]

    static func multiply(_ set: KernelSet, _ matrix: PackedMatrix, _ x: [Float], rows: Int, xStride: Int, yStride: Int)
        -> [Float]
    {
        var y = [Float](repeating: guardValue, count: rows * yStride + 8)
        y.withUnsafeMutableBufferPointer { y in
            x.withUnsafeBufferPointer { x in
                if let x = x.baseAddress, let y = y.baseAddress {
                    matrix.multiply(rows: rows, x: x, xStride: xStride, y: y, yStride: yStride, kernels: set)
                }
            }
        }
        return y
    }

    @Test(
        "many inputs: the sums over stretches of 1,536 bytes of them, added in order",
        arguments: [ElementKind.float32, .bfloat16])
    func stretches(element: ElementKind) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let (rows, inputs, outputs, stretch) = (7, 1000, 83, 1536 / element.bytes)
        let weights = random.floats(inputs * outputs), x = random.floats(rows * inputs)
        func product(_ range: Range<Int>) -> [Float] {
            let part = (0..<outputs).flatMap {
                weights[$0 * inputs + range.lowerBound..<$0 * inputs + range.upperBound]
            }
            let matrix = part.withUnsafeBufferPointer {
                PackedMatrix(weights: $0, inputs: range.count, outputs: outputs, element: element, kernels: .best)
            }
            return Array(
                Self.multiply(
                    .best, matrix, Array(x[range.lowerBound...]), rows: rows, xStride: inputs, yStride: outputs)[
                        ..<(rows * outputs)])
        }
        var sum = product(0..<stretch)
        for first in stride(from: stretch, to: inputs, by: stretch) {
            for (place, value) in product(first..<min(inputs, first + stretch)).enumerated() { sum[place] += value }
        }
        #expect(product(0..<inputs).bitPatterns == sum.bitPatterns, "seed \(random.seed)")
    }

    @Test(
        "within its derived bound of the exact product, the same bits in every set, a row alone as among others",
        arguments: shapes)
    func products(shape: Shape) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let xStride = shape.inputs + 3, yStride = shape.outputs + 5
        let weights = random.floats(shape.inputs * shape.outputs), x = random.floats(shape.rows * xStride + 1)
        var first: [UInt32]?
        for set in kernelSets {
            let matrix = weights.withUnsafeBufferPointer {
                PackedMatrix(weights: $0, inputs: shape.inputs, outputs: shape.outputs, kernels: set)
            }
            let copy = matrix  // a copy shares the storage and its alignment
            let y = Self.multiply(set, copy, x, rows: shape.rows, xStride: xStride, yStride: yStride)
            #expect(y.bitPatterns == first ?? y.bitPatterns, "\(set.name), seed \(random.seed)")
            first = first ?? y.bitPatterns
            guard set == kernelSets[0] else { continue }
            for row in 0..<shape.rows {
                for column in 0..<shape.outputs {
                    var exact = 0.0, magnitude = 0.0
                    for k in 0..<shape.inputs {
                        let product = Double(x[row * xStride + k]) * Double(weights[column * shape.inputs + k])
                        exact += product
                        magnitude += abs(product)
                    }
                    let value = Double(y[row * yStride + column])
                    // A term is rounded in its own chain of 384, and its chain with each that follows.
                    if !(abs(value - exact) <= gamma(min(shape.inputs, 384) + (shape.inputs - 1) / 384) * magnitude
                        * 1.0001)
                    {
                        Issue.record("row \(row) column \(column): \(value), exact \(exact), seed \(random.seed)")
                    }
                }
            }
            for at in y.indices where at % yStride >= shape.outputs || at >= shape.rows * yStride {
                #expect(y[at] == guardValue, "beside the result at \(at)")
            }
        }
        let best = KernelSet.best
        let matrix = weights.withUnsafeBufferPointer {
            PackedMatrix(weights: $0, inputs: shape.inputs, outputs: shape.outputs, kernels: best)
        }
        let whole = Self.multiply(best, matrix, x, rows: shape.rows, xStride: xStride, yStride: yStride)
        for row in stride(from: 0, to: shape.rows, by: 3) {
            let one = Self.multiply(
                best, matrix, Array(x[(row * xStride)...]), rows: 1, xStride: xStride, yStride: yStride)
            #expect(
                one[0..<shape.outputs].map(\.bitPattern)
                    == whole[row * yStride..<row * yStride + shape.outputs].map(\.bitPattern),
                "row \(row), seed \(random.seed)")
        }
    }
}

struct AlignedBufferTests {
    @Test("aligned, zero, writable to its last element", arguments: [0, 1, 17, 1 << 18, (1 << 18) + 5, 1 << 22])
    func storage(count: Int) {
        let buffer = AlignedBuffer(count: count)
        #expect(buffer.count == count)
        #expect(Int(bitPattern: buffer.pointer) % 64 == 0)
        guard count > 0 else { return }
        for index in Set([0, count / 2, count - 1]) {
            #expect(buffer[index] == 0)
            buffer[index] = Float(index)
            #expect(buffer.pointer[index] == Float(index))
        }
    }

    @Test("kernel sets are found by name, the reference first")
    func names() {
        #expect(kernelSets.first?.name == "reference")
        #expect(KernelSet.best == kernelSets.last)
        for set in kernelSets { #expect(KernelSet.named(set.name) == set) }
        #expect(KernelSet.named("abacus") == nil)
    }

    @Test("every thread reports a peak")
    func peaks() {
        let pool = ThreadPool(threads: 2)
        for set in kernelSets {
            let rates = peak(kernels: set, seconds: 0.005, pool: pool)
            #expect(rates.count == 2 && rates.allSatisfy { $0 > 0 && $0.isFinite }, "\(set.name)")
        }
        #expect(peak(kernels: .best, seconds: 0.005).count == 1)
    }
}
