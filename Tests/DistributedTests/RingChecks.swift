// The executor over MPI: within the oracle's bound, the bytes of virtual ranks, and the bytes the plan foresees.

import Attention
import Plans
import RingAttention
import TestSupport
import Tiles

/// Batches and heads that everything below is tried on.
private let cases: [(batch: [SequenceShape], heads: HeadShape)] = [
    [SequenceShape(length: 1)], [SequenceShape(length: 257)],
    [SequenceShape(length: 1100), SequenceShape(length: 0), SequenceShape(length: 300)],
    [SequenceShape(queries: 70, keys: 600), SequenceShape(queries: 600, keys: 70)],
].flatMap { batch in
    [
        HeadShape(heads: 2, headDimension: 32),
        HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 72),
    ]
    .map { (batch, $0) }
}

private func ringCase(_ number: Int, _ mask: Mask, _ layout: Layout) -> RingCase {
    RingCase(
        cases[number].batch, heads: cases[number].heads, mask: mask, layout: layout, seed: UInt64(number / 2 + 1),
        sharpness: 2)
}

/// What three virtual ranks make of every case, within the oracle's bound: for all layouts, since bits must not tell of
/// them. Each case is computed by one rank, which sends it to the others.
private final class Reference {
    private let mask: Mask
    private var found: [RingCase.Outcome]?

    init(_ mask: Mask) { self.mask = mask }

    /// Collective.
    func outcomes(_ transport: MPITransport) throws -> [RingCase.Outcome] {
        if let found { return found }
        var mine: [Int: RingCase.Outcome] = [:]
        var fault: (any Error)?
        for number in cases.indices where number % transport.size == transport.rank.index {
            let ringCase = ringCase(number, mask, .contiguous)
            let outcome = try VirtualRanks.run(count: 3, seed: 7) { try ringCase.run(on: $0) }[0]
            if let disagreement = ringCase.disagreement(outcome) {
                fault = fault ?? CheckFailure("\(disagreement) in \(ringCase)")
            }
            mine[number] = outcome
        }
        let all = try cases.indices.map { number in
            var outcome = RingCase.Outcome()
            for part in [\RingCase.Outcome.output, \RingCase.Outcome.logSumExp] {
                let bytes = mine[number].map { $0[keyPath: part].withUnsafeBytes { Array($0) } } ?? []
                let whole = try transport.allGather(bytes)[number % transport.size]
                outcome[keyPath: part] = whole.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
            }
            return outcome
        }
        found = all
        if let fault { throw fault }
        return all
    }
}

func registerRingChecks(_ checks: inout Checks) {
    for mask in [Mask.full, .causal] {
        let reference = Reference(mask)
        for layout in Layout.allCases {
            checks.register("ring attention, \(mask), \(layout): oracle, same bits, bytes of the plan") { transport in
                for (number, alone) in try reference.outcomes(transport).enumerated() {
                    for strategy in Strategy.allCases {
                        var travelling = ringCase(number, mask, layout)
                        travelling.strategy = strategy
                        let outcome = try travelling.run(on: transport, threads: 2)
                        let plan = strategy.plan(travelling.problem(ranks: transport.size), rank: transport.rank)
                        try expectEqual(outcome.bytesSent, plan.bytesSent, "bytes of \(travelling)")
                        try expectEqual(outcome.messagesSent, plan.messagesSent, "messages of \(travelling)")
                        try expect(outcome.sameBits(as: alone), "other bits than on virtual ranks: \(travelling)")
                    }
                }
            }
        }
    }
}
