// Theorems about the transport between virtual ranks: every message arrives whole, once, where it belongs, whatever
// the order of delivery; and no failure leaves a rank waiting.

import RingAttention
import Synchronization
import Testing
import Tiles

/// A byte that depends on every coordinate of a message, so that a message in the wrong place is noticed.
private func byte(_ from: Int, _ to: Int, _ step: Int, _ offset: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: from &* 31 &+ to &* 57 &+ step &* 101 &+ offset &* 7 &+ (offset >> 8))
}

private func message(_ from: Int, _ to: Int, _ step: Int, count: Int) -> [UInt8] {
    (0..<count).map { byte(from, to, step, $0) }
}

/// A length that differs from pair to pair, zero for some.
private func length(_ from: Int, _ to: Int, _ step: Int) -> Int { (from * 5 + to * 3 + step * 11) % 7 * 131 }

/// Memory of a fixed address for the length of an exchange.
private final class Bytes {
    let all: UnsafeMutableRawBufferPointer

    init(count: Int) {
        all = .allocate(byteCount: count, alignment: 16)
        all.initializeMemory(as: UInt8.self, repeating: 0xEE)
    }

    convenience init(_ bytes: [UInt8]) {
        self.init(count: bytes.count)
        all.copyBytes(from: bytes)
    }

    deinit { all.deallocate() }

    /// The memory in three pieces, one of them empty.
    var pieces: [UnsafeMutableRawBufferPointer] {
        let cut = all.count / 3
        return [
            UnsafeMutableRawBufferPointer(rebasing: all[0..<cut]),
            UnsafeMutableRawBufferPointer(rebasing: all[cut..<cut]),
            UnsafeMutableRawBufferPointer(rebasing: all[cut...]),
        ]
    }

    var sendPieces: [UnsafeRawBufferPointer] { pieces.map { UnsafeRawBufferPointer($0) } }
    var elements: [UInt8] { Array(all) }
}

private struct Fault: Error, Equatable {}

@Suite struct VirtualTransportTests {
    @Test(arguments: 1...16)
    func everyMessageArrivesWholeWhateverTheOrder(count: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let wrong = try VirtualRanks.run(count: count, seed: seed, fillsReceives: true) { transport -> [String] in
            let me = transport.rank.index
            var wrong: [String] = []
            var bytes = 0
            for step in 0..<6 {
                let peers = (0..<count).filter { ($0 + me + step) % 3 != 0 || count < 3 }
                let outgoing = peers.map { Bytes(message(me, $0, step, count: length(me, $0, step))) }
                let incoming = peers.map { Bytes(count: length($0, me, step)) }
                bytes += outgoing.reduce(0) { $0 + $1.all.count }
                try transport.exchange(
                    receive: zip(peers, incoming).map { Incoming(from: Rank($0), pieces: $1.pieces, keeping: [$1]) },
                    send: zip(peers, outgoing).map { Outgoing(to: Rank($0), pieces: $1.sendPieces, keeping: [$1]) },
                    while: { poll in for _ in 0..<step * 3 { poll() } })
                for (peer, received) in zip(peers, incoming)
                where received.elements != message(peer, me, step, count: length(peer, me, step)) {
                    wrong.append("step \(step): \(peer) to \(me)")
                }
            }
            if transport.traffic.bytes != bytes { wrong.append("traffic of \(me)") }
            return wrong
        }
        #expect(wrong.flatMap { $0 } == [], "seed \(seed)")
    }

    @Test(arguments: 1...16)
    func aRingOfOddSizesPassesEveryBlockOnce(count: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let size: @Sendable (Int) -> Int = { 1 + $0 * 517 % 4099 }
        let ok = try VirtualRanks.run(count: count, seed: seed) { transport -> Bool in
            let me = transport.rank.index
            var held = Bytes(message(me, me, 0, count: size(me)))
            var ok = true
            for hop in 1...count {
                let origin = ((me - hop) % count + count) % count
                let next = Bytes(count: size(origin))
                try transport.exchange(
                    receive: [Incoming(from: Rank((me + count - 1) % count), pieces: next.pieces, keeping: [next])],
                    send: [Outgoing(to: Rank((me + 1) % count), pieces: held.sendPieces, keeping: [held])],
                    while: { poll in poll() })
                held = next
                ok = ok && held.elements == message(origin, origin, 0, count: size(origin))
            }
            return ok
        }
        #expect(ok.allSatisfy { $0 }, "seed \(seed)")
    }

    @Test(arguments: [1, 2, 3, 5, 16])
    func gatheringGivesEveryRanksBytesInOrder(count: Int) throws {
        let all = try VirtualRanks.run(count: count) { transport -> [[[UInt8]]] in
            try (0..<5).map { step in
                try transport.allGather(
                    message(transport.rank.index, 0, step, count: (transport.rank.index + step) % 4))
            }
        }
        let expected = (0..<5).map { step in
            (0..<count).map { message($0, 0, step, count: ($0 + step) % 4) }
        }
        for rank in 0..<count { #expect(all[rank] == expected) }
    }

    @Test(arguments: 2...16)
    func anErrorOfOneRankEndsAllWithThatError(count: Int) throws {
        let failing = count / 2
        let others = SharedList<TransportError>()
        #expect(throws: Fault()) {
            _ = try VirtualRanks.run(count: count, seed: 3) { transport in
                let me = transport.rank.index
                let next = Bytes(count: 8)
                let held = Bytes(count: 8)
                do {
                    // A ring longer than its ranks: the failure reaches a rank d places on d steps later.
                    for step in 0..<3 * count + 5 {
                        try transport.exchange(
                            receive: [
                                Incoming(from: Rank((me + count - 1) % count), pieces: [next.all], keeping: [next])
                            ],
                            send: [
                                Outgoing(
                                    to: Rank((me + 1) % count), pieces: [UnsafeRawBufferPointer(held.all)],
                                    keeping: [held])
                            ],
                            while: { poll in
                                if me == failing && step == 4 { throw Fault() }
                                poll()
                            })
                    }
                } catch let error as TransportError {
                    others.append(error)
                    throw error
                }
            }
        }
        #expect(others.elements.count == count - 1)
        for error in others.elements {
            #expect(error == .rankFailed(Rank(failing), message: "Fault()"))
        }
    }

    @Test func aRankThatReturnsWithoutItsMessageIsAnError() throws {
        #expect(throws: TransportError.missingMessage(from: Rank(1))) {
            _ = try VirtualRanks.run(count: 2) { transport in
                guard transport.rank == Rank(0) else { return }
                let memory = Bytes(count: 4)
                try transport.exchange(
                    receive: [Incoming(from: Rank(1), pieces: [memory.all], keeping: [memory])], send: [])
            }
        }
        #expect(throws: TransportError.missingMessage(from: Rank(2))) {
            _ = try VirtualRanks.run(count: 3) { transport in
                if transport.rank != Rank(2) { try transport.barrier() }
            }
        }
    }

    @Test(arguments: [1, 2, 3, 8])
    func ranksThatWaitForEachOtherAreADeadlockNotAHang(count: Int) throws {
        #expect(throws: TransportError.deadlock) {
            _ = try VirtualRanks.run(count: count) { transport in
                let memory = Bytes(count: 4)
                let from = Rank((transport.rank.index + 1) % count)
                try transport.exchange(
                    receive: [Incoming(from: from, pieces: [memory.all], keeping: [memory])], send: [])
            }
        }
        #expect(throws: TransportError.deadlock) {
            _ = try VirtualRanks.run(count: count + 1) { transport in
                let memory = Bytes(count: 4)
                guard transport.rank == Rank(0) else { return try transport.barrier() }
                try transport.exchange(
                    receive: [Incoming(from: Rank(count), pieces: [memory.all], keeping: [memory])], send: [])
            }
        }
    }

    @Test func aMessageOfAnotherLengthIsAnError() throws {
        for sent in [0, 3, 5] {
            #expect(throws: TransportError.lengthMismatch(from: Rank(1), expected: 4, received: sent)) {
                _ = try VirtualRanks.run(count: 2) { transport in
                    let memory = Bytes(count: transport.rank.index == 0 ? 4 : sent)
                    if transport.rank == Rank(0) {
                        try transport.exchange(
                            receive: [Incoming(from: Rank(1), pieces: [memory.all], keeping: [memory])], send: [])
                    } else {
                        try transport.exchange(
                            receive: [], send: [Outgoing(to: Rank(0), pieces: memory.sendPieces, keeping: [memory])])
                    }
                }
            }
        }
    }

    @Test func aPairNamedTwiceOrARankOutsideTheJobIsRefused() throws {
        _ = try VirtualRanks.run(count: 1) { transport in
            let memory = Bytes(count: 4)
            let twice = Incoming(from: Rank(0), pieces: [memory.all], keeping: [memory])
            #expect(throws: TransportError.repeatedPair(from: Rank(0), to: Rank(0))) {
                try transport.exchange(receive: [twice, twice], send: [])
            }
            #expect(throws: TransportError.noSuchRank(Rank(1), size: 1)) {
                try transport.exchange(
                    receive: [], send: [Outgoing(to: Rank(1), pieces: memory.sendPieces, keeping: [memory])])
            }
        }
    }

    @Test func resultsComeInRankOrderAndThreadsHaveTheStackAskedFor() throws {
        let results = try VirtualRanks.run(count: 7, stackSize: 1 << 20) { transport in
            // Recursion that would not fit a small stack: 400 frames of more than a kilobyte.
            func depth(_ level: Int) -> Int {
                withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 16) { block in
                    block[0] = UInt8(truncatingIfNeeded: level)
                    return level == 0 ? Int(block[0]) : depth(level - 1) + 1
                }
            }
            return transport.rank.index * 1000 + depth(400)
        }
        #expect(results == (0..<7).map { $0 * 1000 + 400 })
    }
}

/// A list that several threads append to.
private final class SharedList<Element: Sendable>: Sendable {
    private let list = Mutex<[Element]>([])
    func append(_ element: Element) { list.withLock { $0.append(element) } }
    var elements: [Element] { list.withLock { $0 } }
}
