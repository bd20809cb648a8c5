// The panel products against float64, alone and under masks, row by row and set by set.

import CKernels
import Matrices
import Testing

struct PanelProductTests {
    struct Product {
        var a: [Float], panel: [Float], c: [Float]
        let rows: Int, depth: Int, width: Int, aStride: Int, cStride: Int
        var panelStride: Int

        init(_ random: inout RandomNumbers, rows: Int, depth: Int, width: Int) {
            self.rows = rows
            self.depth = depth
            self.width = width
            aStride = depth + random.below(5)
            cStride = width + random.below(9)
            a = random.floats(rows * aStride)
            panelStride = 16 * (depth + random.below(3))
            panel = random.floats(width / 16 * panelStride + 1)
            c = random.floats(rows * cStride + 16)
        }

        func run(
            _ kernels: KernelSet, accumulate: Bool, adds: Bool = false, columns: Int? = nil,
            mask: (words: [UInt64], stride: Int)? = nil
        ) -> [Float] {
            var result = c
            let functions = kernels.functions
            a.withUnsafeBufferPointer { a in
                panel.withUnsafeBufferPointer { panel in
                    result.withUnsafeMutableBufferPointer { c in
                        guard let panel = panel.baseAddress, let c = c.baseAddress else { return }
                        // An empty matrix has no address; no element of it is read.
                        let a = a.baseAddress ?? panel
                        if let mask {
                            functions.masked_panel_product(
                                a, aStride, rows, panel, depth, panelStride, width, c, cStride, accumulate ? 1 : 0,
                                mask.words, mask.stride)
                        } else {
                            functions.panel_product(
                                a, aStride, rows, panel, depth, panelStride, columns ?? width, c, cStride,
                                Int32(adds ? ANNULUS_ADD : accumulate ? ANNULUS_CONTINUE : ANNULUS_START))
                        }
                    }
                }
            }
            return result
        }

        /// The largest error over its derived bound γ_depth·Σ|a·b|, and whether floats outside of C changed.
        func check(_ result: [Float], accumulate: Bool, visible: (Int, Int) -> Bool = { _, _ in true }) -> String? {
            var inside = [Bool](repeating: false, count: c.count)
            for row in 0..<rows {
                for column in 0..<width {
                    let at = row * cStride + column
                    inside[at] = true
                    var exact = accumulate ? Double(c[at]) : 0, magnitude = abs(exact)
                    var terms = 0
                    for k in 0..<depth where visible(row, k) {
                        let product =
                            Double(a[row * aStride + k]) * Double(panel[panelPlace(k, column, stride: panelStride)])
                        exact += product
                        magnitude += abs(product)
                        terms += 1
                    }
                    let error = abs(Double(result[at]) - exact)
                    // Each fused term rounds once; float64's own error is 2⁻²⁹ of that.
                    if !(error <= gamma(terms) * magnitude * 1.0001) {
                        return "row \(row) column \(column): \(result[at]), exact \(exact), error \(error)"
                    }
                }
            }
            for at in c.indices where !inside[at] && result[at].bitPattern != c[at].bitPattern {
                return "wrote outside of the result at \(at)"
            }
            return nil
        }
    }

    static let depths = isDebug ? [0, 1, 2, 17, 130] : Array(0...34) + [47, 63, 64, 65, 96, 127, 128, 129, 130]

    @Test("every element within γ_depth of the exact product, nothing written beside it", arguments: [16, 32, 48, 64])
    func accuracy(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for rows in 0...13 {
            for depth in Self.depths {
                let product = Product(&random, rows: rows, depth: depth, width: width)
                for accumulate in [false, true] {
                    let results = kernelSets.map { product.run($0, accumulate: accumulate) }
                    let failure = product.check(results[0], accumulate: accumulate)
                    #expect(failure == nil, "\(rows) × \(depth) × \(width), reference, seed \(random.seed)")
                    for (set, result) in zip(kernelSets, results) {
                        #expect(
                            result.bitPatterns == results[0].bitPatterns,
                            "\(set.name) differs from the reference at \(rows) × \(depth) × \(width), seed \(random.seed)"
                        )
                    }
                }
            }
        }
    }

    @Test("added to C is the product alone, once rounded", arguments: [16, 32, 48, 64])
    func adding(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for set in kernelSets {
            for (rows, depth) in [(1, 1), (7, 0), (5, 33), (13, 64), (30, 192)] {
                let product = Product(&random, rows: rows, depth: depth, width: width)
                var expected = product.run(set, accumulate: false)
                for row in 0..<rows {
                    for place in row * product.cStride..<row * product.cStride + width {
                        expected[place] += product.c[place]
                    }
                }
                #expect(
                    product.run(set, accumulate: false, adds: true).bitPatterns == expected.bitPatterns,
                    "\(set.name), \(rows) × \(depth) × \(width), seed \(random.seed)")
            }
        }
    }

    @Test("a row alone has the bits it has among others", arguments: [16, 32, 48, 64])
    func rowIndependence(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for set in kernelSets {
            for rows in [2, 3, 5, 7, 13, 29] {
                let whole = Product(&random, rows: rows, depth: 37, width: width)
                let result = whole.run(set, accumulate: true)
                for row in 0..<rows {
                    var alone = whole
                    alone = alone.onlyRow(row)
                    let one = alone.run(set, accumulate: true)
                    let from = row * whole.cStride
                    #expect(
                        one[0..<width].map(\.bitPattern) == result[from..<from + width].map(\.bitPattern),
                        "\(set.name): row \(row) of \(rows), width \(width), seed \(random.seed)")
                }
            }
        }
    }

    @Test("a masked term is left out, even where it is NaN or infinite", arguments: [16, 32, 48, 64])
    func masks(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for (rows, depth) in [(1, 1), (5, 64), (6, 65), (13, 200), (25, 129)] {
            for kind in 0..<5 {
                let pattern = (0..<rows * depth).map { _ in random.below(3) > 0 }
                let visible: (Int, Int) -> Bool = { row, k in
                    switch kind {
                    case 0: k <= row * 7  // causal
                    case 1: k / 16 % 2 == 0  // blocks that all rows share
                    case 2: pattern[row * depth + k]
                    case 3: k <= row + depth / 2  // the edge of a causal mask: few terms that some rows see
                    default: row % 2 == 0  // whole rows without a key
                    }
                }
                var product = Product(&random, rows: rows, depth: depth, width: width)
                // Poison what no row may see in B, and what a row may not see in its own A.
                for k in 0..<depth {
                    if !(0..<rows).contains(where: { visible($0, k) }) {
                        for column in 0..<width {
                            product.panel[panelPlace(k, column, stride: product.panelStride)] = .nan
                        }
                    }
                    for row in 0..<rows where !visible(row, k) { product.a[row * product.aStride + k] = .infinity }
                }
                let mask = maskWords(rows: rows, columns: depth, visible)
                for accumulate in [false, true] {
                    let results = kernelSets.map { product.run($0, accumulate: accumulate, mask: mask) }
                    for (set, result) in zip(kernelSets, results) {
                        #expect(result.bitPatterns == results[0].bitPatterns, "\(set.name), seed \(random.seed)")
                    }
                    let failure = product.check(results[0], accumulate: accumulate, visible: visible)
                    #expect(failure == nil, "kind \(kind), \(rows) × \(depth) × \(width), seed \(random.seed)")
                }
            }
        }
    }

    @Test(
        "the first of several panels have the bits they have among all, and nothing is written beside them",
        arguments: [32, 48, 64])
    func someColumns(width: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for set in kernelSets {
            for (rows, columns) in [(1, 16), (6, 16), (13, 32), (25, 48)] where columns < width {
                let product = Product(&random, rows: rows, depth: 33, width: width)
                let whole = product.run(set, accumulate: true),
                    some = product.run(set, accumulate: true, columns: columns)
                for at in some.indices {
                    let expected =
                        at / product.cStride < rows && at % product.cStride < columns ? whole[at] : product.c[at]
                    #expect(
                        some[at].bitPattern == expected.bitPattern,
                        "\(set.name), \(rows) rows, \(columns) of \(width), seed \(random.seed)")
                }
            }
        }
    }

    @Test("scaled rows are products that round once, and nothing is written beside them")
    func scaledRows() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for columns in [1, 15, 16, 17, 64, 100] {
            let source = random.floats(7 * 101), start = random.floats(7 * 103)
            for set in kernelSets {
                var target = start
                set.functions.scale_rows(source, 101, 7, columns, 46.25, &target, 103)
                for at in target.indices {
                    let (row, column) = (at / 103, at % 103)
                    let expected = column < columns ? source[row * 101 + column] * 46.25 : start[at]
                    #expect(
                        target[at].bitPattern == expected.bitPattern,
                        "\(set.name), \(columns) columns, seed \(random.seed)")
                }
            }
        }
    }

    @Test("a mask that hides nothing gives the bits of the product without a mask")
    func openMask() {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        for set in kernelSets {
            let product = Product(&random, rows: 11, depth: 150, width: 64)
            let mask = maskWords(rows: 11, columns: 150) { _, _ in true }
            #expect(
                product.run(set, accumulate: false, mask: mask).bitPatterns
                    == product.run(set, accumulate: false).bitPatterns, "\(set.name), seed \(random.seed)")
        }
    }
}

extension PanelProductTests.Product {
    /// The same product for one row alone.
    func onlyRow(_ row: Int) -> Self {
        var random = RandomNumbers(seed: 0)
        var one = Self(&random, rows: 1, depth: depth, width: width)
        one.a = Array(a[row * aStride..<row * aStride + depth]) + [Float](repeating: .nan, count: 8)
        one.panelStride = panelStride
        one.panel = panel
        one.c = Array(c[row * cStride..<row * cStride + width]) + [Float](repeating: guardValue, count: 24)
        return one
    }
}
