// The bfloat16 kernels against a model of their own in scalar arithmetic, set by set and bit by bit.

import CKernels
import Foundation
import Matrices
import Testing

/// What VDPBF16PS does with one pair, and rounding to bfloat16, by definition.
enum PairModel {
    static func flush(_ x: Float) -> Float { x.isSubnormal ? x * 0 : x }

    /// A fused multiply-add whose result is flushed where it would be tiny with an unlimited exponent.
    static func fused(_ a: Float, _ b: Float, _ c: Float) -> Float {
        let y = c.addingProduct(a, b)
        if y.isNaN || y.magnitude > .leastNormalMagnitude { return y }
        // 2⁶⁰ times everything is exact, and far from where the exponent ends.
        let scaled = (c * 0x1p60).addingProduct(a * 0x1p60, b)
        return scaled.magnitude < 0x1p-66 ? Float(signOf: y, magnitudeOf: 0) : y
    }

    static func product(_ sum: Float, _ a: UInt32, _ b: UInt32) -> Float {
        func lower(_ pair: UInt32) -> Float { flush(Float(bitPattern: pair << 16)) }
        func upper(_ pair: UInt32) -> Float { flush(Float(bitPattern: pair & 0xffff_0000)) }
        return fused(lower(a), lower(b), fused(upper(a), upper(b), flush(sum)))
    }

    /// The nearer neighbour, by distance in float64; the even one of two.
    static func round(_ x: Float) -> UInt16 {
        if x.isNaN { return UInt16(x.bitPattern >> 16) | 0x40 }
        if x.isSubnormal { return UInt16(x.bitPattern >> 16) & 0x8000 }
        let below = UInt16(x.bitPattern >> 16)
        if x.isInfinite || x.isZero { return below }
        func value(_ half: UInt16) -> Double { Double(Float(bitPattern: UInt32(half) << 16)) }
        // One step past the largest finite number stands 2¹²⁸.
        let next = below & 0x7fff == 0x7f7f ? (x < 0 ? -0x1p128 : 0x1p128) : value(below + 1)
        let (down, up) = (abs(Double(x) - value(below)), abs(next - Double(x)))
        if down == up { return below & 1 == 0 ? below : below + 1 }
        return down < up ? below : below + 1
    }

    static func float(_ half: UInt16) -> Float { Float(bitPattern: UInt32(half) << 16) }

    /// Rows of pairs, the last of an odd row filled up with zero.
    static func pairs(_ values: [Float], rows: Int, columns: Int) -> [UInt32] {
        (0..<rows).flatMap { row in
            stride(from: 0, to: columns, by: 2).map { column in
                let first = UInt32(round(values[row * columns + column]))
                return column + 1 < columns ? first | UInt32(round(values[row * columns + column + 1])) << 16 : first
            }
        }
    }
}

/// Equal bits; of NaNs, only that both are.
private func same(_ a: Float, _ b: Float) -> Bool { a.bitPattern == b.bitPattern || (a.isNaN && b.isNaN) }

struct BFloat16Tests {
    /// Pairs with a bias to what goes wrong: zeros, infinities, NaN, denormal numbers, products around 2⁻¹²⁶.
    private static func awkward(_ random: inout RandomNumbers, kind: Int) -> UInt16 {
        let bits = UInt16(truncatingIfNeeded: random.below(1 << 16))
        switch kind {
        case 0: return bits
        case 1: return bits & 0x807f | UInt16(120 + random.below(12)) << 7
        case 2: return bits & 0x807f | UInt16(62 + random.below(3)) << 7
        case 3: return bits & 0x807f | UInt16(random.below(3)) << 7
        default:
            return [0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 1, 0x8001, 0x7f, 0x80, 0x3f80, 0xbf80, 0x7f7f][random.below(12)]
        }
    }

    @Test("every set does what the instruction is defined to do, bit by bit", arguments: 0..<5)
    func pairProducts(kind: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for round in 0..<(isDebug ? 20 : 300) {
            let rows = 1 + random.below(13), pairs = 1 + random.below(5), width = [16, 32, 48, 64][random.below(4)]
            func operands(_ count: Int) -> [UInt32] {
                (0..<count).map { _ in
                    UInt32(Self.awkward(&random, kind: kind)) | UInt32(Self.awkward(&random, kind: kind)) << 16
                }
            }
            let a = operands(rows * pairs), panel = operands(pairs * width)
            let start = (0..<rows * width).map { _ in
                // Sums of every size; among them those that cancel with products near 2⁻¹²⁶.
                Float(
                    bitPattern: kind == 2
                        ? UInt32(random.below(2)) << 31 | UInt32(1 + random.below(2)) << 23
                            | [0, 1, 0x7fffff][random.below(3)]
                        : UInt32(Self.awkward(&random, kind: kind)) << 16 | UInt32(random.below(1 << 16)))
            }
            for set in softmaxSets {
                // Goes on with chains, or adds its own to what is there, which may be denormal and stays so.
                let adds = round % 3 == 2
                var c = start
                set.bfloat16Functions.panel_product(
                    a, pairs, rows, panel, 2 * pairs, 16 * pairs, width, &c, width,
                    Int32(adds ? ANNULUS_ADD : ANNULUS_CONTINUE))
                for row in 0..<rows {
                    for column in 0..<width {
                        var sum = adds ? 0 : start[row * width + column]
                        for k in 0..<pairs {
                            sum = PairModel.product(
                                sum, a[row * pairs + k], panel[panelPlace(k, column, stride: 16 * pairs)])
                        }
                        if adds { sum += start[row * width + column] }
                        let value = c[row * width + column]
                        if !same(value, sum) {
                            Issue.record("\(set.name): \(value) for \(sum), round \(round), seed \(random.seed)")
                            return
                        }
                    }
                }
            }
        }
    }

    @Test("a result is flushed by its size before the exponent ends it")
    func tinyResults() {
        for exponent in 149...156 {
            for significand: Float in [1, 1.25, 1.5, 1.9921875] {
                // 2⁻¹²⁶ less a little, by a product that is exact.
                let a = UInt32(PairModel.round(significand * 0x1p-70))
                let b = UInt32(PairModel.round(-Float(sign: .plus, exponent: 70 - exponent, significand: 1)))
                for shift: UInt32 in [0, 16] {
                    let expected = PairModel.product(.leastNormalMagnitude, a << shift, b << shift)
                    for set in softmaxSets {
                        var c = [Float](repeating: .leastNormalMagnitude, count: 16)
                        set.bfloat16Functions.panel_product(
                            [a << shift], 1, 1, [UInt32](repeating: b << shift, count: 16), 2, 16, 16, &c, 16, 1)
                        #expect(
                            c.allSatisfy { $0.bitPattern == expected.bitPattern },
                            "\(set.name), 2⁻¹²⁶ − \(significand)·2^−\(exponent)")
                    }
                }
            }
        }
    }

    @Test("rounding takes the nearest, ties to even, for every upper half")
    func rounding() {
        let lower: [UInt32] = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff]
        for upper in stride(from: UInt32(0), to: 1 << 16, by: isDebug ? 61 : 1) {
            let source = lower.map { Float(bitPattern: upper << 16 | $0) }
            let expected = PairModel.pairs(source, rows: 1, columns: source.count)
            for set in softmaxSets {
                var pairs = [UInt32](repeating: 0xdead_beef, count: 4)
                set.bfloat16Functions.round_rows(source, source.count, 1, source.count, 1, &pairs, 3)
                if pairs != expected + [0xdead_beef] { Issue.record("\(set.name): \(source)") }
            }
        }
    }

    @Test(
        "rows and panels hold the rounded elements, and zeros beside them",
        arguments: [(1, 1), (3, 17), (64, 64), (65, 33), (130, 80)])
    func packing(n: Int, depth: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let columns = random.floats(n * depth)
        let pairs = (depth + 1) / 2
        func element(_ k: Int, _ c: Int, transposed: Bool) -> UInt16 {
            k < depth && c < n ? PairModel.round(transposed ? columns[c * depth + k] : columns[k * n + c]) : 0
        }
        for set in softmaxSets {
            let functions = set.bfloat16Functions
            for transposed in [true, false] {
                var panels = [UInt32](repeating: 0xffff_ffff, count: pairs * padded(n) + 1)
                if transposed {
                    functions.pack_transposed(columns, depth, n, depth, &panels, 16 * pairs)
                } else {
                    functions.pack_columns(columns, n, depth, n, &panels, 16 * pairs)
                }
                for c in 0..<padded(n) {
                    for k in 0..<pairs {
                        let expected =
                            UInt32(element(2 * k, c, transposed: transposed))
                            | UInt32(element(2 * k + 1, c, transposed: transposed)) << 16
                        if panels[panelPlace(k, c, stride: 16 * pairs)] != expected {
                            Issue.record("\(set.name): pair \(k), column \(c)")
                        }
                    }
                }
                #expect(panels[pairs * padded(n)] == 0xffff_ffff)
            }
            var rows = [UInt32](repeating: 7, count: n * (pairs + 2))
            functions.round_rows(columns, depth, n, depth, 0.25, &rows, pairs + 2)
            let expected = PairModel.pairs(columns.map { $0 * 0.25 }, rows: n, columns: depth)
            for row in 0..<n {
                #expect(
                    Array(rows[row * (pairs + 2)..<row * (pairs + 2) + pairs])
                        == Array(expected[row * pairs..<(row + 1) * pairs]))
                #expect(rows[row * (pairs + 2) + pairs] == 7)
            }
        }
    }

    @Test(
        "a masked half of a pair is left out, even where it is NaN; a row alone has the bits it has among others",
        arguments: [16, 48, 64])
    func masks(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for (rows, depth) in [(1, 1), (5, 64), (6, 65), (13, 201), (27, 129)] {
            let pairs = (depth + 1) / 2
            for kind in 0..<5 {
                let pattern = (0..<rows * depth).map { _ in random.below(3) > 0 }
                let visible: (Int, Int) -> Bool = { row, k in
                    switch kind {
                    case 0: k <= row * 7
                    case 1: k / 15 % 2 == 0
                    case 2: pattern[row * depth + k]
                    case 3: row % 2 == 0
                    default: true
                    }
                }
                var a = random.floats(rows * depth), panel = random.floats(depth * width)
                // Poison what no row may see of B, and what a row may not see of its own A.
                for k in 0..<depth {
                    if !(0..<rows).contains(where: { visible($0, k) }) {
                        for column in 0..<width { panel[k * width + column] = .nan }
                    }
                    for row in 0..<rows where !visible(row, k) { a[row * depth + k] = .infinity }
                }
                let mask = maskWords(rows: rows, columns: depth, visible)
                let aPairs = PairModel.pairs(a, rows: rows, columns: depth)
                var first: [Float]?
                for set in softmaxSets {
                    let functions = set.bfloat16Functions
                    var panels = [UInt32](repeating: 0, count: pairs * width)
                    functions.pack_columns(panel, width, depth, width, &panels, 16 * pairs)
                    var c = [Float](repeating: guardValue, count: rows * width + 16)
                    functions.masked_panel_product(
                        aPairs, pairs, rows, panels, depth, 16 * pairs, width, &c, width, 0, mask.words, mask.stride)
                    for row in 0..<rows {
                        for column in 0..<width {
                            var sum: Float = 0
                            for k in 0..<pairs {
                                let low = visible(row, 2 * k), high = 2 * k + 1 < depth && visible(row, 2 * k + 1)
                                let keep: UInt32 = (low ? 0xffff : 0) | (high ? 0xffff_0000 : 0)
                                sum = PairModel.product(
                                    sum, aPairs[row * pairs + k] & keep,
                                    panels[panelPlace(k, column, stride: 16 * pairs)] & keep)
                            }
                            if c[row * width + column].bitPattern != sum.bitPattern {
                                Issue.record(
                                    "\(set.name): kind \(kind), row \(row), column \(column), \(rows) × \(depth), seed \(random.seed)"
                                )
                                return
                            }
                        }
                        var alone = [Float](repeating: 0, count: width)
                        functions.masked_panel_product(
                            Array(aPairs[row * pairs..<(row + 1) * pairs]), pairs, 1, panels, depth, 16 * pairs, width,
                            &alone, width, 0,
                            Array(mask.words[row * mask.stride..<(row + 1) * mask.stride]), mask.stride)
                        #expect(
                            alone.bitPatterns == c[row * width..<(row + 1) * width].map(\.bitPattern),
                            "\(set.name), seed \(random.seed)")
                    }
                    if kind == 4 {
                        var whole = [Float](repeating: 0, count: rows * width)
                        functions.panel_product(
                            aPairs, pairs, rows, panels, depth, 16 * pairs, width, &whole, width, 0)
                        #expect(
                            whole.bitPatterns == c[..<(rows * width)].map(\.bitPattern), "\(set.name): an open mask")
                    }
                    #expect(c[(rows * width)...].allSatisfy { $0 == guardValue })
                    #expect(c.bitPatterns == first?.bitPatterns ?? c.bitPatterns, "\(set.name)")
                    first = first ?? c
                }
            }
        }
    }

    @Test(
        "weights are e^(scale·(s − max)) rounded, their sum is not",
        arguments: [1.0, 1.4142135, 1.9999, 1.1] as [Float])
    func softmax(natural: Float) {
        let scale = Float(Double(natural) * ANNULUS_STEPS)
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for keys in [1, 15, 16, 64, 100, 256] {
            for masked in [false, true] {
                let rows = 19, stride = padded(keys)
                let scores = random.floats(rows * stride, -20...20)
                let mask = maskWords(rows: rows, columns: keys) { row, key in
                    !masked || (row % 5 != 3 && key % 7 <= row)
                }
                func sees(_ row: Int, _ key: Int) -> Bool {
                    mask.words[row * mask.stride + key / 64] >> UInt64(key % 64) & 1 == 1
                }
                var firsts: [String: [UInt32]] = [:]
                for set in softmaxSets {
                    var s = scores
                    var rowMax = [Float](repeating: 0, count: rows), rowSum = rowMax
                    mask.words.withUnsafeBufferPointer {
                        set.bfloat16Functions.softmax_rows(
                            &s, stride, rows, keys, masked ? $0.baseAddress : nil, mask.stride, scale, &rowMax, &rowSum)
                    }
                    for row in 0..<rows {
                        let seen = (0..<keys).filter { sees(row, $0) }
                        guard let top = seen.map({ scores[row * stride + $0] }).max() else {
                            #expect(rowMax[row] == -.infinity && rowSum[row] == 0)
                            continue
                        }
                        #expect(rowMax[row] == top * scale)
                        var sum = 0.0
                        for key in 0..<stride {
                            let pair = s[row * stride + key / 2].bitPattern
                            let weight = Double(
                                PairModel.float(UInt16(truncatingIfNeeded: key % 2 == 0 ? pair : pair >> 16)))
                            let x =
                                key < keys
                                ? Double(scale) / ANNULUS_STEPS * (Double(scores[row * stride + key]) - Double(top)) : 0
                            let exact = key < keys && sees(row, key) ? exp(x) : 0
                            sum += exact
                            // The difference rounds, and its product; then the kernel's own error, then that of the
                            // rounding.
                            if !(abs(weight - exact) <= exact * (0x1p-8 + 3e-7 + abs(x) * 0x1p-23) + 0x1.02p-125) {
                                Issue.record(
                                    "\(set.name): weight \(weight), exact \(exact), key \(key) of \(keys), seed \(random.seed)"
                                )
                            }
                        }
                        // Far narrower than the rounding of weights: the sum is of what was not yet rounded.
                        #expect(abs(Double(rowSum[row]) - sum) <= sum * 8e-6, "\(set.name), seed \(random.seed)")
                    }
                    let bits = (s + rowMax + rowSum).enumerated().map { place, value in
                        // The second half of a row is left over from the scores.
                        place < rows * stride && place % stride >= stride / 2 ? 0 : value.bitPattern
                    }
                    #expect(bits == firsts[set.kind, default: bits], "\(set.name)")
                    firsts[set.kind] = firsts[set.kind] ?? bits
                }
            }
        }
    }

    @Test(
        "the fused tile has the bits of its three steps, in every set", arguments: [1, 15, 32, 64, 100],
        [1, 17, 64, 128, 131, 256])
    func fusedTile(depth: Int, keys: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let columns = depth == 64 ? 80 : depth, width = padded(columns), scoreStride = padded(keys),
            pairs = (depth + 1) / 2
        let keyPairs = (keys + 1) / 2, scale: Float = 1.25
        let k = random.floats(keys * depth), v = random.floats(keys * columns)
        for rows in isDebug ? [1, 13, 18] : [1, 5, 6, 11, 12, 13, 17, 18, 24, 25, 53] {
            let q = PairModel.pairs(random.floats(rows * depth, -3...3), rows: rows, columns: depth)
            var firsts: [String: [[UInt32]]] = [:]
            for set in softmaxSets {
                let functions = set.bfloat16Functions
                var kPanels = [UInt32](repeating: 0, count: scoreStride * pairs),
                    vPanels = [UInt32](repeating: 0, count: width * keyPairs)
                functions.pack_transposed(k, depth, keys, depth, &kPanels, 16 * pairs)
                functions.pack_columns(v, columns, keys, columns, &vPanels, 16 * keyPairs)
                var scores = [Float](repeating: 0, count: rows * scoreStride)
                var rowMax = [Float](repeating: guardValue, count: rows + 1), rowSum = rowMax
                var output = [Float](repeating: guardValue, count: rows * width + 16)
                scores.withUnsafeMutableBufferPointer { scores in
                    guard let scores = scores.baseAddress else { return }
                    for key in Swift.stride(from: 0, to: keys, by: 64) {
                        functions.panel_product(
                            q, pairs, rows, Array(kPanels[(key * pairs)...]), depth, 16 * pairs,
                            min(64, scoreStride - key), scores + key, scoreStride, 0)
                    }
                    functions.softmax_rows(scores, scoreStride, rows, keys, nil, 0, scale, &rowMax, &rowSum)
                    output.withUnsafeMutableBufferPointer { output in
                        guard let output = output.baseAddress else { return }
                        for column in Swift.stride(from: 0, to: width, by: 64) {
                            functions.panel_product(
                                scores, scoreStride, rows, Array(vPanels[(column * keyPairs)...]), keys,
                                16 * keyPairs, min(64, width - column),
                                output + column, width, 0)
                        }
                    }
                }
                let scratch = AlignedBuffer(count: scratchRows * scoreStride + 16)
                for index in scratchRows * scoreStride..<scratch.count { scratch[index] = guardValue }
                var fusedMax = [Float](repeating: guardValue, count: rows + 1), fusedSum = fusedMax
                var fused = [Float](repeating: guardValue, count: rows * width + 16)
                functions.attend_tile(
                    q, pairs, rows, kPanels, depth, vPanels, columns, keys, scale, &fusedMax, &fusedSum, &fused, width,
                    scratch.pointer)
                let context = "\(set.name), \(rows) rows, seed \(random.seed)"
                #expect(fusedMax.bitPatterns == rowMax.bitPatterns, "\(context)")
                #expect(fusedSum.bitPatterns == rowSum.bitPatterns, "\(context)")
                #expect(fused.bitPatterns == output.bitPatterns, "\(context)")
                let beyond = scratchRows * scoreStride..<scratch.count
                #expect(beyond.allSatisfy { scratch[$0] == guardValue }, "\(context)")
                let bits = [fusedMax, fusedSum, fused].map(\.bitPatterns)
                #expect(bits == firsts[set.kind, default: bits], "\(context)")
                firsts[set.kind] = firsts[set.kind] ?? bits
            }
        }
    }

    @Test("a NaN in one query makes that row NaN and no other; a tile of −∞ scores weighs nothing")
    func specialRows() {
        let keys = 64, depth = 16, rows = 24
        for set in softmaxSets {
            let functions = set.bfloat16Functions
            var q = [Float](repeating: 0.25, count: rows * depth)
            q[7 * depth + 3] = .nan
            for term in 0..<depth { q[9 * depth + term] = -.infinity }
            let ones = [Float](repeating: 1, count: keys * depth)
            var kPanels = [UInt32](repeating: 0, count: keys * depth / 2), vPanels = kPanels
            functions.pack_transposed(ones, depth, keys, depth, &kPanels, depth / 2 * 16)
            functions.pack_columns(ones, depth, keys, depth, &vPanels, keys / 2 * 16)
            var rowMax = [Float](repeating: 0, count: rows), rowSum = rowMax
            var output = [Float](repeating: 0, count: rows * depth)
            let scratch = AlignedBuffer(count: scratchRows * keys)
            functions.attend_tile(
                PairModel.pairs(q, rows: rows, columns: depth), depth / 2, rows, kPanels, depth, vPanels, depth, keys,
                1.5,
                &rowMax, &rowSum, &output, depth, scratch.pointer)
            for row in 0..<rows {
                let values = output[row * depth..<(row + 1) * depth]
                switch row {
                case 7: #expect(rowMax[row].isNaN && rowSum[row].isNaN && values.allSatisfy(\.isNaN), "\(set.name)")
                case 9: #expect(rowMax[row] == -.infinity && rowSum[row] == 0, "\(set.name)")
                default:
                    #expect(
                        rowMax[row] == 6 && rowSum[row] == 64 && values.allSatisfy { $0 == 64 },
                        "\(set.name), row \(row)")
                }
            }
        }
    }

    @Test(
        "dense layers: the products of the rounded operands, the same bits in every set, a row alone as among others",
        arguments: PackedMatrixTests.shapes + [PackedMatrixTests.Shape(rows: 4, inputs: 1601, outputs: 33)])
    func denseLayers(shape: PackedMatrixTests.Shape) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let xStride = shape.inputs + 3, yStride = shape.outputs + 5
        let weights = random.floats(shape.inputs * shape.outputs), x = random.floats(shape.rows * xStride + 1)
        var first: [UInt32]?
        for set in kernelSets {
            let matrix = weights.withUnsafeBufferPointer {
                PackedMatrix(
                    weights: $0, inputs: shape.inputs, outputs: shape.outputs, element: .bfloat16, kernels: set)
            }
            let y = PackedMatrixTests.multiply(set, matrix, x, rows: shape.rows, xStride: xStride, yStride: yStride)
            #expect(y.bitPatterns == first ?? y.bitPatterns, "\(set.name), seed \(random.seed)")
            first = first ?? y.bitPatterns
            for row in stride(from: 0, to: shape.rows, by: 7) {
                let one = PackedMatrixTests.multiply(
                    set, matrix, Array(x[(row * xStride)...]), rows: 1, xStride: xStride, yStride: yStride)
                #expect(
                    one[0..<shape.outputs].map(\.bitPattern)
                        == y[row * yStride..<row * yStride + shape.outputs].map(\.bitPattern),
                    "\(set.name), row \(row), seed \(random.seed)")
            }
            guard set == KernelSet.best else { continue }
            for row in 0..<shape.rows {
                for column in 0..<shape.outputs {
                    var exact = 0.0, magnitude = 0.0
                    for k in 0..<shape.inputs {
                        let product =
                            Double(PairModel.float(PairModel.round(x[row * xStride + k])))
                            * Double(PairModel.float(PairModel.round(weights[column * shape.inputs + k])))
                        exact += product
                        magnitude += abs(product)
                    }
                    let value = Double(y[row * yStride + column])
                    // The padding of an odd row is one more term, and a flushed result 2⁻¹²⁶ off; chains are of 768
                    // terms.
                    let roundings = min(shape.inputs + 1, 768) + shape.inputs / 768
                    if !(abs(value - exact) <= gamma(roundings) * magnitude * 1.0001 + Double(shape.inputs) * 0x1p-126)
                    {
                        Issue.record("row \(row) column \(column): \(value), exact \(exact), seed \(random.seed)")
                    }
                }
            }
            for at in y.indices where at % yStride >= shape.outputs || at >= shape.rows * yStride {
                #expect(y[at] == guardValue, "beside the result at \(at)")
            }
        }
    }

    @Test("long rows, of several pieces, have the bits of the model; the thread flushes nothing afterwards")
    func longRows() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 7, width = 64
        for pairs in [255, 256, 257, 700] {
            let a = PairModel.pairs(random.floats(rows * 2 * pairs), rows: rows, columns: 2 * pairs)
            let panel = PairModel.pairs(random.floats(2 * pairs * width), rows: pairs, columns: 2 * width)
            for set in softmaxSets {
                for mode in [ANNULUS_START, ANNULUS_CONTINUE, ANNULUS_ADD] {
                    var c = [Float](repeating: 0x1p-149, count: rows * width)
                    set.bfloat16Functions.panel_product(
                        a, pairs, rows, panel, 2 * pairs, 16 * pairs, width, &c, width, Int32(mode))
                    for row in [0, rows - 1] {
                        for column in [0, 15, 63] {
                            var sum: Float = 0
                            for k in 0..<pairs {
                                sum = PairModel.product(
                                    sum, a[row * pairs + k], panel[panelPlace(k, column, stride: 16 * pairs)])
                            }
                            #expect(
                                c[row * width + column] == (mode == ANNULUS_ADD ? sum + 0x1p-149 : sum),
                                "\(set.name), \(pairs) pairs, mode \(mode), seed \(random.seed)")
                        }
                    }
                }
                #expect(
                    random.float(0x1p-149...0x1p-149) + 0x1p-149 == 0x1p-148, "\(set.name) left the thread flushing")
            }
        }
    }

    @Test("every thread reports a peak")
    func peaks() {
        for set in kernelSets {
            let rates = peak(kernels: set, element: .bfloat16, seconds: 0.005, pool: ThreadPool(threads: 2))
            #expect(rates.count == 2 && rates.allSatisfy { $0 > 0 && $0.isFinite }, "\(set.name)")
        }
    }
}
