// The kernels of attention's gradients against float64, with the same bits in every set.

import CKernels
import Foundation
import Matrices
import Testing

struct GradientKernelTests {
    @Test("a masked product with a transpose is the chain of the terms that are seen, to the bit")
    func maskedTransposedProduct() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for rows in [1, 3, 4, 5, 17, 63, 64] {
            for (depth, width) in [(1, 16), (7, 48), (60, 64)] {
                var a = random.floats(depth * 64)
                var panel = random.floats(depth * width)
                let c = random.floats(rows * 70 + 16)
                var mask = (0..<depth).map { _ in random.bits() & random.bits() | random.bits() << 40 }
                // Whoever multiplies what is not seen, shows it.
                mask[depth / 2] = 0
                let stride = 16 * depth
                for column in 0..<width { panel[panelPlace(depth / 2, column, stride: stride)] = .nan }
                a[depth / 2 * 64] = .infinity
                for accumulate in [ANNULUS_START, ANNULUS_CONTINUE].map({ Int32($0) }) {
                    var expected = c
                    for row in 0..<rows {
                        for column in 0..<width {
                            var sum = accumulate == ANNULUS_CONTINUE ? c[row * 70 + column] : 0
                            for term in 0..<depth where mask[term] >> UInt64(row) & 1 == 1 {
                                sum = sum.addingProduct(
                                    a[term * 64 + row], panel[panelPlace(term, column, stride: stride)])
                            }
                            expected[row * 70 + column] = sum
                        }
                    }
                    for set in kernelSets {
                        var result = c
                        set.gradientFunctions.masked_transposed_panel_product(
                            a, 64, rows, panel, depth, stride, width, &result, 70, accumulate, mask, 1)
                        #expect(
                            result.bitPatterns == expected.bitPatterns,
                            "\(set.name), \(rows) × \(depth) × \(width), \(accumulate), seed \(random.seed)")
                    }
                }
            }
        }
    }

    @Test(
        "weights and dS within the errors of their steps; what is not seen is zero, whatever it holds")
    func differentiatedRows() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let rows = 9
        for keys in [1, 15, 16, 17, 40, 64] {
            for isMasked in [false, true] {
                let padded = padded(keys)
                var s = random.floats(rows * 64, -300...0)
                var g = random.floats(rows * 64)
                let maxima = random.floats(rows, 0...20)
                let dots = random.floats(rows)
                let seen = (0..<rows).map { _ in isMasked ? random.bits() | 1 : .max }
                for row in 0..<rows {
                    for key in 0..<64 where key >= keys || seen[row] >> UInt64(key) & 1 == 0 {
                        s[row * 64 + key] = .nan
                        g[row * 64 + key] = .infinity
                    }
                }
                var first: [[UInt32]] = []
                for set in softmaxSets where set.name == set.kind {
                    guard
                        let index = kernelSets.indices.first(where: {
                            String(cString: annulus_kernels_reference_of(Int32($0)).pointee.name) == set.kind
                        })
                    else { continue }
                    var weights = [Float](repeating: guardValue, count: rows * 70)
                    var gradients = [Float](repeating: guardValue, count: rows * 66)
                    annulus_gradient_kernels_reference_of(Int32(index)).pointee.differentiate_rows(
                        s, 64, g, 64, rows, keys, isMasked ? seen : nil, 1, 1.5, maxima, dots, &weights, 70,
                        &gradients,
                        66)
                    for row in 0..<rows {
                        for key in 0..<padded {
                            let (w, d) = (weights[row * 70 + key], gradients[row * 66 + key])
                            guard key < keys, seen[row] >> UInt64(key) & 1 == 1 else {
                                #expect(w.bitPattern == 0 && d.bitPattern == 0, "\(row), \(key)")
                                continue
                            }
                            let steps = Double(s[row * 64 + key] * 1.5 - maxima[row])
                            let exact = max(exp2(steps / 32), 0x1p-125)
                            // Two roundings of steps, whose exponential is good to 2⁻²².
                            let bound = exact * (0x1p-22 + abs(steps) * 0x1p-23 / 46)
                            #expect(abs(Double(w) - exact) <= bound, "\(set.name): weight \(row), \(key)")
                            let difference = Double(g[row * 64 + key]) - Double(dots[row])
                            #expect(
                                abs(Double(d) - exact * difference) <= bound * abs(difference) + exact * 0x1p-22,
                                "\(set.name): gradient \(row), \(key)")
                        }
                        #expect(
                            weights[row * 70 + padded] == guardValue && gradients[row * 66 + padded] == guardValue
                        )
                    }
                    first.append(weights.bitPatterns + gradients.bitPatterns)
                    var again = [Float](repeating: guardValue, count: rows * 70)
                    var others = [Float](repeating: guardValue, count: rows * 66)
                    kernelSets[index].gradientFunctions.differentiate_rows(
                        s, 64, g, 64, rows, keys, isMasked ? seen : nil, 1, 1.5, maxima, dots, &again, 70,
                        &others, 66)
                    #expect(
                        again.bitPatterns + others.bitPatterns == first[first.count - 1],
                        "\(kernelSets[index].name)")
                }
                #expect(!first.isEmpty)
            }
        }
    }

    @Test("a cap's slope, near the cap too")
    func uncappedRows() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for keys in [1, 16, 33, 64] {
            let gradients = random.floats(5 * 64)
            var capped = random.floats(5 * 64, -3...3)
            (capped[0], capped[64]) = (3, 2.999999)
            let mask = (0..<5).map { _ in random.bits() | 1 }
            for set in kernelSets {
                var result = gradients
                set.gradientFunctions.uncap_rows(&result, 64, 5, keys, mask, 1, capped, 64, 3)
                for place in result.indices {
                    let (row, key) = (place / 64, place % 64)
                    if key >= padded(keys) {
                        #expect(result[place] == gradients[place])
                    } else if key < keys, mask[row] >> UInt64(key) & 1 == 1 {
                        let part = Double(capped[place]) / 3
                        let exact = Double(gradients[place]) * (1 - part * part)
                        // The quotient rounds once, which counts near the cap; the rest is relative.
                        let bound = abs(Double(gradients[place])) * 0x1p-23 + abs(exact) * 0x1p-21
                        #expect(abs(Double(result[place]) - exact) <= bound, "\(set.name): \(row), \(key)")
                    }
                }
            }
        }
    }

    @Test("each distance gets all of its gradients, those beyond the reach at the ends")
    func diagonals() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for reach in [0, 1, 7, 20, 200] {
            for (rows, keys, distance) in [
                (6, 64, -30), (24, 40, 3), (5, 16, 300), (5, 17, -300), (24, 64, -reach), (1, 1, 0),
            ] {
                let gradients = random.floats(rows * 64)
                let start = random.floats(2 * reach + 1)
                var exact = start.map(Double.init)
                var magnitudes = exact.map { abs($0) }
                for row in 0..<rows {
                    for key in 0..<keys {
                        let column = reach + min(max(distance + key - row, -reach), reach)
                        exact[column] += Double(gradients[row * 64 + key])
                        magnitudes[column] += Double(abs(gradients[row * 64 + key]))
                    }
                }
                var first: [UInt32]?
                for set in kernelSets {
                    var sums = start + [guardValue]
                    set.gradientFunctions.add_diagonals(gradients, 64, rows, keys, distance, reach, &sums)
                    for (column, sum) in sums.dropLast().enumerated() {
                        #expect(
                            abs(Double(sum) - exact[column]) <= gamma(rows * keys) * magnitudes[column],
                            "\(set.name), reach \(reach), \(rows) × \(keys) at \(distance), column \(column)")
                    }
                    #expect(sums[2 * reach + 1] == guardValue)
                    first = first ?? sums.bitPatterns
                    #expect(sums.bitPatterns == first, "\(set.name)")
                }
            }
        }
    }

    @Test("products of rows, scaled rows and their panels, and panels of bfloat16 as floats")
    func rowsAndPanels() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for columns in [1, 15, 16, 17, 64, 65, 130] {
            let a = random.floats(7 * 140)
            let b = random.floats(7 * 133)
            var dots: [UInt32]?
            for set in kernelSets {
                var result = [Float](repeating: guardValue, count: 7 * 3)
                set.gradientFunctions.dot_rows(7, columns, a, 140, b, 133, &result, 3)
                for row in 0..<7 {
                    let products = (0..<columns).map { Double(a[row * 140 + $0]) * Double(b[row * 133 + $0]) }
                    #expect(
                        abs(Double(result[row * 3]) - products.reduce(0, +))
                            <= gamma(columns / 16 + 5) * products.reduce(0) { $0 + abs($1) }, "\(set.name)")
                    #expect(result[row * 3 + 1] == guardValue)
                }
                dots = dots ?? result.bitPatterns
                #expect(result.bitPatterns == dots, "\(set.name)")

                let factors = (0..<7).map { Float($0) - 2.5 }
                var panels = [Float](repeating: guardValue, count: 7 * padded(columns) + 1)
                var scaled = [Float](repeating: guardValue, count: 7 * columns + 1)
                set.gradientFunctions.scale_and_pack(a, 140, 7, columns, factors, &scaled, &panels)
                for row in 0..<7 {
                    for column in 0..<padded(columns) {
                        let expected = column < columns ? a[row * 140 + column] * factors[row] : 0
                        #expect(panels[panelPlace(row, column, stride: 16 * 7)] == expected, "\(set.name)")
                        if column < columns { #expect(scaled[row * columns + column] == expected, "\(set.name)") }
                    }
                }
                #expect(panels[7 * padded(columns)] == guardValue && scaled[7 * columns] == guardValue)
            }
        }
        for (depth, width) in [(1, 16), (6, 48), (7, 64)] {
            let source = random.floats(width * depth)
            for set in kernelSets {
                var packed = [Float](repeating: 0, count: (depth + 1) / 2 * width)
                packed.withUnsafeMutableBytes {
                    set.bfloat16Functions.pack_transposed(
                        source, depth, width, depth, $0.baseAddress!, (depth + 1) / 2 * 16)
                }
                var floats = [Float](repeating: guardValue, count: depth * width + 1)
                packed.withUnsafeBytes {
                    set.gradientFunctions.widen_panels($0.baseAddress!, depth, width, &floats)
                }
                for (place, value) in floats.dropLast().enumerated() {
                    // (panel, term, column)
                    let original = source[(place / (16 * depth) * 16 + place % 16) * depth + place / 16 % depth]
                    #expect(
                        value.bitPattern & 0xffff == 0 && abs(value - original) <= abs(original) * 0x1p-8,
                        "\(set.name)")
                }
                #expect(floats[depth * width] == guardValue)
            }
        }
    }
}
