// Masks against their definition, and plans: any attention either is refused or is planned, validated and run with one
// rank's bytes.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Tiles

func fuzzMask(_ bytes: [UInt8]) {
    guard bytes.count >= 2 else { return }
    let shape = SequenceShape(
        queries: 2 * Int(bytes[0]), keys: bytes[1] == 0xFF ? 2 * Int(bytes[0]) : 2 * Int(bytes[1]))
    let expression = String(decoding: bytes.dropFirst(2), as: UTF8.self)
    guard let mask = try? Mask(parsing: expression, blocks: { _, size in try blocks(size, shape) }) else { return }
    // A sequence far longer than any, which a mask either fits or does not.
    _ = mask.incompatibility(with: SequenceShape(length: 1 << 40))
    guard mask.incompatibility(with: shape) == nil else { return }
    let pieces = mask.pieces(of: shape)
    check(pieces.pieces.reduce(0) { $0 + $1.queries } == shape.queries, "the pieces have other queries than the whole")
    // The definition goes over all pairs, and for each over the expression.
    let isShort = bytes.count <= 96
    var total = 0
    for queryTile in 0..<TileGrid.count(length: shape.queries) {
        let rows = TileGrid.tokens(of: queryTile, length: shape.queries)
        let visible = mask.keyTiles(queryTile: queryTile, in: shape)
        let pairs = mask.visiblePairs(queryTile: queryTile, in: shape)
        total += pairs
        guard isShort else { continue }
        var defined = 0
        for keyTile in 0..<TileGrid.count(length: shape.keys) {
            let keys = TileGrid.tokens(of: keyTile, length: shape.keys)
            var count = 0
            for row in rows { for key in keys where mask.sees(row: row, key: key, in: shape) { count += 1 } }
            defined += count
            check(
                visible.any.contains(keyTile) == (count > 0),
                "query tile \(queryTile) sees \(count) pairs of key tile \(keyTile): \(mask)")
            check(
                visible.all.contains(keyTile) == (count == rows.count * keys.count),
                "query tile \(queryTile), key tile \(keyTile), \(count) pairs: \(mask)")
        }
        check(pairs == defined, "query tile \(queryTile) sees \(defined) pairs, and \(pairs) were counted: \(mask)")
    }
    check(mask.visiblePairs(in: shape) == total, "the pairs of all tiles")
}

private struct TooManyBlocks: Error {}

/// A matrix of blocks that fits, made of nothing but its size.
private func blocks(_ size: Int, _ shape: SequenceShape) throws -> BlockMask {
    let rows = (shape.queries + size - 1) / size
    let columns = (shape.keys + size - 1) / size
    guard rows * columns <= 1 << 14 else { throw TooManyBlocks() }
    return BlockMask(
        size: size, rows: rows, columns: columns, cells: (0..<rows * columns).map { ($0 * 2_654_435_761) >> 7 & 3 != 0 }
    )
}

/// Numbers out of bytes; zeros behind the last.
private struct Draw {
    private var bytes: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    mutating func number(_ range: ClosedRange<Int>) -> Int {
        var value = Int(bytes.popFirst() ?? 0)
        if range.count > 256 { value = value << 8 | Int(bytes.popFirst() ?? 0) }
        return range.lowerBound + value % range.count
    }

    mutating func one<Value>(of values: [Value]) -> Value { values[number(0...values.count - 1)] }

    /// The rest as text.
    var rest: String { String(decoding: bytes, as: UTF8.self) }
}

func fuzzPlan(_ bytes: [UInt8]) {
    var draw = Draw(bytes)
    let ranks = draw.number(1...16)
    let strategy = draw.one(of: Strategy.allCases)
    let layout = draw.one(of: Layout.allCases)
    let keyValueHeads = draw.number(1...4)
    let heads = HeadShape(
        queryHeads: keyValueHeads * draw.number(1...4), keyValueHeads: keyValueHeads,
        headDimension: draw.number(1...20),
        valueDimension: draw.number(1...20))
    let ranksPerNode = draw.number(1...17)
    let storage = draw.number(0...2)
    // Few sequences of any length, up to some tiles for each rank, or short ones.
    let longest = draw.one(of: [0, 3, 257, 600, 2100])
    var sequences: [SequenceShape] = []
    for _ in 0..<draw.number(0...4) {
        let queries = draw.number(0...longest)
        let isSelf = draw.number(0...2) > 0
        sequences.append(SequenceShape(queries: queries, keys: isSelf ? queries : draw.number(0...longest)))
    }
    // Behind the numbers stands a mask, which must fit all sequences, else `causal`.
    let first = sequences.first ?? SequenceShape(length: 0)
    var mask = (try? Mask(parsing: draw.rest, blocks: { _, size in try blocks(size, first) })) ?? .causal
    if sequences.contains(where: { mask.incompatibility(with: $0) != nil }) { mask = .causal }
    // What looks at whole sequences has its pieces planned for one alone.
    var ringCase = RingCase(sequences, heads: heads, mask: mask, layout: layout, seed: 7)
    ringCase.strategy = strategy
    ringCase.ranksPerNode = ranksPerNode
    if storage == 1 { ringCase.element = .bfloat16 }
    if storage == 2 { ringCase.wire = .bfloat16 }

    let plans = ringCase.plans(ranks: ranks)
    do { try Plan.validate(plans) } catch { preconditionFailure("\(error) on \(ranks) ranks: \(ringCase)") }
    // Speeds and links as far apart as they come.
    let link = Cluster.Link(latency: 1e-6, bandwidth: 1e9)
    let cluster = Cluster(
        nodes: (0...(ranks - 1) / ranksPerNode).map {
            Cluster.Node(name: "node \($0)", memory: 0x1p30, inside: link, between: link)
        },
        ranks: (0..<ranks).map { Cluster.Place(node: $0 / ranksPerNode, flops: $0 % 3 == 1 ? 1 : 1e18) })
    checkPrices(on: cluster, strategy, layout) { [ringCase] layout in
        var ringCase = ringCase
        ringCase.layout = layout
        return ringCase.problem(ranks: ranks)
    }
    let pairs = sequences.reduce(0) { $0 + $1.queries * $1.keys }
    // Small enough to be run twice well within a second.
    guard pairs * heads.queryHeads * (heads.headDimension + heads.valueDimension) <= 1 << 23 else { return }
    do {
        let alone = try VirtualRanks.run(count: 1, seed: 1, fillsReceives: true) { [ringCase] in
            try ringCase.run(on: $0)
        }
        let spread = try VirtualRanks.run(count: ranks, seed: 2, fillsReceives: true) { [ringCase] in
            try ringCase.run(on: $0)
        }
        check(spread.allSatisfy { $0.sameBits(as: alone[0]) }, "other bytes on \(ranks) ranks than on one: \(ringCase)")
        check(
            spread.map(\.bytesSent) == plans.map(\.bytesSent),
            "other bytes were sent than planned on \(ranks) ranks: \(ringCase)")
    } catch {
        preconditionFailure("\(error) on \(ranks) ranks: \(ringCase)")
    }
}

/// Prices a job, which must give numbers.
func checkPrices(
    on cluster: Cluster, _ strategy: Strategy, _ layout: Layout,
    problem: @escaping @Sendable (Layout) -> AttentionProblem
) {
    for price in Pricing(on: cluster, problem: problem).prices([strategy], [layout]) {
        let numbers = [
            price.seconds, price.exposedSeconds, price.bytes, price.messages, price.memory, price.nodeMemory,
            price.balance,
        ]
        check(numbers.allSatisfy { $0.isFinite && $0 >= 0 }, "the price \(price)")
    }
}
