// Timelines keep every nanosecond and byte in bounded memory; simulations agree with prices where nobody waits, and show who waits
// where somebody does.

import Attention
import Plans
import Testing
import Tiles

@Suite struct TimelineTests {
    /// Whatever was added, and however few events there may be: their count is bounded, they lie one behind another, and spans,
    /// time and bytes of all of them are those that were added.
    @Test(arguments: [2, 4, 6, 64], [0, 1, 2, 3, 5, 63, 64, 65, 129, 1000]) func nothingIsLost(
        capacity: Int, spans: Int
    ) {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(state: seed)
        let timeline = Timeline(capacity: capacity)
        var (now, busy, bytes) = (0, 0, 0)
        for number in 0..<spans {
            now += Int(random.next() % 5)
            let length = Int(random.next() % 1000)
            let sent = Int(random.next() % 100)
            timeline.add(
                .init(number % 3 == 0 ? "a" : "b", start: now, end: now + length, number: number, bytes: sent),
                to: .compute)
            (now, busy, bytes) = (now + length, busy + length, bytes + sent)
        }
        let (events, fold) = timeline.events(.compute)
        #expect(events.count <= capacity, "seed \(seed)")
        #expect(events.reduce(0) { $0 + $1.count } == spans)
        #expect(events.reduce(0) { $0 + $1.busy } == busy)
        #expect(events.reduce(0) { $0 + $1.bytes } == bytes)
        #expect(zip(events, events.dropFirst()).allSatisfy { $0.end <= $1.start })
        #expect(events.allSatisfy { $0.busy <= $0.end - $0.start && $0.count <= fold })
        // Those that are merged are as many as must be: half of the room is used, but for a list that never was full.
        #expect(fold == 1 ? events.count == spans : events.count > capacity / 2)
        let totals = timeline.totals(.compute)
        #expect(totals.values.reduce(0) { $0 + $1.busy } == busy && totals.values.reduce(0) { $0 + $1.count } == spans)
        #expect((totals["a"]?.count ?? 0) == (spans + 2) / 3)
        #expect(timeline.events(.wait).events.isEmpty)
    }

    @Test func phasesFollowEachOther() {
        let timeline = Timeline(capacity: 8)
        timeline.enter("reading")
        timeline.enter("encoding", number: 1)
        timeline.enter("encoding", number: 1)
        timeline.enter("encoding", number: 2)
        timeline.enter(nil)
        timeline.enter(nil)
        let events = timeline.events(.phase).events
        #expect(events.map(\.name) == ["reading", "encoding", "encoding"] && events.map(\.number) == [-1, 1, 2])
        #expect(zip(events, events.dropFirst()).allSatisfy { $0.end == $1.start })
    }
}

@Suite struct SimulationTests {
    private static let heads = HeadShape(queryHeads: 6, keyValueHeads: 3, headDimension: 20, valueDimension: 24)

    private func simulate(
        _ cluster: Cluster, _ mask: Mask = .full, tokens: Int, _ strategy: Strategy, _ layout: Layout = .contiguous,
        footprint: Footprint = Footprint()
    ) -> (simulation: Simulation, price: Price, problem: AttentionProblem) {
        @Sendable func make(_ layout: Layout) -> AttentionProblem {
            var problem = AttentionProblem(
                shapes: [SequenceShape(length: tokens)], mask: mask, heads: Self.heads, layout: layout,
                rankCount: cluster.rankCount, speeds: cluster.speeds)
            problem.topology = cluster.topology
            return problem
        }
        let price = Pricing(on: cluster, footprint: footprint, problem: { make($0) }).prices([strategy], [layout])[0]
        return (Simulation(make(layout), footprint, strategy, on: cluster), price, make(layout))
    }

    private func seconds(_ simulation: Simulation, _ rank: Int, _ lane: Timeline.Lane) -> Double {
        Double(simulation.timelines[rank].totals(lane).values.reduce(0) { $0 + $1.busy }) * 1e-9
    }

    /// Equal ranks, equal shares: nobody waits for another who is late, so that the simulation is the price.
    @Test(arguments: [1, 2, 3, 5, 8], [Double(1e9), 1e10]) func equalRanksTakeTheirPrice(ranks: Int, bandwidth: Double)
    {
        let cluster = PriceTests.cluster(ranks: ranks, between: bandwidth, processing: (0, 0.3 / bandwidth))
        for strategy in [Strategy.passKeyValue, .passQueries, .allGather] {
            let (simulation, price, _) = simulate(cluster, tokens: 256 * 2 * ranks, strategy)
            #expect(abs(simulation.seconds - price.seconds) <= 1e-9 * price.seconds, "\(strategy)")
        }
    }

    /// The pairs that take as long as a sequence's tiles do, pair by pair: those that are visible, and a fifth of each tile
    /// that is seen in part, at most all of what a query tile sees in part; over those that are visible.
    private func timed(length: Int, _ sees: (_ query: Int, _ key: Int) -> Bool) -> Double {
        let tiles = stride(from: 0, to: length, by: 256).map { $0..<min($0 + 256, length) }
        var (visible, timed) = (0.0, 0.0)
        for rows in tiles {
            var (whole, part, area) = (0, 0, 0)
            for keys in tiles {
                let seen = rows.reduce(0) { sum, row in sum + keys.count { sees(row, $0) } }
                if seen == rows.count * keys.count {
                    whole += seen
                } else if seen > 0 {
                    part += seen
                    area += rows.count * keys.count
                }
            }
            visible += Double(whole + part)
            timed += Double(whole) + min(Double(area), Double(part) + 0.2 * Double(area))
        }
        return timed / visible
    }

    /// Whatever the mask, strategy, layout and cluster, no job is done before its slowest rank would be alone; what is sent is
    /// what the plans send; and what a rank computes takes as long as its work over its speed.
    @Test(arguments: Strategy.allCases) func noJobIsFasterThanItsPrice(strategy: Strategy) {
        let node = Cluster.Node(
            name: "", memory: 1e12, inside: .init(latency: 1e-6, bandwidth: 2e10),
            between: .init(latency: 5e-6, bandwidth: 2e9))
        let masks: [(Mask, Layout, (Int, Int) -> Bool)] = [
            (.full, .contiguous, { _, _ in true }), (.causal, .zigzag, { $1 <= $0 }),
            (.window(left: 300, right: 0), .contiguous, { $1 <= $0 && $0 - $1 <= 300 }),
        ]
        let length = 256 * 11 + 17
        for (mask, layout, sees) in masks {
            let slower = self.timed(length: length, sees)
            #expect(mask == .full ? slower == 1 : slower > 1)
            for ranks in [2, 3, 5, 7] {
                let cluster = Cluster(
                    nodes: [node, node, node],
                    ranks: (0..<ranks).map { Cluster.Place(node: $0 * 3 / ranks, flops: $0 == 1 ? 3e10 : 1e11) })
                let (simulation, price, problem) = simulate(cluster, mask, tokens: length, strategy, layout)
                #expect(simulation.seconds >= price.seconds * (1 - 1e-9), "\(mask), \(ranks) ranks")
                let planner = strategy.planner(TileDependencies(problem))
                var flop = 0.0
                for rank in 0..<ranks {
                    let sent = simulation.timelines[rank].totals(.exchange).values.reduce(0) { $0 + $1.bytes }
                    #expect(sent == planner.plan(Rank(rank)).bytesSent, "\(mask), rank \(rank) of \(ranks)")
                    flop += seconds(simulation, rank, .compute) * cluster.ranks[rank].flops
                }
                // Each span is rounded to a nanosecond.
                let spans = simulation.timelines.reduce(0) {
                    $0 + $1.totals(.compute).values.reduce(0) { $0 + $1.count }
                }
                let work = slower * problem.visibleFlop
                #expect(abs(flop - work) <= 1e-6 * work + Double(spans) * 1e-9 * 1e11)
            }
        }
    }

    /// A ring of four with one rank of half the speed. A rank takes in what its neighbour had in the step before, so a straggler
    /// may be a step behind before anybody waits; its neighbours exchange with it twice more, and wait for a step of theirs.
    @Test func aStragglerMakesOthersWait() {
        let even = PriceTests.cluster(ranks: 4)
        let uneven = Cluster(
            nodes: even.nodes,
            ranks: even.ranks.enumerated().map { .init(node: $1.node, flops: $0 == 2 ? $1.flops / 2 : $1.flops) })
        let quick = simulate(even, tokens: 256 * 16, .passKeyValue).simulation
        let slow = simulate(uneven, tokens: 256 * 16, .passKeyValue).simulation
        #expect(slow.seconds > 1.9 * quick.seconds)
        #expect(seconds(slow, 2, .wait) <= seconds(quick, 2, .wait) + 1e-9)
        for rank in [1, 3] { #expect(abs(seconds(slow, rank, .wait) / (quick.seconds / 4) - 1) < 0.05, "rank \(rank)") }
        #expect(seconds(slow, 0, .wait) < 0.05 * quick.seconds)
    }

    /// Of each kind of layer one is simulated, its dense layers before its attention.
    @Test func layersHaveDenseWork() {
        let cluster = PriceTests.cluster(ranks: 3)
        var footprint = Footprint()
        footprint.layers = [.init(count: 5), .init(mask: .window(left: 256, right: 256), count: 7)]
        footprint.denseFlopPerToken = 1e6
        let (simulation, _, problem) = simulate(cluster, tokens: 256 * 9, .passKeyValue, footprint: footprint)
        for rank in 0..<3 {
            let rows = Double(problem.queries.tokenCount(of: Rank(rank)))
            #expect(abs(seconds(simulation, rank, .dense) - 2 * rows * 1e6 / 1e11) < 2e-9)
        }
        var alone = footprint
        alone.layers = [.init(count: 1)]
        let first = simulate(cluster, tokens: 256 * 9, .passKeyValue, footprint: alone).simulation
        #expect(simulation.seconds > first.seconds)
    }
}
