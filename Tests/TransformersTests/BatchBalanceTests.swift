// Batches of documents of all lengths are dealt out so that ranks have equal work.

import Attention
import Plans
import Testing
import Tiles
import Transformers

@Suite struct BatchBalanceTests {
    /// Operations of a tile in all layers: 2·in·out a token and dense layer, 4·width a visible pair, by their
    /// definition.
    private func work(_ tile: Int, _ numbering: TileNumbering, _ configuration: EncoderConfiguration) -> Double {
        let hidden = Double(configuration.hiddenSize)
        let inner = Double(configuration.intermediateSize) * (configuration.isGated ? 3 : 2)
        let (length, tokens) = (numbering.lengths[numbering.sequence(of: tile)], numbering.tokens(of: tile))
        return configuration.attention.reduce(0.0) { sum, layer in
            let pairs = tokens.reduce(0) { pairs, i in
                guard case .window(let left, let right) = layer.mask else { return pairs + length }
                return pairs + min(length - 1, i + right) - max(0, i - left) + 1
            }
            return sum + Double(tokens.count) * 2 * (4 * hidden * hidden + hidden * inner) + 4 * hidden * Double(pairs)
        }
    }

    private func work(_ sharding: Sharding, _ configuration: EncoderConfiguration) -> [Double] {
        (0..<sharding.rankCount).map { rank in
            sharding.tiles(of: Rank(rank)).ranges.joined().reduce(0.0) {
                $0 + work($1, sharding.numbering, configuration)
            }
        }
    }

    private func lengths(_ count: Int, long: [Int]) -> [Int] {
        var lengths = (0..<count).map { 20 + ($0 * 7919) % 381 }
        for (place, length) in long.enumerated() { lengths.insert(length, at: (place * 613) % lengths.count) }
        return lengths
    }

    @Test(arguments: ["minilm", "bert-base", "modernbert-base", "deberta-v3-base"], [2, 3, 5, 8])
    func workIsLevelInAMixedBatch(shape: String, ranks: Int) throws {
        let configuration = try #require(PublishedShape.named(shape)).configuration(positions: 100_000)
        for lengths in [
            lengths(150, long: []), lengths(150, long: [12_000]), lengths(40, long: [8_000, 300, 9_000]),
            lengths(3, long: [20_000]),
        ] {
            let sharding = EncoderRun.sharding(
                lengths: lengths, configuration: configuration, layout: nil, rankCount: ranks)
            let work = work(sharding, configuration)
            let mean = work.reduce(0, +) / Double(ranks)
            let largestTile =
                (0..<sharding.numbering.tileCount).map { self.work($0, sharding.numbering, configuration) }.max() ?? 0
            let largest = work.max() ?? 0
            #expect(
                largest <= max(1.05 * mean, mean + largestTile),
                "\(shape), \(ranks) ranks, \(lengths.count) documents: \(largest / mean)")
        }
    }

    /// What `contiguous` would do to the same batch, and that equal documents keep it.
    @Test func balancedIsTakenWhereItIsNeeded() throws {
        let configuration = try #require(PublishedShape.named("minilm")).configuration(positions: 100_000)
        let mixed = lengths(150, long: [12_000])
        let contiguous = work(Sharding(lengths: mixed, layout: .contiguous, rankCount: 4), configuration)
        #expect((contiguous.max() ?? 0) > 1.2 * contiguous.reduce(0, +) / 4)
        #expect(
            EncoderRun.sharding(lengths: mixed, configuration: configuration, layout: nil, rankCount: 4).layout
                == .balanced)
        for even in [Array(repeating: 300, count: 64), [16_384], [70]] {
            #expect(
                EncoderRun.sharding(lengths: even, configuration: configuration, layout: nil, rankCount: 4).layout
                    == .contiguous)
        }
        for layout in Layout.allCases {
            #expect(
                EncoderRun.sharding(lengths: mixed, configuration: configuration, layout: layout, rankCount: 4).layout
                    == layout)
        }
    }
}
