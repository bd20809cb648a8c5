// The keys and values that arrive at the ranks of one node, which all of them read, and whose turn it is.

import Attention
import Matrices
import Plans
import Tiles

/// What a rank reads in the memory of its node in each step of a plan, where what it receives goes, and the clocks.
///
/// A rank's clock tells how many steps it has finished since the start, over all calls: what arrived in a step can be
/// read once its rank has finished the step, and memory is written again only when all ranks of the node have finished
/// the steps in which it is read. Waiting for an earlier step only, no rank can wait for one that waits for it.
/// The ranks' own tiles have clocks of their own (``KeyValueTiles``).
final class NodeArrivals {
    /// Tiles of a mate that a step reads.
    enum Reading {
        /// The mate's own, once it has begun the call.
        case own(Rank)
        /// What arrived at it, once it has finished step `since`.
        case arrived(TileStore, at: Rank, since: Int)
    }

    private let rank: Rank
    private let mates: [Rank]
    /// Nil where the ranks of all the job share memory: nothing arrives then.
    private let memory: SharedMemory?
    private let stepCount: Int
    private let readings: [[Reading]]
    private let arrivals: [[TileStore]]
    /// What each mate holds of its own.
    private let owned: [Rank: Runs]
    private let problem: AttentionProblem
    /// The clock when this call began.
    private var start = 0

    /// Collective.
    /// - Throws: ``SharedMemoryRefused`` where a node cannot have it; what the transport throws.
    init(_ plan: Plan, _ transport: any Transport) throws {
        let (problem, rank) = (plan.problem, plan.rank)
        let ranks = problem.topology.mates(of: rank)
        let planner = plan.strategy.planner(TileDependencies(problem))
        let maps = ranks.map { SegmentMap($0 == rank.index ? plan : planner.plan(Rank($0))) }
        let floats = maps[rank.index - ranks.lowerBound].floats
        let memory = problem.topology.nodeCount > 1 ? try transport.shareMemory(floats: floats, among: ranks) : nil
        func store(_ arrival: SegmentMap.Arrival, of owner: Rank) -> TileStore {
            guard let memory else { preconditionFailure("what the ranks of one node have never arrives") }
            return TileStore(packed: arrival.tiles, problem.operation.columns, heads: arrival.heads, of: problem) {
                AlignedBuffer(memory.floats(of: owner) + arrival.offset, count: $0, of: memory)
            }
        }
        var arrivals: [[TileStore]] = Array(repeating: [], count: plan.steps.count)
        var readings: [[Reading]] = Array(repeating: [], count: plan.steps.count)
        var owned: [Rank: Runs] = [:]
        for owner in ranks.map({ Rank($0) }) {
            let map = maps[owner.index - ranks.lowerBound]
            if owner == rank {
                for arrival in map.arrivals { arrivals[arrival.step].append(store(arrival, of: rank)) }
                continue
            }
            let tiles = problem.keys.tiles(of: owner)
            owned[owner] = tiles
            for (number, step) in plan.steps.enumerated()
            where step.reads(tiles, 0..<problem.heads.keyValueHeads, of: problem) {
                readings[number].append(.own(owner))
            }
            for arrival in map.arrivals {
                let store = store(arrival, of: owner)
                for number in arrival.step + 1..<min(arrival.lastStep + 1, plan.steps.count)
                where plan.steps[number].reads(store.tiles, store.heads, of: problem) {
                    readings[number].append(.arrived(store, at: owner, since: arrival.step))
                }
            }
        }
        self.rank = rank
        self.problem = problem
        self.arrivals = arrivals
        self.readings = readings
        self.owned = owned
        self.memory = memory
        mates = ranks.map { Rank($0) }.filter { $0 != rank }
        stepCount = plan.steps.count
    }

    /// The stores for what arrives in a step.
    func arriving(_ step: Int) -> [TileStore] { arrivals[step] }

    /// The mates' tiles that a step reads.
    func readings(_ step: Int) -> [Reading] { readings[step] }

    /// Returns once no mate reads what arrived here in the last call.
    func begin() throws {
        guard let memory else { return }
        for mate in mates { try memory.wait(for: mate, toReach: start) }
    }

    /// Returns once what arrives in a step may be written: see `SegmentMap.Arrival.overlaps`.
    func waitForRoom(_ step: Int) throws {
        guard let memory, step >= 2, !arrivals[step].isEmpty else { return }
        for mate in mates { try memory.wait(for: mate, toReach: start + step - 1) }
    }

    /// Waits for what a step reads; returns for how long.
    /// - Parameter sends: wait for what these messages carry only.
    func wait(
        for readings: [Reading], of keyValues: KeyValueTiles, sending sends: [Transfer]? = nil, poll: () -> Void = {}
    ) throws -> Duration {
        let before = ContinuousClock.now
        for reading in readings {
            switch reading {
            case .own(let mate):
                guard sends.map({ $0.carry(owned[mate] ?? Runs(), 0..<problem.heads.keyValueHeads) }) ?? true else {
                    continue
                }
                try keyValues.wait(for: mate, poll: poll)
            case .arrived(let store, let mate, let since):
                guard sends.map({ $0.carry(store.tiles, store.heads) }) ?? true else { continue }
                try memory?.wait(for: mate, toReach: start + since + 1, poll: poll)
            }
        }
        return .now - before
    }

    /// This rank has finished a step: it reads nothing more for it, and what arrived is there.
    func finish(_ step: Int) {
        memory?.setClock(of: rank, to: start + step + 1)
        if step == stepCount - 1 { start += stepCount }
    }
}

extension [Transfer] {
    /// Whether any of the messages carries some of these keys and values.
    fileprivate func carry(_ tiles: Runs, _ heads: Range<Int>) -> Bool {
        lazy.flatMap(\.payloads).contains {
            if case .columns(let carried, let ofHeads) = $0 {
                carried.intersects(tiles) && ofHeads.overlaps(heads)
            } else {
                false
            }
        }
    }
}

extension Step {
    /// Whether a rank reads any of these keys and values in the step.
    fileprivate func reads(_ tiles: Runs, _ heads: Range<Int>, of problem: AttentionProblem) -> Bool {
        sends.carry(tiles, heads)
            || attend.contains {
                $0.keys.intersects(tiles) && problem.heads.keyValueHeads(of: $0.heads).overlaps(heads)
            }
    }
}
