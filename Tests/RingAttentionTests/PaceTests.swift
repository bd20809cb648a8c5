// What a rank's clock counts: the work of units that tell how fast it is, and no other.

import Attention
import Matrices
import Plans
import RingAttention
import Testing
import Tiles

@Suite struct PaceTests {
    private static let heads = HeadShape(queryHeads: 3, keyValueHeads: 3, headDimension: 9, valueDimension: 14)

    /// Each rank's pace, and how long the ranks took together, after so many attentions.
    private static func paces(
        _ length: Int, _ mask: Mask, _ strategy: Strategy, ranks: Int, threads: Int, times: Int = 1
    ) throws -> (paces: [Pace], seconds: Double) {
        let start = ContinuousClock.now
        let paces = try VirtualRanks.run(count: ranks) { transport in
            let problem = AttentionProblem(
                shapes: [SequenceShape(length: length)], mask: mask, heads: heads, layout: .contiguous,
                rankCount: ranks)
            let attention = try AttentionSetup(
                problem, strategy, transport: transport, threads: ThreadPool(threads: threads), kernels: .best)
            let widths = (heads.queryHeads * heads.headDimension, heads.queryHeads * heads.valueDimension)
            let rows = problem.queries.tokenCount(of: transport.rank)
            let queries = AlignedBuffer(count: max(256, rows) * widths.0)
            let output = AlignedBuffer(count: max(256, rows) * widths.1)
            for index in 0..<queries.count { queries.pointer[index] = Float(index % 7) * 0.1 }
            for index in 0..<output.count { output.pointer[index] = 1 }
            return try withExtendedLifetime((queries, output)) {
                let keyRows = HeadRows(queries, tokenStride: widths.0, headStride: heads.headDimension)
                let valueRows = HeadRows(output, tokenStride: widths.1, headStride: heads.valueDimension)
                for tile in problem.keys.tiles(of: transport.rank) {
                    let count = problem.keys.numbering.tokens(of: tile).count
                    attention.keyValues.pack(tile: tile, rows: 0..<count, keys: keyRows, values: valueRows)
                }
                for _ in 0..<times { try attention.attend(queries: keyRows, scale: 1, output: valueRows) }
                return attention.pace
            }
        }
        let (seconds, attoseconds) = (ContinuousClock.now - start).components
        return (paces, Double(seconds) + Double(attoseconds) * 1e-18)
    }

    struct Case: Sendable {
        let length: Int
        let mask: Mask
        /// Pairs of a query and a key that count.
        let pairs: Int

        init(_ length: Int, _ mask: Mask, pairs: Int) { (self.length, self.mask, self.pairs) = (length, mask, pairs) }
    }

    private static let cases: [Case] = [
        Case(2048, .full, pairs: 2048 * 2048), Case(2000, .full, pairs: 1792 * 2000),
        Case(1000, .full, pairs: 768 * 1000), Case(900, .full, pairs: 768 * 900),
        Case(700, .full, pairs: 0), Case(255, .full, pairs: 0), Case(1, .full, pairs: 0),
        // Sixteen key tiles and more, the last of them a diagonal.
        Case(5120, .causal, pairs: (15...19).reduce(0) { $0 + 256 * (256 * $1 + 128) }),
        // Every tile is seen in part, or two of five are.
        Case(4096, .window(left: 64, right: 64), pairs: 0), Case(4096, .window(left: 1023, right: 0), pairs: 0),
    ]

    /// Whole query tiles count, with four key tiles or more at a time, of which few are seen in part.
    @Test(arguments: cases)
    func whatCountsIsTheWorkOfManyWholeTiles(_ one: Case) throws {
        let flopPerPair = Double(2 * (Self.heads.headDimension + Self.heads.valueDimension) * Self.heads.queryHeads)
        for threads in [1, 2, 3] {
            let (paces, seconds) = try Self.paces(
                one.length, one.mask, .passKeyValue, ranks: 1, threads: threads, times: 2)
            #expect(paces[0].flop == Double(2 * one.pairs) * flopPerPair, "\(threads) threads")
            #expect((paces[0].seconds > 0) == (one.pairs > 0))
            #expect(paces[0].seconds <= Double(threads) * seconds)
        }
    }

    /// The ranks together count what one does, wherever units are computed, while each has four key tiles at a time.
    @Test(arguments: Strategy.allCases) func ranksTogetherCountAsMuchAsOne(strategy: Strategy) throws {
        let flopPerPair = Double(2 * (Self.heads.headDimension + Self.heads.valueDimension) * Self.heads.queryHeads)
        for ranks in [1, 2, 3] {
            let length = 256 * 4 * ranks
            let (paces, seconds) = try Self.paces(length, .full, strategy, ranks: ranks, threads: 2)
            let sum = paces.reduce(Pace(), +)
            #expect(sum.flop == Double(length * length) * flopPerPair, "\(ranks) ranks")
            #expect(sum.seconds > 0 && paces.allSatisfy { $0.seconds <= 2 * seconds })
        }
    }
}
