// Theorems about the transport over MPI.

import Foundation
import MPI
import Plans
import RingAttention
import Tiles

func registerTransportChecks(_ checks: inout Checks) {
    checks.register("a ring of odd-sized messages passes every block once") { transport in
        try passRing(transport)
    }

    checks.registerForMPI("messages split into many parts arrive whole") { context in
        // These cut pieces and gathered messages at every kind of place.
        for partLimit in [7, 64, 1000] {
            try passRing(try MPITransport(context.world, partLimit: partLimit))
        }
    }

    checks.register("every pair at once, in pieces, some empty, in both directions") { transport in
        let me = transport.rank.index
        for step in 0..<8 {
            let length = { (from: Int, to: Int) in (from * 5 + to * 3 + step * 11) % 7 * 1531 }
            let peers = (0..<transport.size).filter { ($0 + me + step) % 3 != 0 || transport.size < 3 }
            let outgoing = peers.map { Bytes(pattern(from: me, to: $0, step: step, count: length(me, $0))) }
            let incoming = peers.map { Bytes(count: length($0, me)) }
            let before = transport.traffic
            try transport.exchange(
                receive: zip(peers, incoming).map {
                    Incoming(from: Rank($0), pieces: $1.pieces(1 + step % 4), keeping: [$1])
                },
                send: zip(peers, outgoing).map {
                    Outgoing(to: Rank($0), pieces: $1.sendPieces(1 + step % 3), keeping: [$1])
                },
                while: { poll in for _ in 0..<step { poll() } })
            for (peer, bytes) in zip(peers, incoming) {
                try expectEqual(
                    bytes.elements, pattern(from: peer, to: me, step: step, count: length(peer, me)), "from \(peer)")
            }
            try expectEqual(transport.traffic.messages - before.messages, peers.count)
            try expectEqual(
                transport.traffic.bytes - before.bytes, outgoing.reduce(0) { $0 + $1.all.count })
        }
    }

    checks.register("megabytes move while work polls") { transport in
        let me = transport.rank.index
        let next = (me + 1) % transport.size
        let previous = (me + transport.size - 1) % transport.size
        let count = 6_000_011
        let outgoing = Bytes(pattern(from: me, to: next, step: 0, count: count))
        let incoming = Bytes(count: count)
        try transport.exchange(
            receive: [Incoming(from: Rank(previous), pieces: incoming.pieces(5), keeping: [incoming])],
            send: [Outgoing(to: Rank(next), pieces: outgoing.sendPieces(3), keeping: [outgoing])],
            while: { poll in
                for _ in 0..<300 { poll() }
            })
        try expect(incoming.elements == pattern(from: previous, to: me, step: 0, count: count), "bytes differ")
    }

    checks.register("exchanges of a pair match in order") { transport in
        let me = transport.rank.index
        let last = transport.size - 1
        guard transport.size > 1 else { throw Skipped("needs two ranks") }
        // Rank 0 runs ahead of the last rank, whose receives must still match one by one.
        for step in 0..<50 {
            if me == 0 {
                let bytes = Bytes(pattern(from: 0, to: last, step: step, count: 100))
                try transport.exchange(
                    receive: [], send: [Outgoing(to: Rank(last), pieces: bytes.sendPieces(1), keeping: [bytes])])
            } else if me == last {
                let bytes = Bytes(count: 100)
                try transport.exchange(
                    receive: [Incoming(from: Rank(0), pieces: bytes.pieces(1), keeping: [bytes])], send: [])
                try expectEqual(bytes.elements, pattern(from: 0, to: last, step: step, count: 100))
            }
        }
    }

    checks.registerForMPI("a message of another length is an error") { context in
        for (sent, expected) in [(3, 4), (5, 4), (0, 9), (20, 9), (9, 20), (30, 9)] {
            let transport = try MPITransport(context.world, partLimit: 8)
            let out = Bytes(count: sent)
            let into = Bytes(count: expected)
            do {
                try transport.exchange(
                    receive: [Incoming(from: transport.rank, pieces: into.pieces(1), keeping: [into])],
                    send: [Outgoing(to: transport.rank, pieces: out.sendPieces(1), keeping: [out])])
            } catch let error as TransportError {
                guard case .lengthMismatch(transport.rank, expected, let length) = error else { throw error }
                try expect(length == nil || length == sent, "\(error)")
                continue
            } catch let error as MPIError {
                // A longer message than its receive is found by the library itself.
                try expectEqual(error.errorClass, .truncate, "\(error)")
                continue
            }
            throw CheckFailure("\(sent) bytes passed for \(expected)")
        }
    }

    checks.registerForMPI("an error of work comes out of the exchange once its messages are done") { context in
        let transport = try MPITransport(context.world)
        let me = transport.rank.index
        let next = (me + 1) % transport.size
        let previous = (me + transport.size - 1) % transport.size
        let outgoing = Bytes(pattern(from: me, to: next, step: 0, count: 500_000))
        let incoming = Bytes(count: 500_000)
        var thrown = false
        do {
            try transport.exchange(
                receive: [Incoming(from: Rank(previous), pieces: incoming.pieces(1), keeping: [incoming])],
                send: [Outgoing(to: Rank(next), pieces: outgoing.sendPieces(1), keeping: [outgoing])],
                while: { _ in if me == 0 { throw Skipped("inner") } })
        } catch is Skipped {
            thrown = true
        }
        // The ranks that did not fail have their messages.
        try expectEqual(thrown, me == 0)
        try expect(incoming.elements == pattern(from: previous, to: me, step: 0, count: 500_000), "bytes differ")
    }

    checks.register("a pair named twice, or a rank outside the job, is refused before anything is sent") { transport in
        let bytes = Bytes(count: 4)
        let twice = Incoming(from: Rank(0), pieces: bytes.pieces(1), keeping: [bytes])
        do {
            try transport.exchange(receive: [twice, twice], send: [])
            throw CheckFailure("a pair was named twice")
        } catch let error as TransportError {
            try expectEqual(error, .repeatedPair(from: Rank(0), to: transport.rank))
        }
        let beyond = Rank(transport.size)
        do {
            try transport.exchange(
                receive: [], send: [Outgoing(to: beyond, pieces: bytes.sendPieces(1), keeping: [bytes])])
            throw CheckFailure("a rank outside the job was accepted")
        } catch let error as TransportError {
            try expectEqual(error, .noSuchRank(beyond, size: transport.size))
        }
    }

    checks.register("a timeline has every meeting, with the time in it that a late rank costs the others") {
        transport in
        let timeline = Timeline(capacity: 4)
        let before = transport.timeline
        transport.timeline = timeline
        defer { transport.timeline = before }
        try transport.barrier()
        if transport.rank.index == transport.size - 1 { usleep(300_000) }
        let start = timeline.time(.now)
        _ = try transport.allGather([1])
        let end = timeline.time(.now)
        let (events, fold) = timeline.events(.meeting)
        try expect(fold == 1 && events.count == 2, "\(events)")
        try expect(events[1].start >= start && events[1].end <= end, "\(events[1]) in \(start)..<\(end)")
        // A rank that has waited at all: the span is the wait, but for what lies between four readings of a clock.
        if end - start > 100_000_000 {
            try expect(2 * events[1].busy >= end - start, "\(events[1]) in \(start)..<\(end)")
        }
    }

    checks.register("gathering gives every rank's bytes in rank order") { transport in
        for step in 0..<5 {
            let all = try transport.allGather(
                pattern(from: transport.rank.index, to: 0, step: step, count: (transport.rank.index + step) % 4 * 999))
            let expected = (0..<transport.size).map {
                pattern(from: $0, to: 0, step: step, count: ($0 + step) % 4 * 999)
            }
            try expectEqual(all, expected)
        }
    }
}

/// Passes every rank's block, of a length of its own, once around the ring.
private func passRing(_ transport: MPITransport) throws {
    let me = transport.rank.index
    let count = transport.size
    let length = { (origin: Int) in 1 + (origin + 1) * 5179 % 4099 }
    var held = Bytes(pattern(from: me, to: me, step: 0, count: length(me)))
    for hop in 1...count {
        let origin = ((me - hop) % count + count) % count
        let incoming = Bytes(count: length(origin))
        try transport.exchange(
            receive: [
                Incoming(
                    from: Rank((me + count - 1) % count), pieces: incoming.pieces(1 + hop % 4), keeping: [incoming])
            ],
            send: [Outgoing(to: Rank((me + 1) % count), pieces: held.sendPieces(1 + hop % 3), keeping: [held])],
            while: { poll in poll() })
        held = incoming
        try expectEqual(held.elements, pattern(from: origin, to: origin, step: 0, count: length(origin)), "hop \(hop)")
    }
}
