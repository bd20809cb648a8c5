// What the ranks of a process do first, begun by all at the same moment, for Tests/Stress/start-together.

import Attention
import Plans
import RingAttention
import Synchronization
import TestSupport

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Plans and attends a small case on virtual ranks, none of which begins before all are there: whatever of the program
/// and its libraries is made at its first use, they meet at once. MPI is not started.
/// - Returns: whether the bytes are those of one rank.
func startTogether(_ strategy: Strategy, ranks: Int) throws -> Bool {
    var ringCase = RingCase(
        [SequenceShape(length: 1500), SequenceShape(length: 700)], heads: HeadShape(heads: 2, headDimension: 16),
        mask: .causal,
        layout: .zigzag)
    ringCase.strategy = strategy
    let (arrived, started, problem) = (Arrivals(), ringCase, ringCase.problem(ranks: ranks))
    let outcomes = try VirtualRanks.run(count: ranks) { transport in
        // Turning, not sleeping: a rank that is woken would come late.
        arrived.count.wrappingAdd(1, ordering: .acquiringAndReleasing)
        while arrived.count.load(ordering: .acquiring) < ranks { sched_yield() }
        let plan = strategy.plan(problem, rank: transport.rank)
        let outcome = try started.run(on: transport)
        return outcome.bytesSent == plan.bytesSent ? outcome : nil
    }
    let alone = try VirtualRanks.run(count: 1) { try started.run(on: $0) }
    return outcomes.allSatisfy { $0?.sameBits(as: alone[0]) ?? false }
}

/// How many ranks are there.
private final class Arrivals: Sendable {
    let count = Atomic<Int>(0)
}
