// Prices are those of the plans: their bytes, the memory that a step-by-step simulation finds, the work of every pair.

import Attention
import Matrices
import Plans
import Testing
import Tiles

@Suite struct PriceTests {
    static func cluster(
        ranks: Int, perNode: Int = 1, flops: Double = 1e11, memory: Double = 1e12,
        inside: Double = 2e10,
        between: Double = 1e10, processing: (inside: Double, between: Double) = (0, 0)
    ) -> Cluster {
        let node = Cluster.Node(
            name: "node", memory: memory,
            inside: .init(latency: 1e-6, bandwidth: inside, processing: processing.inside),
            between: .init(latency: 2e-6, bandwidth: between, processing: processing.between))
        return Cluster(kinds: [(node, ranks / perNode, perNode, flops)])
    }

    private static let heads = HeadShape(
        queryHeads: 6, keyValueHeads: 3, headDimension: 20, valueDimension: 24)

    static let cases: [(mask: Mask, shapes: [SequenceShape])] = [
        (.full, [SequenceShape(length: 9 * 256 + 17)]), (.causal, [SequenceShape(length: 11 * 256)]),
        (.window(left: 300, right: 200), [SequenceShape(length: 10 * 256)]),
        (.causal, [SequenceShape(length: 700), SequenceShape(length: 3), SequenceShape(length: 1800)]),
        (.full, [SequenceShape(queries: 40, keys: 13 * 256)]),
        (.or(.global(Runs(0..<3)), .window(left: 100, right: 0)), [SequenceShape(length: 2200)]),
    ]

    private func problem(
        _ mask: Mask, _ shapes: [SequenceShape], _ layout: Layout, _ ranks: Int,
        _ heads: HeadShape = heads
    ) -> AttentionProblem {
        AttentionProblem(shapes: shapes, mask: mask, heads: heads, layout: layout, rankCount: ranks)
    }

    @Test(arguments: cases.indices, [1, 2, 3, 5, 8]) func bytesMessagesAndWorkAreThePlans(
        number: Int, ranks: Int
    ) {
        let (mask, shapes) = Self.cases[number]
        for wire in [nil, ElementKind.bfloat16] {
            bytesMessagesAndWorkAreThePlans(mask, shapes, ranks, wire)
        }
        // Gradients, of relative biases too, whose results go both ways.
        let modifiers = ScoreModifiers(
            relativeBias: .init(table: Array(repeating: 0, count: 6 * 41), reach: 20))
        bytesMessagesAndWorkAreThePlans(mask, shapes, ranks, nil, .differentiate(Self.heads, modifiers))
    }

    private func bytesMessagesAndWorkAreThePlans(
        _ mask: Mask, _ shapes: [SequenceShape], _ ranks: Int, _ wire: ElementKind?,
        _ operation: OperationShape? = nil
    ) {
        let make: @Sendable (Layout) -> AttentionProblem = { layout in
            var made = problem(mask, shapes, layout, ranks)
            made.wire = wire
            if let operation { made.operation = operation }
            return made
        }
        let pricing = Pricing(on: Self.cluster(ranks: ranks), problem: make)
        let prices = pricing.prices()
        #expect(prices.count == Strategy.allCases.count * Layout.allCases.count)
        for price in prices {
            let problem = make(price.layout)
            let planner = price.strategy.planner(TileDependencies(problem))
            let plans = (0..<ranks).map { planner.plan(Rank($0)) }
            #expect(
                price.bytes == Double(plans.reduce(0) { $0 + $1.bytesSent }),
                "\(price.strategy), \(price.layout)")
            #expect(
                price.messages == Double(plans.reduce(0) { $0 + $1.messagesSent }),
                "\(price.strategy), \(price.layout)"
            )
            // Every visible pair is somebody's work, whoever does it.
            let work = price.work.reduce(0) { $0 + $1.flop }
            #expect(
                abs(work - problem.visibleFlop) <= 1e-9 * problem.visibleFlop,
                "\(price.strategy), \(price.layout)")
            #expect(price.balance >= 1 - 1e-9)
            #expect(
                price.exposedSeconds <= price.seconds
                    && price.seconds >= problem.visibleFlop / (1e11 * Double(ranks)) * (1 - 1e-9))
        }
    }

    /// The memory of the fullest rank, by a simulation of its own: partials in real forests, tile after tile.
    @Test(arguments: cases.indices, [1, 2, 3, 5, 8]) func memoryIsThatOfASimulation(
        number: Int, ranks: Int
    ) {
        let (mask, shapes) = Self.cases[number]
        for price in Pricing(
            on: Self.cluster(ranks: ranks), problem: { problem(mask, shapes, $0, ranks) }
        ).prices() {
            let problem = problem(mask, shapes, price.layout, ranks)
            let planner = price.strategy.planner(TileDependencies(problem))
            let fullest = (0..<ranks).map { MemorySimulation.peak(planner.plan(Rank($0))) }.max() ?? 0
            #expect(
                price.memory == Double(fullest),
                "\(price.strategy), \(price.layout), \(ranks) ranks, \(mask)")
        }
    }

    /// A plan of which some rounds and ranks are left out is priced about as the whole; in a tree, ranks differ by
    /// their depth.
    @Test(arguments: Strategy.allCases) func aSampleStandsForTheWhole(strategy: Strategy) {
        let heads = HeadShape(heads: 16, headDimension: 64)
        let shapes = [SequenceShape(length: 8 * 4096)]
        let cluster = Self.cluster(ranks: 8, perNode: 2)
        func prices(_ most: Int) -> [Price] {
            Pricing(on: cluster, mostRanks: most, sampledRanks: 4) {
                problem(.full, shapes, $0, 8, heads)
            }.prices(
                [strategy], [.contiguous])
        }
        let (whole, sample) = (prices(8)[0], prices(4)[0])
        #expect(sample.work.count == 4 && whole.work.count == 8)
        for (name, part) in [
            ("seconds", \Price.seconds), ("bytes", \.bytes), ("messages", \.messages),
            ("memory", \.memory),
            ("balance", \.balance),
        ] {
            #expect(
                abs(sample[keyPath: part] / whole[keyPath: part] - 1) < 0.1,
                "\(name): \(sample[keyPath: part]), \(whole[keyPath: part])")
        }
    }

    /// Rounds of heads are alike: where one is priced and the others are not, the price is that of all.
    @Test(arguments: 1...7) func aRoundStandsForThoseLikeIt(count: Int) {
        for ranks in [2, 4] {
            // So long that a round has one head of each rank.
            let heads = HeadShape(heads: count, headDimension: 64)
            func prices(everyRound: Bool) -> [Price] {
                Pricing(on: Self.cluster(ranks: ranks, between: 1e9), everyRound: everyRound) {
                    problem(.full, [SequenceShape(length: ranks * 16384)], $0, ranks, heads)
                }.prices(Strategy.allCases, [.contiguous])
            }
            for (whole, sample) in zip(prices(everyRound: true), prices(everyRound: false)) {
                // Where heads are not dealt out evenly, rounds differ, and one is an estimate.
                let isEven =
                    ![.headExchange, .hybrid].contains(whole.strategy) || count <= ranks || count % 2 == 0
                for (name, part) in [
                    ("bytes", \Price.bytes), ("messages", \.messages), ("seconds", \.seconds),
                    ("waiting", \.exposedSeconds),
                ] {
                    let (exact, estimate) = (whole[keyPath: part], sample[keyPath: part])
                    #expect(
                        abs(estimate - exact) <= (isEven ? 1e-9 : 0.1)
                            * (part == \.exposedSeconds ? whole.seconds : exact),
                        "\(name) of \(whole.strategy), \(ranks) ranks, \(count) heads: \(estimate), \(exact)")
                }
            }
        }
    }

    /// More ranks than heads: those that take some are in the sample.
    @Test func theRanksThatWorkAreLookedAt() {
        let heads = HeadShape(heads: 2, headDimension: 64)
        let cluster = Self.cluster(ranks: 100)
        let price = Pricing(on: cluster, mostRanks: 4, sampledRanks: 2) {
            problem(.full, [SequenceShape(length: 100 * 256)], $0, 100, heads)
        }
        .prices([.headExchange], [.contiguous])[0]
        #expect(abs(price.balance - 50) < 1)
    }

    /// Several at a time or one after another: the same prices in the same order.
    @Test(arguments: [1, 2, 5]) func threadsChangeNoPrice(threads: Int) {
        let pricing = Pricing(on: Self.cluster(ranks: 5, perNode: 1)) {
            problem(.causal, [SequenceShape(length: 9 * 256)], $0, 5)
        }
        func facts(_ prices: [Price]) -> [[Double]] {
            prices.map { [$0.seconds, $0.exposedSeconds, $0.bytes, $0.messages, $0.memory, $0.balance] }
        }
        let (one, several) = (pricing.prices(), pricing.prices(threads: ThreadPool(threads: threads)))
        #expect(
            several.map(\.strategy) == one.map(\.strategy) && several.map(\.layout) == one.map(\.layout))
        #expect(facts(several) == facts(one))
    }

    /// Layers that see different keys are priced each by its own plan; memory is that of the hungriest.
    @Test func eachKindOfLayersIsPriced() {
        let shapes = [SequenceShape(length: 24 * 256)]
        let window = Mask.window(left: 64, right: 64)
        var both = Footprint()
        both.layers = [.init(count: 3), .init(mask: window, count: 2)]
        both.denseFlopPerToken = 1e6
        both.bytesPerToken = 100
        let cluster = Self.cluster(ranks: 4, flops: 1e10, between: 1e8)
        func price(_ mask: Mask, _ footprint: Footprint, _ strategy: Strategy) -> Price {
            Pricing(on: cluster, footprint: footprint) { problem(mask, shapes, $0, 4) }.prices(
                [strategy], [.contiguous])[0]
        }
        for strategy in Strategy.allCases {
            let mixed = price(.full, both, strategy)
            var alone = Footprint()
            alone.bytesPerToken = 100
            let (full, local) = (price(.full, alone, strategy), price(window, alone, strategy))
            let dense = 5 * 6 * 256 * 1e6
            #expect(mixed.bytes == 3 * full.bytes + 2 * local.bytes)
            #expect(mixed.messages == 3 * full.messages + 2 * local.messages)
            #expect(mixed.memory == max(full.memory, local.memory))
            for rank in 0..<4 {
                let flop = 3 * full.work[rank].flop + 2 * local.work[rank].flop + dense
                #expect(abs(mixed.work[rank].flop - flop) <= 1e-9 * flop, "\(strategy), rank \(rank)")
            }
            let most = 3 * full.seconds + 2 * local.seconds + dense / 1e10
            #expect(
                mixed.seconds <= most * (1 + 1e-9) && mixed.seconds >= 3 * full.seconds + dense / 1e10)
        }
    }

    /// One rank's time is that of its whole tiles, and of the visible pairs and a fifth of each tile that is seen in part.
    @Test func tilesThatAreSeenInPartTakeLonger() {
        func pairs(_ mask: Mask, length: Int) -> (timed: Double, visible: Double) {
            let shapes = [SequenceShape(length: length)]
            let price = Pricing(on: Self.cluster(ranks: 1)) { problem(mask, shapes, $0, 1) }
                .prices([.passKeyValue], [.contiguous])[0]
            let priced = problem(mask, shapes, .contiguous, 1)
            let flopPerPair = Double(priced.operation.flopPerPair * Self.heads.queryHeads)
            return (price.seconds * 1e11 / flopPerPair, priced.visibleFlop / flopPerPair)
        }
        let full = pairs(.full, length: 2000)
        #expect(abs(full.timed / full.visible - 1) < 1e-9)
        let causal = pairs(.causal, length: 9 * 256)
        #expect(abs(causal.timed / (causal.visible + 9 * 0.2 * 65536) - 1) < 1e-9)
        // No more than whole.
        let almost = pairs(.window(left: 254, right: 254), length: 256)
        #expect(almost.visible == 65534 && abs(almost.timed / 65536 - 1) < 1e-9)
    }

    /// A slow node's ranks set the pace unless the layout looks at speeds.
    @Test func speedsCount() {
        func node(_ name: String) -> Cluster.Node {
            .init(
                name: name, memory: 1e12, inside: .init(latency: 0, bandwidth: 1e12),
                between: .init(latency: 0, bandwidth: 1e12))
        }
        let cluster = Cluster(kinds: [(node("fast"), 3, 1, 2e11), (node("slow"), 1, 1, 1e11)])
        let shapes = [SequenceShape(length: 280 * 256)]
        let prices = Pricing(on: cluster) { layout in
            AttentionProblem(
                shapes: shapes, mask: .full, heads: Self.heads, layout: layout, rankCount: 4,
                speeds: cluster.speeds)
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
            Pricing(on: Self.cluster(ranks: 8, perNode: perNode, flops: 1e18, between: 1e6)) {
                problem(.full, shapes, $0, 8)
            }
            .prices([strategy], [.contiguous])[0].seconds
        }
        // A ring crosses a node's border once; all to all crosses with every rank.
        #expect(abs(seconds(.passKeyValue, perNode: 4) / seconds(.passKeyValue, perNode: 1) - 1) < 0.01)
        #expect(seconds(.allGather, perNode: 4) > 1.5 * seconds(.passKeyValue, perNode: 4))
    }

    /// Messages inside a node take its own link, and those on two links go at a time: the slower decides.
    @Test func theSlowerOfTwoLinksCounts() {
        let shapes = [SequenceShape(length: 8 * 512)]
        let bytes = Double(512 * 3 * (20 + 32) * 4)  // keys and values of a rank, 24 channels of values padded to 32
        func seconds(_ strategy: Strategy, perNode: Int, inside: Double, between: Double) -> Double {
            Pricing(
                on: Self.cluster(ranks: 8, perNode: perNode, flops: 1e18, inside: inside, between: between)
            ) {
                problem(.full, shapes, $0, 8)
            }
            .prices([strategy], [.contiguous])[0].seconds
        }
        // Seven steps of a ring, on one link or on the other.
        #expect(
            abs(seconds(.passKeyValue, perNode: 8, inside: 1e6, between: 1e15) / (7 * bytes / 1e6) - 1)
                < 0.01)
        #expect(
            abs(seconds(.passKeyValue, perNode: 1, inside: 1e15, between: 1e6) / (7 * bytes / 1e6) - 1)
                < 0.01)
        // From a rank to its mate, and to the six others over a link that it shares with the mate.
        let (within, across) = (bytes / 1e6, 12 * bytes / 1e6)
        #expect(abs(seconds(.allGather, perNode: 2, inside: 1e6, between: 1e15) / within - 1) < 0.1)
        #expect(seconds(.allGather, perNode: 2, inside: 1e15, between: 1e6) > 0.5 * across)
    }

    /// What processors move delays what they compute, byte for byte, sent or received, on the link that it takes.
    @Test(arguments: Strategy.allCases) func whatMessagesTakeOfComputing(strategy: Strategy) {
        let job = problem(.full, [SequenceShape(length: 8 * 512)], .contiguous, 8)
        func seconds(_ inside: Double, _ between: Double) -> Double {
            let cluster = Self.cluster(
                ranks: 8, perNode: 2, inside: 1e15, between: 1e15, processing: (inside, between))
            return Pricing(on: cluster, problem: { _ in job }).prices([strategy], [.contiguous])[0].seconds
        }
        let free = seconds(0, 0)
        let planner = strategy.planner(TileDependencies(job))
        for (inside, between) in [(1e-9, 0.0), (0.0, 1e-9), (2e-9, 3e-9)] {
            let moved = (0..<8).map { number in
                let plan = planner.plan(Rank(number))
                return plan.steps.flatMap { $0.sends + $0.receives }.reduce(0.0) { sum, transfer in
                    let bytes = transfer.payloads.reduce(0) { $0 + plan.bytes(of: $1) }
                    return sum + Double(bytes) * (transfer.peer.index / 2 == number / 2 ? inside : between)
                }
            }
            let most = moved.max() ?? 0
            let more = seconds(inside, between) - free
            // All ranks compute as much, but for the trees' roots.
            #expect(more <= most * 1.001 && more >= 0.5 * most, "\(strategy): \(more), \(most)")
        }
    }

    /// The memory of a node is that of all its ranks, which here are alike.
    @Test func theMemoryOfANode() {
        let shapes = [SequenceShape(length: 8 * 512)]
        for perNode in [1, 2, 4] {
            for price in Pricing(
                on: Self.cluster(ranks: 8, perNode: perNode), problem: { problem(.full, shapes, $0, 8) }
            )
            .prices([.allGather]) {
                #expect(
                    price.nodeMemory == Double(perNode) * price.memory,
                    "\(price.strategy), \(price.layout), \(perNode)"
                )
            }
        }
    }

    /// A step takes as long as its work or its messages, whichever is longer: what a rank waits is what is left of the
    /// latter.
    @Test(arguments: [1e6, 1e8, 1e9, 1e12]) func waitingIsWhatWorkDoesNotHide(bandwidth: Double) {
        let shapes = [SequenceShape(length: 8 * 512)]
        for strategy in [Strategy.passKeyValue, .passQueries, .allGather, .headExchange] {
            let cluster = Self.cluster(ranks: 2, flops: 1e10, between: bandwidth)
            let even = HeadShape(queryHeads: 8, keyValueHeads: 4, headDimension: 20, valueDimension: 24)
            let price = Pricing(on: cluster) { problem(.full, shapes, $0, 2, even) }.prices(
                [strategy], [.contiguous])[
                    0]
            // Two ranks that do the same.
            let computing = price.work[0].flop / 1e10
            #expect(price.work[1].flop == price.work[0].flop)
            #expect(
                abs(price.seconds - computing - price.exposedSeconds) <= 1e-9 * price.seconds, "\(strategy)"
            )
            let moving = price.bytes / 2 / bandwidth
            #expect(price.exposedSeconds >= moving - computing)
            #expect(price.exposedSeconds <= moving + price.messages * 2e-6, "\(strategy)")
        }
    }

    /// The reason of a choice between a strategy and another.
    private func reason(
        _ strategies: [Strategy], _ layouts: [Layout] = [.contiguous], mask: Mask = .full,
        tiles: Int = 64,
        perNode: Int = 1,
        flops: Double = 1e11, memory: Double = 1e12, between: Double = 1e10
    ) throws -> (choice: Choice, prices: [Price]) {
        let cluster = Self.cluster(
            ranks: 8, perNode: perNode, flops: flops, memory: memory, between: between)
        let prices = Pricing(on: cluster) { problem(mask, [SequenceShape(length: tiles * 256)], $0, 8) }
            .prices(
                strategies, layouts)
        return (try #require(Choice(of: prices)), prices)
    }

    /// Every reason that a choice can have, word for word.
    @Test func theReasonIsTheReason() throws {
        func decimals(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
        // The work hides all messages: of like times the fewer bytes, and of like bytes the plainer one.
        var (choice, prices) = try reason([.passKeyValue, .passQueries], flops: 1e7)
        var (best, other) = (choice.price, prices.first { $0.strategy != choice.price.strategy }!)
        #expect(other.bytes > best.bytes)
        #expect(
            choice.reason
                == "as fast as \(other.strategy.rawValue) with contiguous, which sends \(decimals(other.bytes / best.bytes)) times the bytes"
        )
        (choice, prices) = try reason([.passKeyValue, .allGather], flops: 1e7)
        #expect(
            choice.price.strategy == .passKeyValue
                && choice.reason == "as fast as all-gather with contiguous, and the plainer one")
        // Messages that nothing hides, and work that is uneven.
        (choice, prices) = try reason([.passKeyValue, .passQueries], flops: 1e18, between: 1e6)
        (best, other) = (choice.price, prices.first { $0.strategy != choice.price.strategy }!)
        let longer = Int(((other.seconds / best.seconds - 1) * 100).rounded())
        #expect(
            choice.reason
                == "the next, \(other.strategy.rawValue) with contiguous, takes \(longer) % longer: waiting for messages"
        )
        (choice, prices) = try reason(
            [.passKeyValue], [.contiguous, .zigzag], mask: .causal, flops: 1e7)
        (best, other) = (choice.price, prices.first { $0.layout != choice.price.layout }!)
        #expect(best.layout == .zigzag)
        #expect(
            choice.reason
                == "the next, pass-kv with contiguous, takes \(Int(((other.seconds / best.seconds - 1) * 100).rounded())) % longer: "
                + "its work is less even, \(decimals(other.balance)) against \(decimals(best.balance))")
        // Another strategy tells more than another layout of the same.
        (choice, _) = try reason(
            [.passKeyValue, .tree], [.zigzag, .balanced], mask: .causal, flops: 1e7)
        #expect(choice.reason.contains("tree with"), "\(choice.reason)")
        // What is faster does not fit: the least memory, to the byte.
        let roomy = try reason([.passKeyValue, .allGather], flops: 1e18, between: 1e6).prices
        let (lean, hungry) =
            roomy[0].nodeMemory < roomy[1].nodeMemory ? (roomy[0], roomy[1]) : (roomy[1], roomy[0])
        (choice, prices) = try reason(
            [.passKeyValue, .allGather], flops: 1e18, memory: lean.nodeMemory, between: 1e6)
        #expect(choice.price.strategy == lean.strategy)
        #expect(
            choice.reason == "the only one that fits"
                + (hungry.seconds < lean.seconds
                    ? "; \(hungry.strategy.rawValue) with contiguous would be faster, but needs \(decimals(hungry.nodeMemory / lean.nodeMemory)) times a node's memory"
                    : ""))
        #expect(try reason([.tree]).choice.reason == "the only one asked for")
    }

    @Test func theFastestThatFitsIsChosen() throws {
        let shapes = [SequenceShape(length: 64 * 256)]
        func prices(memory: Double, between: Double) -> [Price] {
            Pricing(on: Self.cluster(ranks: 8, memory: memory, between: between)) {
                problem(.causal, shapes, $0, 8)
            }
            .prices()
        }
        let roomy = prices(memory: 1e12, between: 1e10)
        let choice = try #require(Choice(of: roomy))
        #expect(choice.price.seconds <= 1.01 * roomy.map(\.seconds).min()!)
        #expect(
            choice.price.layout != .contiguous && choice.reason.contains("next")
                || choice.reason.contains("as fast as")
        )
        // A byte less than the hungriest needs, and it is out; less than any needs, and there is no choice.
        let dependencies = roomy.map(\.nodeMemory).sorted()
        #expect(
            try #require(Choice(of: prices(memory: dependencies[0], between: 1e10))).price.nodeMemory
                == dependencies[0]
        )
        #expect(Choice(of: prices(memory: dependencies[0] - 1, between: 1e10)) == nil)
    }

    @Test func subtreesAreCounted() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            func runs() -> Runs {
                Runs(
                    (0..<Int.random(in: 0...4, using: &generator)).map { _ in
                        let low = Int.random(in: 0..<60, using: &generator)
                        return low..<low + Int.random(in: 0...20, using: &generator)
                    })
            }
            let (arrived, tiles) = (runs(), runs())
            #expect(
                TreeNode.maximalCount(in: arrived, of: tiles)
                    == TreeNode.maximal(in: arrived, of: tiles).count,
                "\(arrived), \(tiles)")
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
        let problem = plan.problem
        let block = ResultPool.blockBytes(problem.operation.rowResults)
        let own = problem.queries.tiles(of: plan.rank)
        let base = plan.bytes(
            of: .columns(problem.keys.tiles(of: plan.rank), heads: 0..<problem.heads.keyValueHeads))
        var resident = 0
        var peak = base
        var forests: [Unit: MergeForest<Nothing>] = [:]
        func first(_ tile: Int) -> Int {
            problem.keys.numbering.firstTile[problem.queries.numbering.sequence(of: tile)]
        }
        func each(_ units: Units, _ body: (Unit, Runs) -> Void) {
            for tile in units.queries.ranges.joined() {
                let keys = problem.visibleTiles(queryTile: tile).any.intersection(units.keys)
                if !keys.isEmpty { for head in units.heads { body(Unit(tile: tile, head: head), keys) } }
            }
        }
        func forest(_ unit: Unit) -> MergeForest<Nothing> {
            forests[unit]
                ?? MergeForest(
                    tiles: problem.visibleTiles(queryTile: unit.tile).any.shifted(by: -first(unit.tile)))
        }
        func finish(_ unit: Unit) {
            if own.contains(unit.tile), forests[unit]?.root != nil { forests[unit] = nil }
        }
        for step in plan.steps {
            var arriving = 0
            var blocks = 0
            for payload in step.receives.flatMap(\.payloads) {
                if case .rowResults(let units) = payload {
                    each(units) { unit, keys in blocks += problem.subtrees(of: unit.tile, in: keys).count }
                } else {
                    arriving += plan.bytes(of: payload)
                }
            }
            var copied = 0
            for case .rows(let tiles, let heads) in step.sends.flatMap(\.payloads) {
                copied += plan.bytes(of: .rows(tiles.intersection(own), heads: heads))
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
            for payload in step.release { resident -= plan.bytes(of: payload) }
            resident += arriving
            for case .rowResults(let units) in step.sends.flatMap(\.payloads) {
                each(units) { unit, _ in forests[unit] = nil }
            }
            for case .rowResults(let units) in step.receives.flatMap(\.payloads) {
                each(units) { unit, keys in
                    var here = forest(unit)
                    for node in problem.subtrees(of: unit.tile, in: keys) { here.insert(Nothing(), at: node) }
                    forests[unit] = here
                    finish(unit)
                }
            }
        }
        return peak
    }
}
