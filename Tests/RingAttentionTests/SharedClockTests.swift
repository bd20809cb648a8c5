// Ranks of a node that read each other's memory while some of them stand still now and then: nobody reads too early or
// writes too soon.

import Attention
import Foundation
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

/// A transport whose rank stands still at moments that a seed chooses, before and behind its messages and its work.
private final class HaltingTransport: Transport {
    private let carrier: VirtualTransport
    private var generator: SplitMix

    init(_ carrier: VirtualTransport, seed: UInt64) {
        self.carrier = carrier
        generator = SplitMix(seed: seed &* 31 &+ UInt64(carrier.rank.index))
    }

    /// One time in four for as long as a few steps take.
    private func halt() {
        if generator.next() % 4 == 0 { usleep(UInt32(generator.next() % 4_000)) }
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
    var freeSharedMemory: Int? { carrier.freeSharedMemory }
    func allGather(_ bytes: [UInt8]) throws -> [[UInt8]] { try carrier.allGather(bytes) }
    func hosts() throws -> [Int] { carrier.hosts() }
    func shareMemory(floats: Int, among ranks: Range<Int>) throws -> SharedMemory { try carrier.shareMemory(floats: floats, among: ranks) }
}

@Suite struct SharedClockTests {
    /// Layers one after another through one executor, as an encoder runs them, each of inputs of its own: what is left of
    /// the layer before, or has not come yet, would change the bits.
    @Test(arguments: Strategy.allCases) func haltingRanksOfANodeGiveTheSameBits(strategy: Strategy) throws {
        let layers = 3
        for (number, (ranks, perNode)) in [(2, 2), (3, 3), (4, 2), (5, 3), (6, 2), (6, 3)].enumerated() {
            let seed = UInt64.random(in: 0...UInt64.max)
            var ringCase = RingCase(
                [SequenceShape(length: 7 * 256 + 40)], heads: HeadShape(queryHeads: 4, keyValueHeads: 2, headDimension: 16, valueDimension: 16),
                mask: number % 2 == 0 ? .full : .causal, layout: Layout.allCases[number % Layout.allCases.count], seed: seed)
            ringCase.strategy = strategy
            ringCase.ranksPerNode = perNode
            let inputs = (0..<layers).map { layer in
                var other = ringCase
                other.seed &+= UInt64(layer)
                return other.inputs()
            }
            let given = ringCase
            let expected = try VirtualRanks.run(count: 1) { transport in try inputs.map { try given.run(on: transport, inputs: $0) } }[0]
            let outcomes = try VirtualRanks.run(count: ranks, seed: seed, fillsReceives: true) { carrier in
                let transport = HaltingTransport(carrier, seed: seed)
                let executor = try given.executor(on: transport)
                // No rank waits for the others between the layers.
                let parts = try inputs.map { try given.attend(executor, inputs: $0, on: transport) }
                return try parts.map { try given.gather($0, over: transport) }
            }
            for (layer, outcome) in outcomes[0].enumerated() {
                #expect(outcome.sameBits(as: expected[layer]), "layer \(layer), \(ranks) ranks, \(ringCase)")
            }
        }
    }
}
