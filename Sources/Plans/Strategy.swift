// The strategies: who computes what, and what travels for it.

import Tiles

/// How the units of an attention come to their operands. All give the same bits; they differ in what travels, when, and
/// in what a rank holds.
public enum Strategy: String, CaseIterable, Sendable {
    /// Keys and values go round the ring, to the queries (Ring Attention, Liu and others 2023).
    case passKeyValue = "pass-kv"
    /// Queries go round the ring, to the keys, and partials return.
    case passQueries = "pass-q"
    /// Keys and values go to all queries at once.
    case allGather = "all-gather"
    /// Each rank takes some heads of all queries and keys (DeepSpeed-Ulysses, Jacobs and others 2023).
    case headExchange = "head-exchange"
    /// Head exchange in groups of ranks, rings across them (USP, Fang and Zhao 2024).
    case hybrid
    /// Queries go down a tree of ranks, and partials merge on the way up (Tree Attention, Shyam and others 2024).
    case tree

    /// What it does, in a few words, as help has it.
    public var summary: String {
        switch self {
        case .passKeyValue: "keys and values go round the ring"
        case .passQueries: "queries do, partials return"
        case .allGather: "keys and values at once"
        case .headExchange: "each rank some heads"
        case .hybrid: "head exchange in groups, rings across them"
        case .tree: "few queries; partials merge up a tree of ranks"
        }
    }

    /// Whether nothing travels where every sequence is whole on a rank.
    public var keepsWholeSequencesInPlace: Bool { self != .headExchange && self != .hybrid }

    /// The plans of a job's ranks.
    public func planner(_ dependencies: TileDependencies) -> Planner {
        switch self {
        case .passKeyValue: .passKeyValue(dependencies)
        case .passQueries: .passQueries(dependencies)
        case .allGather: .allGather(dependencies)
        case .headExchange: .headExchange(dependencies)
        case .hybrid: .hybrid(dependencies)
        case .tree: .tree(dependencies)
        }
    }

    /// The plan of a rank of a job.
    public func plan(_ problem: AttentionProblem, rank: Rank) -> Plan { planner(TileDependencies(problem)).plan(rank) }
}
