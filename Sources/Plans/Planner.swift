// Makes the plans of a job's ranks, one at a time.

import Attention
import Tiles

/// The plans of all ranks for one job and strategy: what they share is found once, and each is made when it is asked
/// for, so that nobody ever lists the steps of all ranks.
public struct Planner: Sendable {
    private let dependencies: TileDependencies
    /// The strategy that all plans follow.
    public let strategy: Strategy
    /// The rounds in which the heads are gone through, all alike but for the heads.
    let rounds: Rounds
    /// Whether a rank takes heads at all: where heads are fewer than ranks, some only lend their memory.
    let takesHeads: @Sendable (Rank) -> Bool
    private let write: @Sendable (_ rank: Rank, _ rounds: Int) -> Schedule

    /// How a plan goes through the heads.
    struct Rounds: Sendable {
        /// The query heads of each round, all ranks together.
        let heads: [Int]
        /// The steps from one round to the next; a round may begin before the one before it has ended.
        let period: Int
        /// The steps that a plan has beyond its rounds' periods.
        let drain: Int

        var count: Int { heads.count }
    }

    /// - Parameter write: the schedule of a rank that goes through the first so many rounds only.
    init(
        _ dependencies: TileDependencies, _ strategy: Strategy, rounds: Rounds,
        takesHeads: @escaping @Sendable (Rank) -> Bool = { _ in true },
        write: @escaping @Sendable (_ rank: Rank, _ rounds: Int) -> Schedule
    ) {
        self.dependencies = dependencies
        self.strategy = strategy
        self.rounds = rounds
        self.takesHeads = takesHeads
        self.write = write
    }

    /// The plan of a rank.
    public func plan(_ rank: Rank) -> Plan { plan(rank, rounds: rounds.count) }

    /// The plan of a rank, cut off after some rounds: enough to price it.
    func plan(_ rank: Rank, rounds: Int) -> Plan {
        Plan(dependencies, strategy, rank: rank, steps: write(rank, rounds).steps)
    }

    /// The job that the plans are for.
    public var problem: AttentionProblem { dependencies.problem }
}
