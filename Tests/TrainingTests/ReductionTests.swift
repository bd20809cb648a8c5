// Gradients brought together: the tree's sums, the same bytes on any ranks, and the bytes that the formula counts.

import Files
import Matrices
import RingAttention
import Testing
import Tiles
import Training
import Transformers

/// Made-up gradients: every tile's own are a function of slot, tile and place.
private struct MadeUp: Sendable {
    let slots: [GradientSlot]
    let tiles: Int
    let seed: UInt64

    static let parameters = [
        Parameter(name: "z.weight", shape: [301, 384]), Parameter(name: "a.bias", shape: [17]),
        Parameter(name: "words.weight", shape: [900, 250]), Parameter(name: "fused.weight", shape: [96, 700]),
        Parameter(name: "m.weight", shape: [130_001]),
    ]

    init(tiles: Int, seed: UInt64) {
        self.tiles = tiles
        self.seed = seed
        let p = Self.parameters
        // A fused projection in three parts, a table that is a decoder too, and one slot that another sums onto.
        slots = [
            GradientSlot(parameter: p[2], floats: 0..<225_000, rowWidth: 250),
            GradientSlot(parameter: p[3], floats: 0..<30_000), GradientSlot(parameter: p[3], floats: 30_000..<30_001),
            GradientSlot(parameter: p[3], floats: 30_001..<67_200), GradientSlot(parameter: p[0], floats: 0..<115_584),
            GradientSlot(parameter: p[1], floats: 0..<17), GradientSlot(parameter: p[4], floats: 0..<130_001),
            GradientSlot(parameter: p[4], floats: 0..<130_001), GradientSlot(parameter: p[2], floats: 0..<225_000),
        ]
    }

    /// The sum of a slot over a subtree: its floats, and which of them any tile adds to.
    struct Sum: Sendable {
        var values: [Float]
        var isThere: [Bool]
    }

    private func key(_ slot: Int, _ tile: Int) -> UInt64 { mixedKey(seed, UInt64(slot), UInt64(tile)) }

    /// A tile's own numbers: of some rows where the slot is one of rows; nil where the tile adds nothing, as of a head's
    /// parameters many do.
    private func leaf(slot: Int, tile: Int) -> Sum? {
        guard tile < tiles, slot < 5 || (tile + slot) % 3 == 0 else { return nil }
        let key = key(slot, tile)
        let count = slots[slot].floats.count
        var sum = Sum(
            values: Array(repeating: 0, count: count),
            isThere: Array(repeating: slots[slot].rowWidth == nil, count: count))
        for index in 0..<count {
            if slots[slot].rowWidth != nil {
                guard mixedKey(key, UInt64(index / 250), 1) % 40 == 0 else { continue }
                sum.isThere[index] = true
            }
            sum.values[index] = CountedNormal.value(key: key, index: index)
        }
        return sum
    }

    /// The sum over a subtree by the tree's definition.
    func sum(slot: Int, _ node: TreeNode) -> Sum? {
        if node.level == 0 { return leaf(slot: slot, tile: node.index) }
        let left = sum(slot: slot, TreeNode(level: node.level - 1, index: 2 * node.index))
        let right = sum(slot: slot, TreeNode(level: node.level - 1, index: 2 * node.index + 1))
        guard var both = left, let right else { return left ?? right }
        for index in both.values.indices where right.isThere[index] {
            both.values[index] = both.isThere[index] ? both.values[index] + right.values[index] : right.values[index]
            both.isThere[index] = true
        }
        return both
    }

    /// The part of a subtree, as a rank has it.
    func part(slot: Int, _ node: TreeNode) -> GradientPart? {
        guard let sum = sum(slot: slot, node) else { return nil }
        let places = sum.values.indices.filter { sum.isThere[$0] }
        let values = AlignedBuffer(count: places.count + 3)
        for (index, place) in places.enumerated() { values.pointer[index] = sum.values[place] }
        var rows: [Int32]?
        if slots[slot].rowWidth != nil {
            rows = stride(from: 0, to: places.count, by: 250).map { Int32(places[$0] / 250) }
        }
        return GradientPart(node: node, rows: rows, values: values, count: places.count)
    }

    /// The whole gradient, in the order of names.
    func gradient(_ blocks: ParameterBlocks) -> [Float] {
        var level = 0
        while 1 << level < tiles { level += 1 }
        var result = [Float](repeating: 0, count: blocks.count)
        var isWritten = [Bool](repeating: false, count: blocks.count)
        for (slot, place) in slots.enumerated() {
            let first = blocks.entry(place.parameter.name)!.range.lowerBound + place.floats.lowerBound
            guard let sum = sum(slot: slot, TreeNode(level: level, index: 0)) else { continue }
            for index in sum.values.indices where sum.isThere[index] {
                let target = first + index
                result[target] = isWritten[target] ? result[target] + sum.values[index] : sum.values[index]
                isWritten[target] = true
            }
        }
        return result
    }
}

private func mixedKey(_ a: UInt64, _ b: UInt64, _ c: UInt64) -> UInt64 {
    mixed(a &+ b &* Stride.number &+ c &* Stride.stream)
}

@Suite struct ReductionTests {
    /// Which rank has a tile: a run of consecutive tiles, or anything.
    private static func owner(_ tile: Int, _ tiles: Int, _ ranks: Int, isContiguous: Bool) -> Int {
        isContiguous ? tile * ranks / tiles : Int(mixedKey(7, UInt64(tile), 3) % UInt64(ranks))
    }

    private static func nodes(_ tiles: Range<Int>, of all: Int, ranks: Int, isContiguous: Bool) -> [[TreeNode]] {
        (0..<ranks).map { rank in
            let mine = tiles.filter { owner($0, all, ranks, isContiguous: isContiguous) == rank }
            return TreeNode.maximal(in: Runs(mine.map { $0..<$0 + 1 }), of: Runs(0..<all))
        }
    }

    @Test(arguments: [(1, 1), (7, 2), (12, 3)]) func gradientsAreThoseOfTheTree(tiles: Int, batches: Int) throws {
        let made = MadeUp(tiles: tiles, seed: 11)
        let blocks = ParameterBlocks(MadeUp.parameters)
        let expected = made.gradient(blocks)
        for ranks in [1, 2, 3, 5, 8] {
            for isContiguous in [true, false] where ranks > 1 || isContiguous {
                let results = try VirtualRanks.run(count: ranks, seed: 5, fillsReceives: true) { transport in
                    let threads = ThreadPool(threads: 1 + transport.rank.index % 2)
                    let reduction = GradientReduction(
                        slots: made.slots, blocks, tiles: tiles, over: transport, threads: threads)
                    for batch in 0..<batches {
                        let these = batch * tiles / batches..<(batch + 1) * tiles / batches
                        let nodes = Self.nodes(these, of: tiles, ranks: ranks, isContiguous: isContiguous)
                        let parts = made.slots.indices.map { slot in
                            nodes[transport.rank.index].compactMap { made.part(slot: slot, $0) }
                        }
                        try reduction.add(parts, nodes: nodes)
                    }
                    let mine = blocks.floats(of: blocks.blocks(of: transport.rank, of: ranks))
                    let target = AlignedBuffer(count: mine.count)
                    reduction.finish(into: target)
                    return (
                        Array(UnsafeBufferPointer(start: target.pointer, count: mine.count)), transport.traffic.bytes
                    )
                }
                let gradient = results.flatMap(\.0)
                #expect(gradient.count == expected.count)
                let wrong = zip(gradient, expected).enumerated().first {
                    $0.element.0.bitPattern != $0.element.1.bitPattern
                }
                #expect(wrong == nil, "\(ranks) ranks, \(tiles) tiles: \(String(describing: wrong))")
                let bytes = Self.bytes(made, blocks, ranks: ranks, batches: batches, isContiguous: isContiguous)
                #expect(results.map(\.1) == bytes, "\(ranks) ranks, \(tiles) tiles")
            }
        }
    }

    /// What each rank sends by the formula, counted float by float.
    private static func bytes(
        _ made: MadeUp, _ blocks: ParameterBlocks, ranks: Int, batches: Int, isContiguous: Bool
    ) -> [Int] {
        var result = [Int](repeating: 0, count: ranks)
        for batch in 0..<batches {
            let tiles = batch * made.tiles / batches..<(batch + 1) * made.tiles / batches
            let nodes = nodes(tiles, of: made.tiles, ranks: ranks, isContiguous: isContiguous)
            for rank in 0..<ranks {
                for (slot, place) in made.slots.enumerated() {
                    let first = blocks.entry(place.parameter.name)!.range.lowerBound
                    for node in nodes[rank] {
                        let sum = made.sum(slot: slot, node)
                        for block in 0..<blocks.blockCount {
                            let owner = (0..<ranks).first { blocks.blocks(of: Rank($0), of: ranks).contains(block) }
                            let floats = blocks.floats(of: block..<block + 1).clamped(
                                to: first + place.floats.lowerBound..<first + place.floats.upperBound)
                            if owner == rank || floats.isEmpty { continue }
                            let there = floats.filter { sum?.isThere[$0 - first - place.floats.lowerBound] ?? false }
                            result[rank] += 4 + 4 * there.count
                            if place.rowWidth != nil { result[rank] += 4 * Set(there.map { ($0 - first) / 250 }).count }
                        }
                    }
                }
            }
        }
        return result
    }

    @Test func trainedWeightsAreTheSameOnAnyRanks() throws {
        let blocks = ParameterBlocks(MadeUp.parameters, heads: ["z.weight"])
        let adam = AdamW(weightDecay: 0.01)
        func trained(_ ranks: Int) throws -> [Float] {
            let all = try VirtualRanks.run(count: ranks, seed: 9, fillsReceives: true) { transport in
                let threads = ThreadPool(threads: 2)
                let masters = try MasterWeights(blocks, from: RandomParameters(seed: 4))
                let shard = OptimizerShard(adam, blocks, rank: transport.rank, of: ranks)
                let gradient = AlignedBuffer(count: shard.floats.count)
                for step in 0..<2 {
                    let made = MadeUp(tiles: 3, seed: UInt64(step))
                    let nodes = Self.nodes(0..<3, of: 3, ranks: ranks, isContiguous: true)
                    let reduction = GradientReduction(
                        slots: made.slots, blocks, tiles: 3, over: transport, threads: threads)
                    try reduction.add(
                        made.slots.indices.map { slot in
                            nodes[transport.rank.index].compactMap { made.part(slot: slot, $0) }
                        }, nodes: nodes)
                    reduction.finish(into: gradient)
                    let norm = try GradientNorm.norm(gradient, blocks, over: transport, threads: threads)
                    shard.update(
                        masters, gradient: gradient, factor: GradientNorm.factor(norm: norm, most: 1), rate: 1e-3,
                        headRate: 1e-2, threads: threads)
                    let before = transport.traffic.bytes
                    try masters.share(over: transport)
                    #expect(transport.traffic.bytes - before == 4 * shard.floats.count * (ranks - 1))
                }
                return Array(UnsafeBufferPointer(start: masters.floats, count: blocks.count))
            }
            for other in all.dropFirst() { #expect(other == all[0], "\(ranks) ranks") }
            return all[0]
        }
        let expected = try trained(1)
        for ranks in [2, 3, 5, 8] {
            #expect(try trained(ranks).map(\.bitPattern) == expected.map(\.bitPattern), "\(ranks) ranks")
        }
    }
}
