// Losses and their gradients against PyTorch in float64, and the same bits in every kernel set.

import Files
import Foundation
import Matrices
import RingAttention
import Testing
import Tiles
import Training

@Suite struct LossTests {
    private static func loss(_ name: String) throws -> RowLoss {
        try #require(["cross_entropy": .crossEntropy, "binary": .binary, "squared_error": .squaredError][name])
    }

    private static func targets(_ golden: JSON, _ loss: RowLoss, outputs: Int) throws -> [RowTarget] {
        let numbers = try golden.numbers("target")
        if loss == .crossEntropy { return numbers.map { $0 < 0 ? .ignored : .index(Int($0)) } }
        return stride(from: 0, to: numbers.count, by: outputs).map { first in
            .values(numbers[first..<first + outputs].map { Float($0) })
        }
    }

    /// The mean loss and its gradient, row by row.
    private static func run(
        _ loss: RowLoss, _ logits: [Float], outputs: Int, _ targets: [RowTarget], _ kernels: KernelSet
    ) -> (loss: Double, gradient: [Float]) {
        var gradient = logits
        let count = targets.reduce(0) { $0 + loss.count($1, outputs: outputs) }
        var sum = 0.0
        gradient.withUnsafeMutableBufferPointer { rows in
            for (row, target) in targets.enumerated() {
                sum += loss.differentiate(
                    rows.baseAddress! + row * outputs, outputs: outputs, target, factor: Float(1 / Double(count)),
                    kernels: kernels)
            }
        }
        return (sum / Double(count), gradient)
    }

    @Test func lossesAndGradientsAreTorchs() throws {
        let cases = try Goldens.cases("losses")
        #expect(cases.count == 12)
        for golden in cases {
            let name = try #require(golden["name"]?.string)
            let (loss, outputs) = (try Self.loss(name), try golden.int("outputs"))
            let logits = try golden.numbers("logits")
            let targets = try Self.targets(golden, loss, outputs: outputs)
            let result = Self.run(loss, logits.map { Float($0) }, outputs: outputs, targets, .best)
            let count = Double(targets.reduce(0) { $0 + loss.count($1, outputs: outputs) })
            // A logit less the greatest is rounded once, so an exponential is off by that many roundings of its size and
            // its own two; a quotient has those of both sides and one more. The loss is a logarithm of such a sum.
            let most = 2 * (logits.map(abs).max() ?? 0)
            let relative = unit * (2 * most + 8)
            let expected = try golden.number("loss")
            let lossBound = loss == .squaredError ? 4 * unit * expected : relative + 4 * unit * expected
            #expect(
                abs(result.loss - expected) <= lossBound, "\(name), \(outputs) outputs: \(result.loss), not \(expected)"
            )
            for (index, exact) in try golden.numbers("gradient").enumerated() {
                // A difference of a quotient and 1 (or a label) keeps the quotient's absolute error.
                let bound = loss == .squaredError ? 3 * unit * abs(exact) : (relative + 2 * unit) / count
                let error = abs(Double(result.gradient[index]) - exact)
                #expect(error <= bound, "\(name), \(outputs) outputs, logit \(index): \(error) > \(bound)")
            }
        }
    }

    @Test func everyKernelSetGivesTheSameBits() throws {
        for golden in try Goldens.cases("losses") {
            let (loss, outputs) = (try Self.loss(try #require(golden["name"]?.string)), try golden.int("outputs"))
            let logits = try #require(golden["logits"]).floats
            let targets = try Self.targets(golden, loss, outputs: outputs)
            let results = KernelSet.available.map { Self.run(loss, logits, outputs: outputs, targets, $0) }
            for (kernels, result) in zip(KernelSet.available, results) {
                #expect(result.loss == results[0].loss, "\(kernels.name)")
                #expect(result.gradient.map(\.bitPattern) == results[0].gradient.map(\.bitPattern), "\(kernels.name)")
            }
        }
    }

    @Test func extremeLogitsStayFinite() {
        for loss in [RowLoss.crossEntropy, .binary] {
            let target = loss == .crossEntropy ? RowTarget.index(1) : .values([0, 1, 1])
            let result = Self.run(loss, [1e38, -1e38, 100], outputs: 3, [target], .best)
            #expect(result.loss.isFinite && result.gradient.allSatisfy(\.isFinite), "\(loss): \(result)")
        }
        // A row that is ignored is not looked at, and one that is no number says so.
        var row: [Float] = [.nan, 1]
        #expect(RowLoss.crossEntropy.differentiate(&row, outputs: 2, .ignored, factor: 1, kernels: .best) == 0)
        #expect(row == [0, 0])
        let result = Self.run(.crossEntropy, [1, .nan, 0], outputs: 3, [.index(0)], .best)
        #expect(result.loss.isNaN && result.gradient.allSatisfy(\.isNaN))
    }

    @Test(arguments: [PairLoss.scores([]), .negatives(temperature: 0.05, isSymmetric: true)])
    func noPairsHaveNoLoss(loss: PairLoss) {
        let none = PairVectors(pairs: 0, width: 3, first: [], second: [])
        let result = loss.differentiate(none, weight: 1, threads: ThreadPool(threads: 1), kernels: .best)
        #expect(result.loss == 0 && result.gradients.first.isEmpty && result.gradients.second.isEmpty)
    }

    /// More pairs than a thread multiplies at a time: the loss is its definition's in double precision, and the gradient what that
    /// changes by. That of both directions is their mean.
    @Test(arguments: [false, true]) func manyPairsAreTheDefinition(isSymmetric: Bool) {
        let (count, width) = (37, 5)
        let floats = (0..<2 * count * width).map { Float(($0 * 7919 + 13) % 1009) / 504.5 - 1 }
        let second = count * width
        func loss(_ x: [Double]) -> Double {
            func row(_ first: Int) -> [Double] {
                let row = x[first..<first + width]
                let norm = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
                return row.map { $0 / norm }
            }
            func oneWay(from: Int, to: Int) -> Double {
                (0..<count).reduce(0.0) { sum, pair in
                    let own = row(from + pair * width)
                    let scores = (0..<count).map {
                        zip(own, row(to + $0 * width)).reduce(0) { $0 + $1.0 * $1.1 } / 0.05
                    }
                    let largest = scores.max() ?? 0
                    let total = scores.reduce(0) { $0 + exp($1 - largest) }
                    return sum + (largest + log(total) - scores[pair]) / Double(count)
                }
            }
            let there = oneWay(from: 0, to: second)
            return isSymmetric ? (there + oneWay(from: second, to: 0)) / 2 : there
        }
        let exact = floats.map(Double.init)
        let result = PairLoss.negatives(temperature: 0.05, isSymmetric: isSymmetric).differentiate(
            PairVectors(pairs: count, width: width, first: Array(floats[..<second]), second: Array(floats[second...])),
            weight: 1, threads: ThreadPool(threads: 2), kernels: .best)
        #expect(abs(result.loss - loss(exact)) < 1e-5)
        let gradient = result.gradients.first + result.gradients.second
        for place in stride(from: 0, to: exact.count, by: 7) {
            var moved = exact
            moved[place] += 1e-5
            let up = loss(moved)
            moved[place] -= 2e-5
            #expect(abs((up - loss(moved)) / 2e-5 - Double(gradient[place])) < 1e-5, "\(place)")
        }
    }

    @Test(arguments: [1, 3]) func pairsAreTorchs(threads: Int) throws {
        let pool = ThreadPool(threads: threads)
        let cases = try Goldens.cases("pairs")
        #expect(cases.count == 9)
        for golden in cases {
            let (count, width) = (try golden.int("pairs"), try golden.int("width"))
            let vectors = PairVectors(
                pairs: count, width: width, first: try #require(golden["first"]).floats,
                second: try #require(golden["second"]).floats)
            let name = try #require(golden["name"]?.string)
            let loss: PairLoss =
                name == "scores"
                ? .scores(try #require(golden["scores"]).floats)
                : .negatives(temperature: 0.05, isSymmetric: name == "symmetric")
            let result = loss.differentiate(vectors, weight: 1, threads: pool, kernels: .best)
            // A cosine is off by a rounding for each term of its chain and some of its norms; scores are 20 of them, and a
            // probability's relative error is twice a score's absolute one. The temperature's own rounding is one of 20.
            let scale = name == "scores" ? 1.0 : 20.0
            let cosine = unit * Double(width + 8)
            let relative = 2 * scale * cosine + unit * (4 * scale + 8)
            let expected = try golden.number("loss")
            #expect(
                abs(result.loss - expected) <= relative + 4 * unit * expected,
                "\(name), \(count): \(result.loss), not \(expected)")
            for (key, mine, side) in [
                ("first_gradient", result.gradients.first, vectors.first),
                ("second_gradient", result.gradients.second, vectors.second),
            ] {
                let exact = try golden.numbers(key)
                for row in 0..<count {
                    let columns = row * width..<(row + 1) * width
                    let norm = side[columns].reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
                    let error = columns.reduce(0.0) {
                        $0 + (Double(mine[$1]) - exact[$1]) * (Double(mine[$1]) - exact[$1])
                    }
                    .squareRoot()
                    // The gradient of a cosine is a unit vector; of both sides of every pair, probabilities sum to one.
                    let bound = 4 * scale * (relative + cosine) / norm
                    #expect(error <= bound, "\(name), \(key), pair \(row) of \(count): \(error) > \(bound)")
                }
            }
        }
    }

    @Test func sumsAreTheSameOnAnyRanks() throws {
        let leaves = (0..<37).map { (tile: Int) -> [Double] in
            let number = Double(tile)
            return [number * 0.1 + 1 / 3, 1e16 / (number + 1), -number]
        }
        let expected = try #require(Self.sums(leaves, ranks: 1).first)
        for ranks in [2, 3, 5, 8, 40] {
            for sums in try Self.sums(leaves, ranks: ranks) {
                #expect(sums.map(\.bitPattern) == expected.map(\.bitPattern), "\(ranks) ranks")
            }
        }
        // The definition: pairs of neighbours, level by level.
        var level = leaves
        while level.count > 1 {
            var next: [[Double]] = []
            for index in stride(from: 0, to: level.count, by: 2) {
                next.append(level[index])
                guard index + 1 < level.count else { continue }
                for place in 0..<3 { next[next.count - 1][place] += level[index + 1][place] }
            }
            level = next
        }
        #expect(level[0] == expected)
    }

    private static func sums(_ leaves: [[Double]], ranks: Int) throws -> [[Double]] {
        try VirtualRanks.run(count: ranks, seed: 3) { transport in
            var sums = StepSums(count: 3, tiles: leaves.count)
            // Not in order, and dealt out unevenly.
            for tile in leaves.indices.reversed() where (tile * tile + tile / 5) % ranks == transport.rank.index {
                sums.add(leaves[tile], tile: tile)
            }
            return try sums.total(over: transport)
        }
    }
}
