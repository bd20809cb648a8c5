// The order of examples, the cuts between ranks, and masked tokens: pure functions, held to their definitions.

import Plans
import Testing
import Tiles
import Training

@Suite struct DataTests {
    private static func lengths(_ count: Int, most: Int, seed: UInt64) -> [Int] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int.random(in: 1...most, using: &random) }
    }

    @Test func everyEpochHasEveryExampleOnce() {
        let order = StepOrder(
            lengths: [Self.lengths(101, most: 600, seed: 1), Self.lengths(13, most: 90, seed: 2), []], stepTokens: 1000,
            seed: 7)
        var epochs: [[ExampleNumber]] = []
        for epoch in 0..<3 {
            let steps = order.steps(epoch: epoch)
            epochs.append(steps.flatMap { $0 })
            #expect(Set(epochs[epoch]).count == 114 && epochs[epoch].count == 114)
            #expect(steps.flatMap { $0 } == order.examples(epoch: epoch))
            func tokens(_ step: [ExampleNumber]) -> Int { step.reduce(0) { $0 + order.lengths[$1.task][$1.example] } }
            for (step, next) in zip(steps, steps.dropFirst()) {
                // As many as fit, and no more.
                #expect(tokens(step) <= 1000 || step.count == 1)
                #expect(tokens(step) + order.lengths[next[0].task][next[0].example] > 1000)
            }
            // Of both tasks about as much is done at any time: a place is off by at most one example.
            var done = [0, 0]
            for number in epochs[epoch] {
                done[number.task] += 1
                #expect(abs(Double(done[0]) / 101 - Double(done[1]) / 13) <= 1.0 / 13 + 1.0 / 101)
            }
        }
        #expect(epochs[0] != epochs[1] && epochs[1] != epochs[2])
        let other = StepOrder(lengths: order.lengths, stepTokens: 1000, seed: 8)
        #expect(other.examples(epoch: 0) != epochs[0])
    }

    @Test func orderIsThatOfTheCounter() {
        let order = StepOrder(lengths: [Array(repeating: 1, count: 50)], stepTokens: 4, seed: 3).examples(epoch: 2)
        let draws = CountedDraws(seed: 3, step: 2, site: .shuffling)
        let keys = order.map { draws.state(document: $0.example, row: 0) }
        #expect(keys == keys.sorted())
    }

    @Test func microBatchesKeepPairsAndOrder() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(state: seed)
        for _ in 0..<200 {
            let groups = (0..<Int.random(in: 1...30, using: &random)).map { _ in Int.random(in: 1...2, using: &random) }
            let lengths = Self.lengths(groups.reduce(0, +), most: 700, seed: random.next())
            let count = Int.random(in: 1...6, using: &random)
            let batches = microBatches(lengths: lengths, groups: groups, count: count)
            #expect(batches.count <= count && batches.allSatisfy { !$0.isEmpty }, "seed \(seed)")
            #expect(batches.flatMap { Array($0) } == Array(lengths.indices), "seed \(seed)")
            var starts = Set([0])
            for group in groups { starts.insert(starts.max()! + group) }
            #expect(batches.allSatisfy { starts.contains($0.lowerBound) }, "seed \(seed)")
        }
    }

    /// A group goes where its middle falls: below a half of all tokens to the first of two parts, from there on to the second.
    @Test(arguments: [
        ([1, 1, 1, 1], [1, 1, 1, 1], 2, [0..<2, 2..<4]), ([3, 1], [1, 1], 2, [0..<1, 1..<2]),
        ([1, 3, 1, 3], [2, 2], 2, [0..<2, 2..<4]), ([1, 6, 1], [1, 1, 1], 2, [0..<1, 1..<3]),
        ([1, 1, 4, 1, 1], [1, 1, 1, 1, 1], 4, [0..<2, 2..<3, 3..<5]),
    ])
    func groupsGoWhereTheirMiddleFalls(lengths: [Int], groups: [Int], count: Int, expected: [Range<Int>]) {
        #expect(microBatches(lengths: lengths, groups: groups, count: count) == expected)
    }

    @Test func ranksHaveRunsOfTilesOfEvenCost() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(state: seed)
        for _ in 0..<300 {
            let lengths = Self.lengths(
                Int.random(in: 1...40, using: &random), most: Int.random(in: 1...5000, using: &random),
                seed: random.next())
            let numbering = TileNumbering(lengths: lengths)
            let costs = (0..<numbering.tileCount).map { Double(numbering.tokens(of: $0).count) }
            let ranks = Int.random(in: 1...8, using: &random)
            let sharding = Sharding.ofStep(
                lengths: lengths, costs: costs, firstTile: Int.random(in: 0...50, using: &random), ranks: ranks)
            var next = 0
            for rank in 0..<ranks {
                let tiles = sharding.tiles(of: Rank(rank))
                #expect(tiles.ranges.count <= 1, "seed \(seed)")
                if let run = tiles.ranges.first {
                    #expect(run.lowerBound == next, "seed \(seed)")
                    next = run.upperBound
                }
                // A cut is off by half a tile at most, or by what it may stand aside.
                let load = tiles.reduce(0.0) { $0 + costs[$1] }
                let even = costs.reduce(0, +) / Double(ranks)
                #expect(load <= even * 1.07 + 256, "seed \(seed)")
            }
            #expect(next == numbering.tileCount, "seed \(seed)")
            for tile in 0..<numbering.tileCount {
                #expect(sharding.tiles(of: sharding.owner(of: tile)).contains(tile), "seed \(seed)")
            }
        }
    }

    /// 130 tiles of the same cost in two halves: a cut may stand at 64, 65 or 66.
    @Test func cutsStandWhereSubtreesAreFew() {
        func cut(_ lengths: [Int], firstTile: Int = 0) -> Runs {
            Sharding.ofStep(
                lengths: lengths, costs: Array(repeating: 1, count: 130), firstTile: firstTile, ranks: 2
            ).tiles(of: Rank(0))
        }
        // Of one document at 64, which divides by most, and where tiles are counted from another one on where that does.
        #expect(cut([130 * 256]) == Runs(0..<64))
        #expect(cut([130 * 256], firstTile: 3) == Runs(0..<65))
        // Between two documents, if that is near.
        #expect(cut([66 * 256, 64 * 256]) == Runs(0..<66))
        #expect(cut([67 * 256, 63 * 256]) == Runs(0..<64))
    }

    @Test func masksAreDrawnAsTheyAreDefined() {
        let masking = TokenMasking(probability: 0.3, wholeWords: false, maskId: 9999, vocabularySize: 5000, seed: 5)
        let ids = (0..<2000).map { Int32($0 % 4000) }
        let words = ids.indices.map { $0 % 100 == 0 ? Int32(-1) : Int32($0 / 3) }
        let draws = CountedDraws(seed: 5, step: 12, site: .maskedTokens)
        let result = masking.mask(ids, words: words, document: 77, step: 12)
        var (masked, random, kept) = (0, 0, 0)
        for row in ids.indices {
            let isChosen = words[row] >= 0 && draws.uniform(document: 77, row: row, channel: 0) < 0.3
            #expect(result.rows.contains(row) == isChosen)
            let fate = draws.uniform(document: 77, row: row, channel: 1)
            let other = Int32(draws.uniform(document: 77, row: row, channel: 2) * 5000)
            let expected = !isChosen || fate >= 0.9 ? ids[row] : fate < 0.8 ? 9999 : other
            #expect(result.ids[row] == expected)
            if isChosen { if fate < 0.8 { masked += 1 } else if fate < 0.9 { random += 1 } else { kept += 1 } }
        }
        // Of 1,980 tokens 594 ± 20 are chosen, of which eight, one and one in ten: five standard deviations.
        let chosen = Double(masked + random + kept)
        #expect(abs(chosen - 594) < 102)
        #expect(abs(Double(masked) - 0.8 * chosen) < 50 && abs(Double(random) - 0.1 * chosen) < 37)
        // Another step, document or seed draws others; a document's masks do not depend on its company.
        #expect(masking.mask(ids, words: words, document: 77, step: 13) != result)
        #expect(masking.mask(ids, words: words, document: 78, step: 12) != result)
    }

    @Test func wholeWordsAreMaskedWhole() {
        let masking = TokenMasking(probability: 0.2, wholeWords: true, maskId: 3, vocabularySize: 100, seed: 1)
        let words = (0..<900).map { Int32($0 / 4) }
        let result = masking.mask(Array(repeating: 50, count: 900), words: words, document: 0, step: 0)
        let chosen = Set(result.rows)
        #expect(!chosen.isEmpty)
        for row in 0..<900 { #expect(chosen.contains(row) == chosen.contains(row / 4 * 4)) }
    }
}
