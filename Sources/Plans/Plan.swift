// The plan of one rank: which tiles it sends, receives and attends, step by step.

import Attention
import Tiles

/// Some key tiles on their way between this rank and another.
public struct Transfer: Sendable, Hashable {
    public let peer: Rank
    /// Tile numbers of the batch; they travel in ascending order.
    public let tiles: Runs
}

/// One step of a rank: while `attend` is computed from what is resident, `sends` leave and
/// `receives` arrive; what arrives is resident from the next step on.
public struct Step: Sendable, Hashable {
    public internal(set) var receives: [Transfer] = []
    public internal(set) var sends: [Transfer] = []
    /// The key tiles that this step's units of work read.
    public internal(set) var attend = Runs()
    /// The key tiles that are needed in no later step, neither to attend nor to send.
    public internal(set) var release = Runs()
}

/// What one rank does for one group of heads; every group repeats it.
///
/// A pure function of the job: no rank needs to hear from another to know what it will do.
public struct Plan: Sendable {
    public let rank: Rank
    public let job: AttentionJob
    public let steps: [Step]
    /// The key/value heads in the groups in which they are processed, outermost. A group's size bounds what is in
    /// flight and what waits for its siblings; heads are independent, so it does not change a bit.
    public let headGroups: [Range<Int>]

    /// The ring for `pass-kv`: a unit runs where its queries live, and a key tile travels from its owner along
    /// the ranks that need it, in ring order, arriving at a rank in the step before that of its distance.
    ///
    /// Bytes: Σ over tiles of bytes × (ranks other than the owner that need it), which is the least possible.
    public static func passKeyValue(_ job: AttentionJob, rank: Rank) -> Plan {
        let count = job.rankCount
        let needs = (0..<count).map { job.needs(of: Rank($0)) }
        var steps = Array(repeating: Step(), count: count)
        // needs[r] restricted to the tiles of each owner, on demand.
        func wanted(by reader: Rank, from owner: Rank) -> Runs {
            needs[reader.index].intersection(job.keys.tiles(of: owner))
        }
        for stage in 0..<count {
            let owner = rank.advanced(by: -stage, count: count)
            steps[stage].attend = wanted(by: rank, from: owner)
            guard stage > 0 else { continue }
            // Received in the step before, from the nearest upstream rank that had it.
            var missing = steps[stage].attend
            var upstream = stage - 1
            while !missing.isEmpty {
                let holder = owner.advanced(by: upstream, count: count)
                let held = upstream == 0 ? missing : missing.intersection(needs[holder.index])
                if !held.isEmpty { steps[stage - 1].receives.append(Transfer(peer: holder, tiles: held)) }
                missing = missing.subtracting(held)
                upstream -= 1
            }
        }
        // Sent on to the nearest downstream rank that needs it, in the step before that rank's.
        for distance in 0..<count {
            let owner = rank.advanced(by: -distance, count: count)
            var held = distance == 0 ? job.keys.tiles(of: owner) : wanted(by: rank, from: owner)
            var downstream = distance + 1
            while !held.isEmpty, downstream < count {
                let reader = owner.advanced(by: downstream, count: count)
                let passed = held.intersection(needs[reader.index])
                if !passed.isEmpty { steps[downstream - 1].sends.append(Transfer(peer: reader, tiles: passed)) }
                held = held.subtracting(passed)
                downstream += 1
            }
        }
        markReleases(&steps, count: count)
        return Plan(rank: rank, job: job, steps: steps, headGroups: groups(job: job, rank: rank))
    }

    /// Notes after which step each received tile is of no more use.
    private static func markReleases(_ steps: inout [Step], count: Int) {
        var later = Runs()
        for index in steps.indices.reversed() {
            var used = steps[index].attend
            for transfer in steps[index].sends { used = used.union(transfer.tiles) }
            steps[index].release = used.subtracting(later)
            later = later.union(used)
        }
    }

    /// Groups of key/value heads: as many as fit while the tiles in flight stay below a tenth of the rank's
    /// own, or below 4 MiB, whichever is more.
    private static func groups(job: AttentionJob, rank: Rank) -> [Range<Int>] {
        let heads = job.heads.keyValueHeads
        if job.rankCount == 1 { return [0..<heads] }
        let tokens = (0..<job.rankCount).map { job.keys.tokenCount(of: Rank($0)) }.max() ?? 0
        let bytesPerHead = max(1, tokens * (job.heads.headDimension + job.heads.valueDimension) * job.element.bytes)
        // Two stages are in flight: the one attended and the one arriving.
        let budget = max(4 << 20, bytesPerHead * heads / 10)
        let size = max(1, min(heads, budget / (2 * bytesPerHead)))
        let groupCount = (heads + size - 1) / size
        return (0..<groupCount).map { heads * $0 / groupCount..<heads * ($0 + 1) / groupCount }
    }
}
