// The executor over MPI: within the oracle's bound, the bytes of virtual ranks, and the bytes the plan foresees.

import Attention
import Plans
import RingAttention
import TestSupport
import Tiles

func registerRingChecks(_ checks: inout Checks) {
    let heads = [HeadShape(heads: 2, headDimension: 32), HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 72)]
    let batches = [
        [SequenceShape(length: 1)], [SequenceShape(length: 257)],
        [SequenceShape(length: 1100), SequenceShape(length: 0), SequenceShape(length: 300)],
        [SequenceShape(queries: 70, keys: 600), SequenceShape(queries: 600, keys: 70)],
    ]
    for layout in Layout.allCases {
        for mask in [Mask.full, .causal] {
            checks.register("ring attention, \(mask), \(layout): oracle, same bits, bytes of the plan") { transport in
                for (number, batch) in batches.enumerated() {
                    for shape in heads {
                        let ringCase = RingCase(batch, heads: shape, mask: mask, layout: layout, seed: UInt64(number + 1), sharpness: 2)
                        // One process, other ranks: the bits must not tell.
                        let alone = try VirtualRanks.run(count: 3, seed: 7) { try ringCase.run(on: $0) }[0]
                        let disagreement = ringCase.disagreement(alone)
                        try expect(disagreement == nil, "\(disagreement ?? "") in \(ringCase)")
                        for strategy in Strategy.allCases {
                            var travelling = ringCase
                            travelling.strategy = strategy
                            let outcome = try travelling.run(on: transport, threads: 2)
                            let plan = strategy.plan(ringCase.job(ranks: transport.size), rank: transport.rank)
                            try expectEqual(outcome.bytesSent, plan.bytesSent, "bytes of \(travelling)")
                            try expectEqual(outcome.messagesSent, plan.messagesSent, "messages of \(travelling)")
                            try expect(outcome.sameBits(as: alone), "other bits than on virtual ranks: \(travelling)")
                        }
                    }
                }
            }
        }
    }
}
