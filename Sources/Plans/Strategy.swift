// The strategies: who computes what, and what travels for it.

import Attention
import Tiles

/// How the units of an attention come to their operands. All give the same bits; they differ in what travels, when, and
/// in what a rank holds.
public enum Strategy: String, CaseIterable, Sendable {
    /// Keys and values go round the ring, to the queries (Ring Attention, Liu and others 2023).
    case passKeyValue = "pass-kv"

    /// The plan of a rank.
    public func plan(_ job: AttentionJob, rank: Rank) -> Plan {
        switch self {
        case .passKeyValue: .passKeyValue(job, rank: rank)
        }
    }
}
