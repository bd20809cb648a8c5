// The proof that a set of plans cannot deadlock and computes every unit.

import Attention
import Tiles

extension Plan {
    /// Why a set of plans must not run.
    public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
        public let rank: Rank
        public let step: Int
        public let reason: String
        public var description: String { "\(rank), step \(step): \(reason)" }
    }

    /// Checks the plans of all ranks together: every send has exactly one matching receive in the same step,
    /// what is sent or attended is resident by then, and every rank attends every tile it needs exactly once.
    ///
    /// All ranks pass through the same steps; within one, receives are posted before sends, and nothing
    /// waits for the computation of another rank's step. So matching sends are the absence of deadlock.
    public static func validate(_ plans: [Plan]) throws(Violation) {
        for (index, plan) in plans.enumerated() {
            guard plan.rank.index == index, plan.steps.count == plans[0].steps.count,
                plan.headGroups == plans[0].headGroups
            else {
                throw Violation(rank: plan.rank, step: 0, reason: "the ranks disagree on steps or head groups")
            }
            var resident = plan.job.keys.tiles(of: plan.rank)
            var attended = Runs()
            for (number, step) in plan.steps.enumerated() {
                func require(_ condition: Bool, _ reason: String) throws(Violation) {
                    if !condition { throw Violation(rank: plan.rank, step: number, reason: reason) }
                }
                try require(step.attend.subtracting(resident).isEmpty, "attends a tile that is not resident")
                try require(step.attend.intersection(attended).isEmpty, "attends a tile twice")
                attended = attended.union(step.attend)
                try require(Set(step.sends.map(\.peer)).count == step.sends.count, "two messages to one rank")
                for transfer in step.sends {
                    try require(plans.indices.contains(transfer.peer.index), "sends to a rank that does not exist")
                    try require(transfer.peer != plan.rank, "sends to itself")
                    try require(transfer.tiles.subtracting(resident).isEmpty, "sends a tile that is not resident")
                    let matching = plans[transfer.peer.index].steps[number].receives.filter { $0.peer == plan.rank }
                    try require(matching.map(\.tiles) == [transfer.tiles], "a message without its receive")
                }
                for transfer in step.receives {
                    try require(plans.indices.contains(transfer.peer.index), "receives from a rank that does not exist")
                    let matching = plans[transfer.peer.index].steps[number].sends.filter { $0.peer == plan.rank }
                    try require(matching.map(\.tiles) == [transfer.tiles], "a receive without its message")
                    try require(transfer.tiles.intersection(resident).isEmpty, "receives a tile that is resident")
                }
                resident = resident.subtracting(step.release)
                for transfer in step.receives { resident = resident.union(transfer.tiles) }
            }
            let needs = plan.job.needs(of: plan.rank)
            guard attended == needs else {
                throw Violation(rank: plan.rank, step: plan.steps.count, reason: "attends other tiles than its queries see")
            }
        }
    }

    /// The bytes of key and value tiles that this rank sends over all head groups.
    public var bytesSent: Int {
        steps.reduce(0) { $0 + $1.sends.reduce(0) { $0 + bytes(of: $1.tiles) } }
    }

    /// The bytes of some packed tiles, all heads.
    public func bytes(of tiles: Runs) -> Int {
        let packed = PackedTile(job.heads, job.element)
        var floats = 0
        for run in tiles.ranges {
            for tile in run { floats += packed.floats(keys: job.keys.numbering.tokens(of: tile).count) }
        }
        return floats * 4 * job.heads.keyValueHeads
    }
}
