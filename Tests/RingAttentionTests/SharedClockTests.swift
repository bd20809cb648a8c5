// Ranks of a node that read each other's memory while some of them stand still now and then: nobody reads too early or
// writes too soon.

import Attention
import Foundation
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

/// Which rank stands still when.
private enum Halts {
    /// Each at moments that a seed chooses, one in four, for as long as a few steps take.
    case random(UInt64)
    /// One rank at every moment, long enough for the others to run as far ahead as they can.
    case laggard(Rank)
}

/// A transport whose rank stands still now and then, before and behind its messages and its work.
private final class HaltingTransport: Transport {
    private let carrier: VirtualTransport
    private let halts: Halts
    private var generator: SplitMix

    init(_ carrier: VirtualTransport, _ halts: Halts) {
        self.carrier = carrier
        self.halts = halts
        generator =
            if case .random(let seed) = halts { SplitMix(seed: seed &* 31 &+ UInt64(carrier.rank.index)) } else {
                SplitMix(seed: 0)
            }
    }

    func halt() {
        switch halts {
        case .random: if generator.next() % 4 == 0 { usleep(UInt32(generator.next() % 4_000)) }
        case .laggard(let rank): if rank == carrier.rank { usleep(6_000) }
        }
    }

    func exchange(receive: [Incoming], send: [Outgoing], while work: (_ poll: () -> Void) throws -> Void) throws {
        halt()
        try withoutActuallyEscaping(work) { work in
            try carrier.exchange(receive: receive, send: send) { poll in
                halt()
                try work(poll)
                halt()
            }
        }
        halt()
    }

    var rank: Rank { carrier.rank }
    var size: Int { carrier.size }
    var traffic: Traffic { carrier.traffic }
    var timeline: Timeline? {
        get { carrier.timeline }
        set { carrier.timeline = newValue }
    }
    var freeSharedMemory: Int? { carrier.freeSharedMemory }
    func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] { try carrier.allGather(bytes) }
    func hosts() throws -> [Int] { carrier.hosts() }
    func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory {
        try carrier.shareMemory(floats: floats, among: ranks)
    }
}

@Suite struct SharedClockTests {
    @Test(arguments: Strategy.allCases) func haltingRanksOfANodeGiveTheSameBits(strategy: Strategy) throws {
        for (number, (ranks, perNode)) in [(2, 2), (3, 3), (4, 2), (5, 3), (6, 2), (6, 3)].enumerated() {
            let seed = UInt64.random(in: 0...UInt64.max)
            var ringCase = RingCase(
                [SequenceShape(length: 7 * 256 + 40)], heads: Self.heads, mask: number % 2 == 0 ? .full : .causal,
                layout: Layout.allCases[number % Layout.allCases.count], seed: seed)
            ringCase.strategy = strategy
            ringCase.ranksPerNode = perNode
            try expectSameBits(ringCase, ranks: ranks, layers: 3, [.random(seed)])
        }
    }

    /// With four nodes memory that one step's tiles were in is written again by a later step's. The first rank of a
    /// node takes in what comes and waits for nobody but those that read its memory.
    @Test func memoryIsWrittenAgainOnceItsLastReaderIsDone() throws {
        var ringCase = RingCase([SequenceShape(length: 8 * 256)], heads: Self.heads, mask: .full)
        ringCase.ranksPerNode = 2
        let plan = ringCase.strategy.plan(ringCase.problem(ranks: 8), rank: Rank(0))
        let places = SegmentMap(plan).arrivals
        #expect(
            places.contains { early in places.contains { $0.offset == early.offset && $0.step > early.step } },
            "nothing is written again")
        try expectSameBits(ringCase, ranks: 8, layers: 2, (0..<8).map { .laggard(Rank($0)) })
    }

    /// In a group of `hybrid` a rank sends what a mate has packed. A mate without queries has no message for it that
    /// would tell that it has begun.
    @Test func whatAMatePacksIsSentOnceItIsThere() throws {
        var ringCase = RingCase([SequenceShape(queries: 3 * 256, keys: 8 * 256)], heads: Self.heads, mask: .full)
        ringCase.strategy = .hybrid
        ringCase.ranksPerNode = 2
        let problem = ringCase.problem(ranks: 4)
        let idle = try #require(
            (0..<4).map { Rank($0) }.first {
                problem.queries.tiles(of: $0).isEmpty && !problem.keys.tiles(of: $0).isEmpty
            })
        try expectSameBits(ringCase, ranks: 4, layers: 2, [.laggard(idle)])
    }

    private static let heads = HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 16, valueDimension: 16)

    /// Layers one after another through one executor, as an encoder runs them, each of inputs of its own: what is left
    /// of the layer before, or has not come yet, would change the bits.
    private func expectSameBits(_ ringCase: RingCase, ranks: Int, layers: Int, _ halts: [Halts]) throws {
        let inputs = (0..<layers).map { layer in
            var other = ringCase
            other.seed &+= UInt64(layer)
            return other.inputs()
        }
        let expected = try VirtualRanks.run(count: 1) { transport in
            try inputs.map { try ringCase.run(on: transport, inputs: $0) }
        }[0]
        for halt in halts {
            let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) { carrier in
                let transport = HaltingTransport(carrier, halt)
                let setup = try ringCase.setup(on: transport)
                // No rank waits for the others between the layers.
                let parts = try inputs.map { inputs in
                    transport.halt()
                    return try ringCase.attend(setup, inputs: inputs, on: transport)
                }
                return try parts.map { try ringCase.gather($0, over: transport) }
            }
            for (layer, outcome) in outcomes[0].enumerated() {
                #expect(outcome.sameBits(as: expected[layer]), "layer \(layer), \(ranks) ranks, \(halt), \(ringCase)")
            }
        }
    }

    /// A mate that has ended sets its clock no more: whoever waits for that is told so, and what was set before it ended
    /// counts.
    @Test func aClockOfARankThatHasEndedIsNotWaitedFor() {
        #expect(throws: TransportError.missingMessage(from: Rank(1))) {
            try VirtualRanks.run(count: 2) { transport in
                let memory = try transport.shareMemory(floats: 1, among: 0..<2)
                guard transport.rank == Rank(0) else { return memory.setClock(of: Rank(1), to: 1) }
                try memory.wait(for: Rank(1), toReach: 1)
                try memory.wait(for: Rank(1), toReach: 2)
            }
        }
    }
}
