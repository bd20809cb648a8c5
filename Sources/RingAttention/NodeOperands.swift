// The keys and values that the ranks of one node read in each other's memory, and whose turn it is.

import Matrices
import Plans
import Tiles

/// A rank's part in its node: its own segment, the slabs of its mates that it reads in each step, and the clocks.
///
/// A rank's clock tells how many steps it has finished since the start, over all attentions: what arrived in a step can be
/// read once its rank has finished the step, and memory is written again only when all ranks of the node have finished
/// the steps in which it is read. Waiting for an earlier step only, no rank can wait for one that waits for it.
final class NodeOperands {
    /// A mate's slab, which holds what is to be read once the mate has finished step `since`; −1: once it has begun.
    struct Borrowed {
        let slab: Slab
        let rank: Rank
        let since: Int
    }

    let own: Slab
    private let rank: Rank
    private let mates: [Rank]
    private let memory: SharedMemory
    private let stepCount: Int
    /// For each step, what is read of mates, and where what arrives goes.
    private let borrowings: [[Borrowed]]
    private let arrivals: [[Slab]]
    /// The clock when this attention began.
    private var start = 0

    /// Collective.
    init(_ plan: Plan, _ transport: any Transport) throws {
        let (job, rank) = (plan.job, plan.rank)
        let ranks = job.topology.mates(of: rank)
        let planner = plan.strategy.planner(Needs(job))
        let maps = ranks.map { SegmentMap($0 == rank.index ? plan : planner.plan(Rank($0))) }
        let memory = try transport.shareMemory(floats: maps[rank.index - ranks.lowerBound].floats, among: ranks)
        func slab(_ tiles: Runs, _ heads: Range<Int>, of owner: Rank, at offset: Int) -> Slab {
            Slab(keyValues: tiles, heads: heads, of: job) { AlignedBuffer(memory.floats(of: owner) + offset, count: $0, of: memory) }
        }
        var arrivals: [[Slab]] = Array(repeating: [], count: plan.steps.count)
        var borrowings: [[Borrowed]] = Array(repeating: [], count: plan.steps.count)
        func ownSlab(_ owner: Rank) -> Slab { slab(job.keys.tiles(of: owner), 0..<job.heads.keyValueHeads, of: owner, at: 0) }
        own = ownSlab(rank)
        for owner in ranks.map({ Rank($0) }) {
            let map = maps[owner.index - ranks.lowerBound]
            if owner == rank {
                for arrival in map.arrivals {
                    arrivals[arrival.step].append(slab(arrival.tiles, arrival.heads, of: rank, at: arrival.offset))
                }
                continue
            }
            var places = [(slab: ownSlab(owner), since: -1, last: plan.steps.count)]
            places += map.arrivals.map { (slab($0.tiles, $0.heads, of: owner, at: $0.offset), $0.step, $0.lastStep) }
            for place in places {
                for number in place.since + 1..<min(place.last + 1, plan.steps.count)
                where plan.steps[number].reads(place.slab.tiles, place.slab.heads, of: job) {
                    borrowings[number].append(Borrowed(slab: place.slab, rank: owner, since: place.since))
                }
            }
        }
        self.rank = rank
        self.arrivals = arrivals
        self.borrowings = borrowings
        self.memory = memory
        mates = ranks.map { Rank($0) }.filter { $0 != rank }
        stepCount = plan.steps.count
    }

    /// The slabs for what arrives in a step.
    func arriving(_ step: Int) -> [Slab] { arrivals[step] }

    /// The mates' slabs that a step reads.
    func borrowed(_ step: Int) -> [Borrowed] { borrowings[step] }

    /// Returns once no mate reads this rank's keys and values of the last attention any more.
    func waitForReaders() throws {
        for mate in mates { try memory.wait(for: mate, toReach: start) }
    }

    /// This rank's keys and values are packed.
    func begin() throws {
        try waitForReaders()
        memory.setClock(of: rank, to: start + 1)
    }

    /// Returns once what arrives in a step may be written: see `SegmentMap.Arrival.overlaps`.
    func waitForRoom(_ step: Int) throws {
        guard step >= 2, !arrivals[step].isEmpty else { return }
        for mate in mates { try memory.wait(for: mate, toReach: start + step) }
    }

    /// Waits for what is borrowed; returns for how long.
    /// - Parameter sends: wait for what these messages carry only.
    func wait(for borrowed: [Borrowed], sending sends: [Transfer]? = nil, poll: () -> Void = {}) throws -> Duration {
        let before = ContinuousClock.now
        for entry in borrowed where sends.map({ $0.carry(entry.slab.tiles, entry.slab.heads) }) ?? true {
            try memory.wait(for: entry.rank, toReach: start + entry.since + 2, poll: poll)
        }
        return .now - before
    }

    /// This rank has finished a step: it reads nothing more for it, and what arrived is there.
    func finish(_ step: Int) {
        memory.setClock(of: rank, to: start + step + 2)
        if step == stepCount - 1 { start += stepCount + 1 }
    }
}

extension [Transfer] {
    /// Whether any of the messages carries some of these keys and values.
    fileprivate func carry(_ tiles: Runs, _ heads: Range<Int>) -> Bool {
        lazy.flatMap(\.payloads).contains {
            if case .keyValues(let carried, let ofHeads) = $0 { carried.intersects(tiles) && ofHeads.overlaps(heads) } else { false }
        }
    }
}

extension Step {
    /// Whether a rank reads any of these keys and values in the step.
    fileprivate func reads(_ tiles: Runs, _ heads: Range<Int>, of job: AttentionJob) -> Bool {
        sends.carry(tiles, heads)
            || attend.contains { $0.keys.intersects(tiles) && job.heads.keyValueHeads(of: $0.heads).overlaps(heads) }
    }
}
