// What is observed of layers: the weights of transformers (scripts/goldens/make.py attention), statistics of those
// weights, rollouts of their matrices, and the same bits however documents are spread.

import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

@Suite struct ObservationTests {
    static let names = [
        "tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-albert", "tiny-electra", "tiny-mpnet", "tiny-modernbert",
        "tiny-deberta-v2", "tiny-deberta-v3", "tiny-esm",
    ]

    /// One layer of one document, put together from all ranks: (heads, tokens) each unless it says otherwise.
    private struct Layer: Equatable {
        var entropy, maxLogit, meanDistance, receivedMass, logSumExp: [Float]
        /// (heads, tokens, topKeys)
        var topKeys: [Int32]
        var topWeights: [Float]
        /// (heads, queries, tokens)
        var scores, weights: [Float]
        /// (heads, side, side): sums.
        var map: [Float]
    }

    private struct Found: Equatable {
        var layers: [Layer]
        /// For each traced token a share a token.
        var rollouts: [[Float]]
    }

    /// Runs one document, beside another one, on virtual ranks.
    private func observe(
        _ encoder: Encoder, _ ids: [Int32], queries: Range<Int>, topKeys: Int = 3, rollouts: [Int] = [], ranks: Int = 1,
        threads: Int = 1, layout: Layout = .contiguous, strategy: Strategy = .passKeyValue
    ) throws -> Found {
        let (count, heads) = (ids.count, encoder.configuration.headCount)
        let company: [Int32] = [5, 6, 7]
        let sharding = Sharding(lengths: [company.count, count], layout: layout, rankCount: ranks)
        var asked = AttentionObservation(layers: Set(0..<encoder.configuration.layerCount))
        asked.topKeys = topKeys
        asked.hasMaps = true
        asked.rollsOut = true
        let side = BlockGrid.side(tokens: count)
        let empty = Layer(
            entropy: Array(repeating: .nan, count: heads * count),
            maxLogit: Array(repeating: .nan, count: heads * count),
            meanDistance: Array(repeating: .nan, count: heads * count),
            receivedMass: Array(repeating: .nan, count: heads * count),
            logSumExp: Array(repeating: .nan, count: heads * count),
            topKeys: Array(repeating: -2, count: heads * count * topKeys),
            topWeights: Array(repeating: .nan, count: heads * count * topKeys),
            scores: Array(repeating: .nan, count: heads * queries.count * count),
            weights: Array(repeating: .nan, count: heads * queries.count * count),
            map: Array(repeating: 0, count: heads * side * side))
        /// A piece of a layer: which list, where, and the words.
        typealias Piece = (layer: Int, list: Int, place: Int, words: [Float])
        let asking = asked
        let parts = try VirtualRanks.run(count: ranks, seed: UInt64(ranks)) {
            transport -> (pieces: [Piece], shares: [(Int, Int, [Float])]) in
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, strategy: strategy, transport: transport,
                threads: ThreadPool(threads: threads), observing: asking)
            var pieces: [Piece] = []
            try run.run(
                ids: [company, ids],
                observed: { layer in
                    for tile in run.tiles where tile.sequence == 1 {
                        for head in 0..<heads {
                            for (list, buffer, width) in [
                                (0, layer.entropy, 1), (1, layer.maxLogit, 1), (2, layer.meanDistance, 1),
                                (3, layer.receivedMass ?? layer.entropy, 1), (4, layer.logSumExp, 1),
                                (5, layer.topKeyNumbers, topKeys), (6, layer.topWeights, topKeys),
                            ] {
                                let start = (head * layer.rows + tile.firstRow) * width
                                let words = withExtendedLifetime(buffer) {
                                    Array(
                                        UnsafeBufferPointer(
                                            start: buffer.pointer + start, count: tile.tokens.count * width))
                                }
                                pieces.append(
                                    (layer.layer, list, (head * count + tile.tokens.lowerBound) * width, words))
                            }
                        }
                    }
                    let first = Dictionary(uniqueKeysWithValues: run.tiles.map { ($0.firstRow, $0.sequence) })
                    for part in layer.blockSums where first[part.firstRow] == 1 {
                        pieces.append((layer.layer, 9, (part.head * side + part.firstBlock) * side, part.sums))
                    }
                    let rectangle = try layer.rectangle(
                        sequence: 1, queries: queries, keys: 0..<count, heads: Array(0..<heads))
                    for (head, parts) in rectangle.enumerated() {
                        for part in parts {
                            for (row, query) in part.rows.enumerated() {
                                let place =
                                    (head * queries.count + query - queries.lowerBound) * count + part.keys.lowerBound
                                let line = row * part.keys.count..<(row + 1) * part.keys.count
                                pieces.append((layer.layer, 7, place, Array(part.scores[line])))
                                pieces.append((layer.layer, 8, place, Array(part.weights[line])))
                            }
                        }
                    }
                })
            var shares: [(Int, Int, [Float])] = []
            for (number, token) in rollouts.enumerated() {
                let found = try run.rollout(from: token)
                for tile in run.tiles where tile.sequence == 1 {
                    shares.append((number, tile.tokens.lowerBound, Array(found[tile.rows])))
                }
            }
            return (pieces, shares)
        }
        var layers = Array(repeating: empty, count: encoder.configuration.layerCount)
        // Tiles of one block of rows add up, in their order.
        for piece in parts.flatMap(\.pieces).sorted(by: { ($0.layer, $0.list) < ($1.layer, $1.list) }) {
            let range = piece.place..<piece.place + piece.words.count
            switch piece.list {
            case 0: layers[piece.layer].entropy.replaceSubrange(range, with: piece.words)
            case 1: layers[piece.layer].maxLogit.replaceSubrange(range, with: piece.words)
            case 2: layers[piece.layer].meanDistance.replaceSubrange(range, with: piece.words)
            case 3: layers[piece.layer].receivedMass.replaceSubrange(range, with: piece.words)
            case 4: layers[piece.layer].logSumExp.replaceSubrange(range, with: piece.words)
            case 5:
                layers[piece.layer].topKeys.replaceSubrange(
                    range, with: piece.words.map { Int32(bitPattern: $0.bitPattern) })
            case 6: layers[piece.layer].topWeights.replaceSubrange(range, with: piece.words)
            case 7: layers[piece.layer].scores.replaceSubrange(range, with: piece.words)
            case 8: layers[piece.layer].weights.replaceSubrange(range, with: piece.words)
            default: for (place, word) in zip(range, piece.words) { layers[piece.layer].map[place] += word }
            }
        }
        var traced = rollouts.map { _ in [Float](repeating: .nan, count: count) }
        for (number, first, values) in parts.flatMap(\.shares) {
            traced[number].replaceSubrange(first..<first + values.count, with: values)
        }
        return Found(layers: layers, rollouts: traced)
    }

    @Test(arguments: names) func weightsEqualTransformers(name: String) throws {
        let file = try TensorFile(path: golden("attention/\(name).safetensors"))
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        let heads = encoder.configuration.headCount
        let short = try file.readIntegers("short.ids").map { Int32($0) }
        let expected = try file.readFloat32("short.weights")
        let found = try observe(encoder, short, queries: 0..<short.count, rollouts: [0, 9])
        let matrix = short.count * short.count
        for (index, layer) in found.layers.enumerated() {
            let weights = Array(expected[index * heads * matrix..<(index + 1) * heads * matrix])
            let worst = zip(layer.weights, weights).map { abs($0 - $1) }.max() ?? 0
            #expect(worst <= 1e-5, "\(name), layer \(index): weights off by \(worst)")
            try hold(layer, weights: weights, heads: heads, count: short.count, "\(name), layer \(index)")
        }
        // r ← r·(I + A)/2 with the dense matrices.
        for (number, token) in [0, 9].enumerated() {
            var shares = (0..<short.count).map { $0 == token ? 1.0 : 0 }
            for layer in found.layers.indices.reversed() {
                var next = shares.map { $0 / 2 }
                for head in 0..<heads {
                    for query in shares.indices {
                        for key in shares.indices {
                            let weight = expected[((layer * heads + head) * short.count + query) * short.count + key]
                            next[key] += shares[query] * Double(weight) / Double(2 * heads)
                        }
                    }
                }
                shares = next
            }
            let worst = zip(found.rollouts[number], shares).map { abs(Double($0) - $1) }.max() ?? 1
            #expect(worst <= 1e-5, "\(name), rollout of \(token): off by \(worst)")
        }

        let long = try file.readIntegers("long.ids").map { Int32($0) }
        let rows = try file.readIntegers("rows").map { Int($0) }
        let some = try file.readFloat32("long.weights")
        let whole = try observe(encoder, long, queries: 0..<long.count, ranks: 2)
        for layer in 0..<2 {
            for head in 0..<heads {
                for (place, row) in rows.enumerated() {
                    let mine = whole.layers[layer].weights[
                        (head * long.count + row) * long.count..<(head * long.count + row + 1) * long.count]
                    let first = ((layer * heads + head) * rows.count + place) * long.count
                    let worst = zip(mine, some[first..<first + long.count]).map { abs($0 - $1) }.max() ?? 1
                    #expect(worst <= 1e-5, "\(name), layer \(layer), head \(head), row \(row): off by \(worst)")
                }
            }
        }
        // Blocks of two tokens: a map is the sums of what rectangles hold.
        let (size, side) = (BlockGrid.size(tokens: long.count), BlockGrid.side(tokens: long.count))
        #expect(size == 2 && side == 150)
        for head in 0..<heads {
            var sums = [Double](repeating: 0, count: side * side)
            for row in long.indices {
                for key in long.indices {
                    sums[row / size * side + key / size] += Double(
                        whole.layers[0].weights[(head * long.count + row) * long.count + key])
                }
            }
            let worst =
                zip(whole.layers[0].map[head * side * side..<(head + 1) * side * side], sums).map {
                    abs(Double($0) - $1)
                }.max() ?? 1
            #expect(worst <= 1e-6, "\(name), head \(head): map off by \(worst)")
        }
    }

    /// Statistics against those of the weights of transformers, which are off by 1e-5 at most.
    private func hold(_ layer: Layer, weights: [Float], heads: Int, count: Int, _ place: String) throws {
        for head in 0..<heads {
            var mass = [Double](repeating: 0, count: count)
            for row in 0..<count {
                let start = (head * count + row) * count
                let line = weights[start..<start + count].map(Double.init)
                for key in line.indices { mass[key] += line[key] }
                let entropy = line.reduce(0) { $0 - ($1 > 0 ? $1 * log($1) : 0) }
                let distance = line.indices.reduce(0.0) { $0 + line[$1] * Double(abs(row - $1)) }
                // |d(−p·ln p)| ≤ (|ln p| + 1)·dp, and ln p of what counts is above −12.
                #expect(
                    abs(Double(layer.entropy[head * count + row]) - entropy) < 13e-5 * Double(count),
                    "\(place), head \(head), row \(row)")
                #expect(
                    abs(Double(layer.meanDistance[head * count + row]) - distance) < 1e-5 * Double(count * count),
                    "\(place), head \(head), row \(row)")
                let order = line.indices.sorted { (line[$1], $0) < (line[$0], $1) }
                for (rank, key) in layer.topKeys[(head * count + row) * 3..<(head * count + row + 1) * 3].enumerated() {
                    #expect(
                        key == Int32(order[rank]) || abs(line[Int(max(key, 0))] - line[order[rank]]) < 2e-5,
                        "\(place), head \(head), row \(row)")
                }
            }
            for key in 0..<count {
                #expect(
                    abs(Double(layer.receivedMass[head * count + key]) - mass[key]) < 1e-5 * Double(count),
                    "\(place), head \(head), key \(key)")
            }
        }
    }

    @Test(arguments: ["tiny-bert", "tiny-modernbert", "tiny-deberta-v2"])
    func theBitsAreTheSameHoweverDocumentsAreSpread(name: String) throws {
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        let ids = (0..<300).map { Int32(5 + $0 * 11 % 40) }
        let alone = try observe(encoder, ids, queries: 250..<262, rollouts: [270])
        #expect(!alone.layers.contains { $0.scores.contains { $0.isNaN } || $0.receivedMass.contains { $0.isNaN } })
        for (index, ranks) in [2, 3, 4, 5, 7, 8].enumerated() {
            let other = try observe(
                encoder, ids, queries: 250..<262, rollouts: [270], ranks: ranks, threads: 1 + ranks % 2,
                layout: Layout.allCases[index % Layout.allCases.count],
                strategy: Strategy.allCases[index % Strategy.allCases.count])
            #expect(other == alone, "\(name), \(ranks) ranks")
        }
    }

    /// Being observed changes no bit of the states.
    @Test func observingChangesNothing() throws {
        let encoder = try Encoder(Checkpoint(folder: golden("tiny-bert")), kernels: .best)
        let ids = [(0..<300).map { Int32(5 + $0 * 11 % 40) }, [5, 6]]
        let width = encoder.configuration.hiddenSize
        let plain = try hiddenStates(encoder, ids)
        let sharding = Sharding(lengths: ids.map(\.count), layout: .contiguous, rankCount: 1)
        let observed = try VirtualRanks.run(count: 1, seed: 1) { transport in
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1),
                observing: AttentionObservation(layers: [1]))
            try run.run(ids: ids)
            return withExtendedLifetime(run) {
                Array(UnsafeBufferPointer(start: run.hidden.pointer, count: 302 * width))
            }
        }[0]
        #expect(observed.map(\.bitPattern) == plain.flatMap { $0 }.map(\.bitPattern))
    }
}
