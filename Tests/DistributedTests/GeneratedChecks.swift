// Generated cases of mask × modifier × layout × strategy × heads × lengths over MPI: a small part of what the virtual
// ranks go through.

import Attention
import Foundation
import Plans
import RingAttention
import TestSupport
import Tiles

/// The first seed is fixed; ANNULUS_TEST_SEED on rank 0 moves to others.
private let givenSeed = ProcessInfo.processInfo.environment["ANNULUS_TEST_SEED"].flatMap { UInt64($0) } ?? 1

#if DEBUG
// Unoptimised code is some fifty times slower: a sample.
private let caseCount = 2
#else
private let caseCount = 30
#endif

func registerGeneratedChecks(_ checks: inout Checks) {
    checks.register("generated cases: oracle, the bytes of one virtual rank, those sent by the formula") { transport in
        let seed = try sum(of: transport.rank.index == 0 ? givenSeed : 0, transport)
        // A rank that finds a fault goes on with the others and tells in the end, so that none waits for it.
        var fault: (any Error)?
        for number in 0..<caseCount {
            // Other cases for other rank counts.
            var ringCase = RandomCase.ringCase(
                seed: seed &* 1_000_003 &+ UInt64(transport.size * caseCount + number), longest: 560)
            ringCase.strategy = Strategy.allCases[number % Strategy.allCases.count]
            let outcome = try ringCase.run(on: transport, threads: 1 + number % 2)
            let given = ringCase
            let alone = try VirtualRanks.run(count: 1, seed: 1) { try given.run(on: $0) }[0]
            let sent = try sum(of: UInt64(outcome.bytesSent), transport)
            do {
                let disagreement = ringCase.disagreement(outcome)
                try expect(disagreement == nil, "\(disagreement ?? "") in \(ringCase)")
                try expect(outcome.sameBits(as: alone), "other bits than on one virtual rank: \(ringCase)")
                try expectEqual(
                    Int(sent), ByteFormula(ringCase.problem(ranks: transport.size)).bytes(ringCase.strategy),
                    "bytes of \(ringCase)")
            } catch {
                fault = fault ?? error
            }
        }
        if let fault { throw fault }
    }

    checks.register("gradients of generated cases: oracle, the bytes of one virtual rank, those sent by the formula") {
        transport in
        let seed = try sum(of: transport.rank.index == 0 ? givenSeed : 0, transport)
        var fault: (any Error)?
        for number in 0..<caseCount {
            var ringCase = RandomCase.ringCase(
                seed: seed &* 3_000_017 &+ UInt64(transport.size * caseCount + number), longest: 540)
            ringCase.strategy = Strategy.allCases[number % Strategy.allCases.count]
            let gradients = try ringCase.differentiate(on: transport, threads: 1 + number % 2)
            let given = ringCase
            let alone = try VirtualRanks.run(count: 1, seed: 1) { try given.differentiate(on: $0) }[0]
            let sent = try sum(of: UInt64(gradients.bytesSent), transport)
            do {
                let disagreement = ringCase.disagreement(gradients)
                try expect(disagreement == nil, "\(disagreement ?? "") in \(ringCase)")
                try expect(gradients.bits == alone.bits, "other bits than on one virtual rank: \(ringCase)")
                try expectEqual(
                    Int(sent), ByteFormula(ringCase.gradientProblem(ranks: transport.size)).bytes(ringCase.strategy),
                    "bytes of \(ringCase)")
            } catch {
                fault = fault ?? error
            }
        }
        if let fault { throw fault }
    }
}

/// The sum of a number over all ranks. Collective.
private func sum(of value: UInt64, _ transport: MPITransport) throws -> UInt64 {
    try transport.allGather(withUnsafeBytes(of: value) { Array($0) }).reduce(0) { total, bytes in
        total &+ bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    }
}
