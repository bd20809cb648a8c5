// Prices are those of the plans: their bytes, the memory that a step-by-step simulation finds, the work of every pair.

import Attention
import Plans
import Testing
import Tiles

@Suite struct PriceTests {
    static func cluster(
        ranks: Int, perNode: Int = 1, flops: Double = 1e11, memory: Double = 1e12, inside: Double = 2e10, between: Double = 1e10
    ) -> Cluster {
        let node = Cluster.Node(
            name: "node", memory: memory, inside: .init(latency: 1e-6, bandwidth: inside), between: .init(latency: 2e-6, bandwidth: between))
        return Cluster(kinds: [(node, ranks / perNode, perNode, flops)])
    }

    private static let heads = HeadShape(queryHeads: 6, keyValueHeads: 3, headDimension: 20, valueDimension: 24)

    static let cases: [(mask: Mask, shapes: [SequenceShape])] = [
        (.full, [SequenceShape(length: 9 * 256 + 17)]), (.causal, [SequenceShape(length: 11 * 256)]),
        (.window(left: 300, right: 200), [SequenceShape(length: 10 * 256)]),
        (.causal, [SequenceShape(length: 700), SequenceShape(length: 3), SequenceShape(length: 1800)]),
        (.full, [SequenceShape(queries: 40, keys: 13 * 256)]),
        (.or(.global(Runs(0..<3)), .window(left: 100, right: 0)), [SequenceShape(length: 2200)]),
    ]

    private func job(_ mask: Mask, _ shapes: [SequenceShape], _ layout: Layout, _ ranks: Int, _ heads: HeadShape = heads) -> AttentionJob {
        AttentionJob(shapes: shapes, mask: mask, heads: heads, layout: layout, rankCount: ranks)
    }

    @Test(arguments: cases.indices, [1, 2, 3, 5, 8]) func bytesMessagesAndWorkAreThePlans(number: Int, ranks: Int) {
        let (mask, shapes) = Self.cases[number]
        let pricing = Pricing(on: Self.cluster(ranks: ranks)) { job(mask, shapes, $0, ranks) }
        let prices = pricing.prices()
        #expect(prices.count == Strategy.allCases.count * Layout.allCases.count)
        for price in prices {
            let job = job(mask, shapes, price.layout, ranks)
            let planner = price.strategy.planner(Needs(job))
            let plans = (0..<ranks).map { planner.plan(Rank($0)) }
            #expect(price.bytes == Double(plans.reduce(0) { $0 + $1.bytesSent }), "\(price.strategy), \(price.layout)")
            #expect(price.messages == Double(plans.reduce(0) { $0 + $1.messagesSent }), "\(price.strategy), \(price.layout)")
            // Every visible pair is somebody's work, whoever does it.
            let work = price.work.reduce(0) { $0 + $1.flop }
            #expect(abs(work - job.visibleFlop) <= 1e-9 * job.visibleFlop, "\(price.strategy), \(price.layout)")
            #expect(price.balance >= 1 - 1e-9)
            #expect(price.exposedSeconds <= price.seconds && price.seconds >= job.visibleFlop / (1e11 * Double(ranks)) * (1 - 1e-9))
        }
    }

    /// The memory of the fullest rank, by a simulation of its own: partials in real forests, tile after tile.
    @Test(arguments: cases.indices, [1, 2, 3, 5, 8]) func memoryIsThatOfASimulation(number: Int, ranks: Int) {
        let (mask, shapes) = Self.cases[number]
        for price in Pricing(on: Self.cluster(ranks: ranks), job: { job(mask, shapes, $0, ranks) }).prices() {
            let job = job(mask, shapes, price.layout, ranks)
            let planner = price.strategy.planner(Needs(job))
            let fullest = (0..<ranks).map { MemorySimulation.peak(planner.plan(Rank($0))) }.max() ?? 0
            #expect(price.memory == Double(fullest), "\(price.strategy), \(price.layout), \(ranks) ranks, \(mask)")
        }
    }

    /// A plan of which some rounds and ranks are left out is priced about as the whole; in a tree, ranks differ by their depth.
    @Test(arguments: Strategy.allCases) func aSampleStandsForTheWhole(strategy: Strategy) {
        let heads = HeadShape(heads: 16, headDimension: 64)
        let shapes = [SequenceShape(length: 8 * 4096)]
        let cluster = Self.cluster(ranks: 8, perNode: 2)
        func prices(_ most: Int) -> [Price] {
            Pricing(on: cluster, mostRanks: most, sampledRanks: 4) { job(.full, shapes, $0, 8, heads) }.prices([strategy], [.contiguous])
        }
        let (whole, sample) = (prices(8)[0], prices(4)[0])
        #expect(sample.work.count == 4 && whole.work.count == 8)
        for (name, part) in [("seconds", \Price.seconds), ("bytes", \.bytes), ("messages", \.messages), ("memory", \.memory), ("balance", \.balance)] {
            #expect(abs(sample[keyPath: part] / whole[keyPath: part] - 1) < 0.1, "\(name): \(sample[keyPath: part]), \(whole[keyPath: part])")
        }
    }

    /// More ranks than heads: those that take some are in the sample.
    @Test func theRanksThatWorkAreLookedAt() {
        let heads = HeadShape(heads: 2, headDimension: 64)
        let cluster = Self.cluster(ranks: 100)
        let price = Pricing(on: cluster, mostRanks: 4, sampledRanks: 2) { job(.full, [SequenceShape(length: 100 * 256)], $0, 100, heads) }
            .prices([.headExchange], [.contiguous])[0]
        #expect(abs(price.balance - 50) < 1)
    }

    /// A slow node's ranks set the pace unless the layout looks at speeds.
    @Test func speedsCount() {
        func node(_ name: String) -> Cluster.Node {
            .init(name: name, memory: 1e12, inside: .init(latency: 0, bandwidth: 1e12), between: .init(latency: 0, bandwidth: 1e12))
        }
        let cluster = Cluster(kinds: [(node("fast"), 3, 1, 2e11), (node("slow"), 1, 1, 1e11)])
        let shapes = [SequenceShape(length: 280 * 256)]
        let prices = Pricing(on: cluster) { layout in
            AttentionJob(shapes: shapes, mask: .full, heads: Self.heads, layout: layout, rankCount: 4, speeds: cluster.speeds)
        }.prices([.passKeyValue])
        #expect(abs(prices[0].balance - 1.75) < 0.01)
        #expect(prices[2].balance < 1.02)
        #expect(abs(prices[0].seconds / prices[2].seconds - 1.75) < 0.05)
        #expect(Choice(of: prices)?.price.layout == .balanced)
    }

    /// The link between nodes is shared by the ranks that use it at a time.
    @Test func ranksOfANodeShareItsLink() {
        let shapes = [SequenceShape(length: 16 * 512)]
        func seconds(_ strategy: Strategy, perNode: Int) -> Double {
            Pricing(on: Self.cluster(ranks: 8, perNode: perNode, flops: 1e18, between: 1e6)) { job(.full, shapes, $0, 8) }
                .prices([strategy], [.contiguous])[0].seconds
        }
        // A ring crosses a node's border once; all to all crosses with every rank.
        #expect(abs(seconds(.passKeyValue, perNode: 4) / seconds(.passKeyValue, perNode: 1) - 1) < 0.01)
        #expect(seconds(.allGather, perNode: 4) > 1.5 * seconds(.passKeyValue, perNode: 4))
    }

    /// Messages inside a node take its own link, and those on two links go at a time: the slower decides.
    @Test func theSlowerOfTwoLinksCounts() {
        let shapes = [SequenceShape(length: 8 * 512)]
        let bytes = Double(512 * 3 * (20 + 32) * 4) // keys and values of a rank, 24 channels of values padded to 32
        func seconds(_ strategy: Strategy, perNode: Int, inside: Double, between: Double) -> Double {
            Pricing(on: Self.cluster(ranks: 8, perNode: perNode, flops: 1e18, inside: inside, between: between)) { job(.full, shapes, $0, 8) }
                .prices([strategy], [.contiguous])[0].seconds
        }
        // Seven steps of a ring, on one link or on the other.
        #expect(abs(seconds(.passKeyValue, perNode: 8, inside: 1e6, between: 1e15) / (7 * bytes / 1e6) - 1) < 0.01)
        #expect(abs(seconds(.passKeyValue, perNode: 1, inside: 1e15, between: 1e6) / (7 * bytes / 1e6) - 1) < 0.01)
        // From a rank to its mate, and to the six others over a link that it shares with the mate.
        let (within, across) = (bytes / 1e6, 12 * bytes / 1e6)
        #expect(abs(seconds(.allGather, perNode: 2, inside: 1e6, between: 1e15) / within - 1) < 0.1)
        #expect(seconds(.allGather, perNode: 2, inside: 1e15, between: 1e6) > 0.5 * across)
    }

    /// The memory of a node is that of all its ranks, which here are alike.
    @Test func theMemoryOfANode() {
        let shapes = [SequenceShape(length: 8 * 512)]
        for perNode in [1, 2, 4] {
            for price in Pricing(on: Self.cluster(ranks: 8, perNode: perNode), job: { job(.full, shapes, $0, 8) }).prices([.allGather]) {
                #expect(price.nodeMemory == Double(perNode) * price.memory, "\(price.strategy), \(price.layout), \(perNode)")
            }
        }
    }

    /// The reason names the next best, and by how much it is slower.
    @Test func theReasonNamesTheNext() throws {
        let shapes = [SequenceShape(length: 64 * 256)]
        let prices = Pricing(on: Self.cluster(ranks: 8, between: 1e8)) { job(.full, shapes, $0, 8) }.prices([.passKeyValue, .passQueries], [.contiguous])
        let choice = try #require(Choice(of: prices))
        let next = try #require(prices.first { $0.strategy != choice.price.strategy })
        let longer = Int(((next.seconds / choice.price.seconds - 1) * 100).rounded())
        #expect(longer > 1)
        #expect(choice.reason.contains("\(next.strategy.rawValue) with contiguous, takes \(longer) % longer"), "\(choice.reason)")
        #expect(try #require(Choice(of: [next])).reason == "the only one asked for")
    }

    @Test func theFastestThatFitsIsChosen() throws {
        let shapes = [SequenceShape(length: 64 * 256)]
        func prices(memory: Double, between: Double) -> [Price] {
            Pricing(on: Self.cluster(ranks: 8, memory: memory, between: between)) { job(.causal, shapes, $0, 8) }.prices()
        }
        let roomy = prices(memory: 1e12, between: 1e10)
        let choice = try #require(Choice(of: roomy))
        #expect(choice.price.seconds <= 1.01 * roomy.map(\.seconds).min()!)
        #expect(choice.price.layout != .contiguous && choice.reason.contains("next") || choice.reason.contains("as fast as"))
        // A byte less than the hungriest needs, and it is out; less than any needs, and there is no choice.
        let needs = roomy.map(\.nodeMemory).sorted()
        #expect(try #require(Choice(of: prices(memory: needs[0], between: 1e10))).price.nodeMemory == needs[0])
        #expect(Choice(of: prices(memory: needs[0] - 1, between: 1e10)) == nil)
    }

    @Test func subtreesAreCounted() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            func runs() -> Runs { Runs((0..<Int.random(in: 0...4, using: &generator)).map { _ in
                let low = Int.random(in: 0..<60, using: &generator)
                return low..<low + Int.random(in: 0...20, using: &generator)
            }) }
            let (arrived, tiles) = (runs(), runs())
            #expect(TreeNode.maximalCount(in: arrived, of: tiles) == TreeNode.maximal(in: arrived, of: tiles).count, "\(arrived), \(tiles)")
        }
    }
}

/// What a rank holds, step by step, with a forest for every query tile and head.
private enum MemorySimulation {
    private struct Nothing: Mergeable { mutating func merge(right: Nothing) {} }
    private struct Unit: Hashable {
        let tile: Int
        let head: Int
    }

    static func peak(_ plan: Plan) -> Int {
        let job = plan.job
        let block = PartialPool.blockBytes(job.heads)
        let own = job.queries.tiles(of: plan.rank)
        let base = job.bytes(of: .keyValues(job.keys.tiles(of: plan.rank), heads: 0..<job.heads.keyValueHeads))
        var resident = 0
        var peak = base
        var forests: [Unit: MergeForest<Nothing>] = [:]
        func first(_ tile: Int) -> Int { job.keys.numbering.firstTile[job.queries.numbering.sequence(of: tile)] }
        func each(_ units: Units, _ body: (Unit, Runs) -> Void) {
            for tile in units.queries.ranges.joined() {
                let keys = job.visibleTiles(queryTile: tile).any.intersection(units.keys)
                if !keys.isEmpty { for head in units.heads { body(Unit(tile: tile, head: head), keys) } }
            }
        }
        func forest(_ unit: Unit) -> MergeForest<Nothing> {
            forests[unit] ?? MergeForest(tiles: job.visibleTiles(queryTile: unit.tile).any.shifted(by: -first(unit.tile)))
        }
        func finish(_ unit: Unit) { if own.contains(unit.tile), forests[unit]?.root != nil { forests[unit] = nil } }
        for step in plan.steps {
            var arriving = 0
            var blocks = 0
            for payload in step.receives.flatMap(\.payloads) {
                if case .partials(let units) = payload {
                    each(units) { unit, keys in blocks += job.subtrees(of: unit.tile, in: keys).count }
                } else {
                    arriving += job.bytes(of: payload)
                }
            }
            var copied = 0
            for case .queries(let tiles, let heads) in step.sends.flatMap(\.payloads) {
                copied += job.bytes(of: .queries(tiles.intersection(own), heads: heads))
            }
            for units in step.attend {
                each(units) { unit, keys in
                    var here = forest(unit)
                    for tile in keys.ranges.joined() { here.insert(Nothing(), tile: tile - first(unit.tile)) }
                    forests[unit] = here
                    finish(unit)
                }
            }
            blocks += forests.values.reduce(0) { $0 + $1.pendingCount }
            peak = max(peak, base + resident + arriving + copied + blocks * block)
            for payload in step.release { resident -= job.bytes(of: payload) }
            resident += arriving
            for case .partials(let units) in step.sends.flatMap(\.payloads) { each(units) { unit, _ in forests[unit] = nil } }
            for case .partials(let units) in step.receives.flatMap(\.payloads) {
                each(units) { unit, keys in
                    var here = forest(unit)
                    for node in job.subtrees(of: unit.tile, in: keys) { here.insert(Nothing(), at: node) }
                    forests[unit] = here
                    finish(unit)
                }
            }
        }
        return peak
    }
}
