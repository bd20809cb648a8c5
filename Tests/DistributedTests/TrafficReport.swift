// One exchange under a mask, and what the transport counts of it, for scripts/checks/check-traffic.

import Attention
import MPI
import Plans
import RingAttention
import TestSupport
import Tiles

/// Attends a sequence of `length` tokens under the mask and prints a line for each rank, "rank bytes messages", of what
/// the transport counted, then "formula bytes", by the strategy's. Point-to-point messages of this process are those of
/// the exchange and no others: there is no control thread, and everything else is collective.
func reportTraffic(_ strategy: Strategy, mask expression: String, length: Int, ranksPerNode: Int) throws {
    try MPIEnvironment.run { world in
        let transport = try MPITransport(world)
        // A block matrix without a file: every third block is hidden.
        let mask = try Mask(parsing: expression) { _, size in
            let side = (length + size - 1) / size
            return BlockMask(size: size, rows: side, columns: side, cells: (0..<side * side).map { $0 % 3 > 0 })
        }
        let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 20, valueDimension: 24)
        var ringCase = RingCase([SequenceShape(length: length)], heads: heads, mask: mask, layout: .zigzag)
        ringCase.strategy = strategy
        ringCase.ranksPerNode = ranksPerNode
        _ = try ringCase.run(on: transport)
        let mine = "\(transport.rank.index) \(transport.traffic.bytes) \(transport.traffic.messages)"
        let lines = try transport.allGather(Array(mine.utf8)).map { String(decoding: $0, as: UTF8.self) }
        if transport.rank.index == 0 {
            lines.forEach { say($0) }
            say("formula \(ByteFormula(ringCase.problem(ranks: transport.size)).bytes(ringCase.strategy))")
        }
    }
}
