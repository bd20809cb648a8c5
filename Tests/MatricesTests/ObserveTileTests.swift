// Statistics that ride on a tile's attention: attention's own bits, the statistics by their definition, and the same bits
// whichever way they are made.

import CKernels
import Foundation
import Matrices
import Testing

struct ObserveTileTests {
    /// What the statistics of some rows are written into.
    private struct Room {
        var weighted, distances, best, scores: [Float]
        var keys, bestKeys: [Int32]

        init(rows: Int, count: Int) {
            weighted = Array(repeating: guardValue, count: rows + 1)
            distances = weighted
            best = Array(repeating: -.infinity, count: rows * count + 1)
            scores = Array(repeating: guardValue, count: rows * count + 1)
            keys = Array(repeating: -7, count: rows * count + 1)
            bestKeys = Array(repeating: -1, count: rows * count + 1)
        }

        var bits: [[UInt32]] {
            [weighted, distances, best, scores].map(\.bitPatterns)
                + [keys, bestKeys].map { $0.map { UInt32(bitPattern: $0) } }
        }

        mutating func use(
            distance: Int, count: Int, firstKey: Int32, _ body: (UnsafePointer<annulus_statistics>) -> Void
        ) {
            weighted.withUnsafeMutableBufferPointer { weighted in
                distances.withUnsafeMutableBufferPointer { distances in
                    best.withUnsafeMutableBufferPointer { best in
                        scores.withUnsafeMutableBufferPointer { scores in
                            keys.withUnsafeMutableBufferPointer { keys in
                                bestKeys.withUnsafeMutableBufferPointer { bestKeys in
                                    let statistics = annulus_statistics(
                                        weighted: weighted.baseAddress, distances: distances.baseAddress,
                                        distance: distance, count: count, best: best.baseAddress,
                                        best_keys: bestKeys.baseAddress,
                                        scores: scores.baseAddress, keys: keys.baseAddress, first_key: firstKey)
                                    withUnsafePointer(to: statistics, body)
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    @Test(
        "attention's bits beside the statistics of observe_rows, in every set",
        arguments: [1, 16, 33, 64], [1, 40, 64, 130, 256])
    func sameBits(depth: Int, keys: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let width = padded(depth), stride = padded(keys)
        let k = random.floats(keys * depth), v = random.floats(keys * depth)
        for (count, rows) in [(1, 1), (3, 12), (8, 13), (1, 23), (300, 24), (2, 48), (5, 53)] {
            let q = random.floats(rows * depth + 1, -30...30)
            let distance = random.below(600) - 300
            var firsts: [String: [[UInt32]]] = [:]
            for set in softmaxSets {
                let functions = set.functions
                var kPanels = [Float](repeating: 0, count: stride * depth),
                    vPanels = [Float](repeating: 0, count: width * keys)
                functions.pack_transposed(k, depth, keys, depth, &kPanels, 16 * depth)
                functions.pack_columns(v, depth, keys, depth, &vPanels, 16 * keys)
                let scratch = AlignedBuffer(count: scratchRows * stride)
                var rowMax = [Float](repeating: guardValue, count: rows + 1), rowSum = rowMax
                var output = [Float](repeating: guardValue, count: rows * width + 16)
                functions.attend_tile(
                    q, depth, rows, kPanels, depth, vPanels, depth, keys, &rowMax, &rowSum, &output, width,
                    scratch.pointer, kPanels)
                var observedMax = [Float](repeating: guardValue, count: rows + 1), observedSum = observedMax
                var observed = [Float](repeating: guardValue, count: rows * width + 16)
                var fused = Room(rows: rows, count: count)
                fused.use(distance: distance, count: count, firstKey: 100) {
                    functions.observe_tile(
                        q, depth, rows, kPanels, depth, vPanels, depth, keys, &observedMax, &observedSum, &observed,
                        width, scratch.pointer, kPanels, $0)
                }
                let context = "\(set.name), \(rows) rows, \(count) keys kept, seed \(random.seed)"
                #expect(observedMax.bitPatterns == rowMax.bitPatterns, "\(context)")
                #expect(observedSum.bitPatterns == rowSum.bitPatterns, "\(context)")
                #expect(observed.bitPatterns == output.bitPatterns, "\(context)")

                var scores = [Float](repeating: 0, count: rows * stride + 1)
                kPanels.withUnsafeBufferPointer { panels in
                    scores.withUnsafeMutableBufferPointer { scores in
                        guard let panels = panels.baseAddress, let scores = scores.baseAddress else { return }
                        for key in Swift.stride(from: 0, to: keys, by: 64) {
                            functions.panel_product(
                                q, depth, rows, panels + key * depth, depth, 16 * depth, min(64, stride - key),
                                scores + key, stride, 0)
                        }
                    }
                }
                let plain = scores
                var apart = Room(rows: rows, count: count)
                apart.use(distance: distance, count: count, firstKey: 100) {
                    functions.observe_rows(&scores, stride, rows, keys, nil, 0, &observedMax, &observedSum, $0)
                }
                #expect(apart.bits == fused.bits, "\(context)")
                check(fused, plain, stride: stride, keys: keys, rowMax, distance: distance, count: count, context)
                #expect(fused.bits == firsts[set.kind, default: fused.bits], "\(context)")
                firsts[set.kind] = firsts[set.kind] ?? fused.bits
            }
        }
    }

    @Test(
        "bfloat16: attention's bits beside the statistics of the weights before they are rounded, in every set",
        arguments: [1, 33, 64], [1, 40, 64, 131, 256])
    func sameBitsInPairs(depth: Int, keys: Int) {
        var random = RandomNumbers()
        print("seed \(random.seed)")
        let width = padded(depth), stride = padded(keys), pairs = (depth + 1) / 2, scale: Float = 40.5
        let k = random.floats(keys * depth), v = random.floats(keys * depth)
        for (count, rows) in [(1, 1), (3, 12), (8, 13), (300, 24), (2, 41)] {
            let q = PairModel.pairs(random.floats(rows * depth, -3...3), rows: rows, columns: depth)
            let distance = random.below(600) - 300
            var firsts: [String: [[UInt32]]] = [:]
            for set in softmaxSets {
                let functions = set.bfloat16Functions
                var kPanels = [UInt32](repeating: 0, count: stride * pairs),
                    vPanels = [UInt32](repeating: 0, count: width * ((keys + 1) / 2))
                functions.pack_transposed(k, depth, keys, depth, &kPanels, 16 * pairs)
                functions.pack_columns(v, depth, keys, depth, &vPanels, (keys + 1) / 2 * 16)
                let scratch = AlignedBuffer(count: scratchRows * stride)
                var rowMax = [Float](repeating: guardValue, count: rows + 1), rowSum = rowMax
                var output = [Float](repeating: guardValue, count: rows * width + 16)
                functions.attend_tile(
                    q, pairs, rows, kPanels, depth, vPanels, depth, keys, scale, &rowMax, &rowSum, &output, width,
                    scratch.pointer)
                var observedMax = [Float](repeating: guardValue, count: rows + 1), observedSum = observedMax
                var observed = [Float](repeating: guardValue, count: rows * width + 16)
                var fused = Room(rows: rows, count: count)
                fused.use(distance: distance, count: count, firstKey: 100) {
                    functions.observe_tile(
                        q, pairs, rows, kPanels, depth, vPanels, depth, keys, scale, &observedMax, &observedSum,
                        &observed, width, scratch.pointer, $0)
                }
                let context = "\(set.name), \(rows) rows, \(count) keys kept, seed \(random.seed)"
                #expect(observedMax.bitPatterns == rowMax.bitPatterns, "\(context)")
                #expect(observedSum.bitPatterns == rowSum.bitPatterns, "\(context)")
                #expect(observed.bitPatterns == output.bitPatterns, "\(context)")

                var scores = [Float](repeating: 0, count: rows * stride + 1)
                scores.withUnsafeMutableBufferPointer { scores in
                    guard let scores = scores.baseAddress else { return }
                    for key in Swift.stride(from: 0, to: keys, by: 64) {
                        functions.panel_product(
                            q, pairs, rows, Array(kPanels[(key * pairs)...]), depth, 16 * pairs,
                            min(64, stride - key), scores + key, stride, 0)
                    }
                }
                let steps = scores.map { $0 * scale }
                var plain = scores
                functions.softmax_rows(&plain, stride, rows, keys, nil, 0, scale, &rowMax, &rowSum)
                var apart = Room(rows: rows, count: count)
                apart.use(distance: distance, count: count, firstKey: 100) {
                    functions.observe_rows(&scores, stride, rows, keys, nil, 0, scale, &observedMax, &observedSum, $0)
                }
                #expect(apart.bits == fused.bits, "\(context)")
                #expect(scores.bitPatterns == plain.bitPatterns, "\(context)")
                #expect(
                    [observedMax, observedSum].map(\.bitPatterns) == [rowMax, rowSum].map(\.bitPatterns), "\(context)")
                check(
                    fused, steps, stride: stride, keys: keys, rowMax, distance: distance, count: count, rounded: true,
                    context)
                #expect(fused.bits == firsts[set.kind, default: fused.bits], "\(context)")
                firsts[set.kind] = firsts[set.kind] ?? fused.bits
            }
        }
    }

    @Test("bfloat16: what is masked or −∞ adds nothing to statistics, a NaN makes them NaN")
    func masksInPairs() {
        let keys = 100, stride = padded(keys), rows = 5
        for set in softmaxSets {
            // Row 0 sees all, row 1 some, row 2 nothing, row 3 all amid −∞, row 4 a NaN.
            var scores = (0..<rows * stride).map { Float($0 * 37 % 101) / 8 }
            scores[stride + 7] = .nan
            for key in 0..<keys where key % 3 == 0 { scores[3 * stride + key] = -.infinity }
            scores[4 * stride + 50] = .nan
            let mask = maskWords(rows: rows, columns: keys) { row, key in row == 1 ? key % 5 == 1 : row != 2 }
            let plain = scores
            var rowMax = [Float](repeating: 0, count: rows), rowSum = rowMax
            var room = Room(rows: rows, count: 2)
            mask.words.withUnsafeBufferPointer { words in
                room.use(distance: -20, count: 2, firstKey: 0) {
                    set.bfloat16Functions.observe_rows(
                        &scores, stride, rows, keys, words.baseAddress, mask.stride, 2.5, &rowMax, &rowSum, $0)
                }
            }
            for row in 0..<rows {
                let seen = (0..<keys).filter { row == 1 ? $0 % 5 == 1 : row != 2 }
                let line = seen.map { Double(plain[row * stride + $0] * 2.5) }
                if row == 4 {
                    #expect(room.weighted[row].isNaN && room.distances[row].isNaN, "\(set.name)")
                    continue
                }
                let top = line.max() ?? 0
                let weights = line.map { exp2(($0 - top) / 32) }
                let weighted = zip(weights, line).reduce(0) { $0 + ($1.1 > -.infinity ? $1.0 * ($1.1 - top) : 0) }
                let distances = zip(weights, seen).reduce(0) { $0 + $1.0 * Double(abs($1.1 - 20 - row)) }
                #expect(abs(Double(room.weighted[row]) - weighted) <= 1e-5 * abs(weighted), "\(set.name), row \(row)")
                #expect(abs(Double(room.distances[row]) - distances) <= 1e-5 * distances, "\(set.name), row \(row)")
                let best = seen.indices.filter { line[$0] > -.infinity }.sorted { (line[$1], $0) < (line[$0], $1) }
                #expect(
                    (0..<2).map { room.keys[row * 2 + $0] }
                        == (0..<2).map { $0 < best.count ? Int32(seen[best[$0]]) : -1 },
                    "\(set.name), row \(row)")
            }
        }
    }

    /// The statistics by their definition, in double precision.
    /// - Parameter rounded: whether scores became steps by a product that rounded, as the largest did.
    private func check(
        _ room: Room, _ scores: [Float], stride: Int, keys: Int, _ rowMax: [Float], distance: Int, count: Int,
        rounded: Bool = false, _ context: String
    ) {
        for row in 0..<rowMax.count - 1 {
            let line = scores[row * stride..<row * stride + keys].map(Double.init)
            // The unit roundoff of scores and their maximum goes into each difference.
            let size = rounded ? line.reduce(0) { max($0, abs($1)) } * 0x1p-22 : 0
            var (weighted, distances, offWeighted, offDistances) = (0.0, 0.0, 0.0, 0.0)
            for (key, score) in line.enumerated() {
                let below = score - Double(rowMax[row])
                let weight = exp2(below / 32)
                let far = Double(abs(distance - row + key))
                weighted += weight * below
                distances += weight * far
                // d(w·x) = w·(1 + x·ln 2/32)·dx
                offWeighted += weight * (1 + abs(below) / 46) * size
                offDistances += weight * far / 46 * size
            }
            // A weight is good to 3·10⁻⁷; sums of 16 lanes add γ.
            let error = 3e-7 + gamma(keys / 16 + 8)
            #expect(
                abs(Double(room.weighted[row]) - weighted) <= error * abs(weighted) + offWeighted + 1e-5 * 0x1p-24,
                "\(context), row \(row)")
            #expect(
                abs(Double(room.distances[row]) - distances) <= error * distances + offDistances,
                "\(context), row \(row)")
            let order = line.indices.sorted { (line[$1], $0) < (line[$0], $1) }.prefix(count)
            let found = room.keys[row * count..<(row + 1) * count]
            #expect(
                Array(found) == order.map { Int32(100 + $0) } + Array(repeating: -1, count: count - order.count),
                "\(context), row \(row)")
            #expect(
                zip(room.scores[row * count..<(row + 1) * count], order).allSatisfy { Double($0) == line[$1] },
                "\(context), row \(row)")
        }
    }

    @Test("a tile has nothing for rows whose best it does not exceed; of equals the earlier keys stay")
    func onlyWhatExceedsTheBest() {
        for set in kernelSets {
            let functions = set.functions
            var scores: [Float] = Array(repeating: 1, count: 64)
            (scores[3], scores[9], scores[40]) = (2, 3, 2)
            var room = Room(rows: 1, count: 2)
            (room.best[0], room.best[1]) = (3, 2)
            (room.bestKeys[0], room.bestKeys[1]) = (-5, -4)
            var (rowMax, rowSum): ([Float], [Float]) = ([0], [0])
            room.use(distance: 0, count: 2, firstKey: 0) {
                functions.observe_rows(&scores, 64, 1, 64, nil, 0, &rowMax, &rowSum, $0)
            }
            #expect(room.keys[0] == 9 && room.keys[1] == -1 && room.scores[0] == 3, "\(set.name)")
            #expect(room.best[0] == 3 && room.best[1] == 3, "\(set.name)")
        }
    }

    @Test("merges shift to the common maximum, skip what is absent, and keep the lists in order")
    func merges() {
        for set in kernelSets {
            let functions = set.functions
            let none = -Float.infinity
            let leftMax: [Float] = [0, none, 32, none], rightMax: [Float] = [32, 5, none, none]
            var weighted: [Float] = [-8, 7, -3, 6], linear: [Float] = [4, 7, 9, 6]
            functions.merge_statistics(
                4, leftMax, [2, 0, 1, 0], rightMax, [1, 1, 0, 0], &weighted, &linear, [-1, -2, 7, 8], [3, 11, 7, 8])
            // Half of (−8 − 32·2), and what is right of it.
            #expect(weighted[0] == -37 && linear[0] == 5, "\(set.name)")
            #expect(weighted[1] == -2 && linear[1] == 11 && weighted[2] == -3 && linear[2] == 9, "\(set.name)")

            var scores: [Float] = [5, 3, none], keys: [Int32] = [7, 2, -1]
            functions.merge_best(1, 3, &scores, &keys, [5, 4, 3], [300, 301, 302])
            #expect(scores == [5, 5, 4] && keys == [7, 300, 301], "\(set.name)")
        }
    }
}
