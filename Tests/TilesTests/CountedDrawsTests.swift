// Random numbers of training: their definition, and that every place draws for itself.

import Testing
import Tiles

@Suite struct CountedDrawsTests {
    /// Numbers of the twin, `scripts/compare/draws.py`.
    @Test func numbersAreThoseOfTheDefinition() {
        let draws = CountedDraws(seed: 7, step: 3, site: .attentionWeights, layer: 2, head: 5)
        let found = [0, 1, 2, 9].map { draws.bits(document: 11, row: 300, channel: $0) }
        #expect(found == [3_523_015_221, 479_263_114, 3_889_164_280, 1_652_914_956])
        #expect(
            CountedDraws(seed: .max, step: 0, site: .embeddings).bits(document: 0, row: 0, channel: 0) == 1_762_260_545)
    }

    @Test func everyPlaceHasNumbersOfItsOwn() {
        var states: Set<UInt64> = []
        var count = 0
        for seed in [0, 1] as [UInt64] {
            for step in 0..<3 {
                for site in [DrawSite.embeddings, .attentionOutput, .head] {
                    for layer in 0..<3 {
                        for head in 0..<2 {
                            let draws = CountedDraws(seed: seed, step: step, site: site, layer: layer, head: head)
                            for document in 0..<4 {
                                for row in 0..<5 {
                                    states.insert(draws.state(document: document, row: row))
                                    count += 1
                                }
                            }
                        }
                    }
                }
            }
        }
        #expect(states.count == count)
    }

    /// Of n draws with probability p, the number is off by more than five standard deviations once in two million times.
    @Test func sharesAreTheProbability() {
        let draws = CountedDraws(seed: 1, step: 0, site: .maskedTokens)
        for probability in [0.1, 0.15, 0.5] {
            let threshold = CountedDraws.threshold(probability)
            var (hits, pairs) = (0, 0)
            let count = 40_000
            for row in 0..<200 {
                for channel in 0..<200 {
                    let hit = draws.bits(document: 3, row: row, channel: channel) < threshold
                    let next = draws.bits(document: 3, row: row, channel: channel + 1) < threshold
                    hits += hit ? 1 : 0
                    pairs += hit && next ? 1 : 0
                }
            }
            func isNear(_ found: Int, _ share: Double) -> Bool {
                abs(Double(found) - Double(count) * share) < 5 * (Double(count) * share * (1 - share)).squareRoot()
            }
            #expect(isNear(hits, probability), "\(hits) of \(count) with \(probability)")
            // Neighbours are independent; their pairs are not, which twice the deviation allows for.
            #expect(
                abs(Double(pairs) - Double(count) * probability * probability)
                    < 10 * (Double(count) * probability * probability).squareRoot())
        }
        #expect(CountedDraws.threshold(0) == 0 && CountedDraws.threshold(0.5) == 1 << 31)
    }
}
