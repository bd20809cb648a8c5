// How the clocks of ranks are read on that of rank 0.

import Foundation
import Plans
import RingAttention
import Tiles

/// What a rank's clock showed at some moment, and what rank 0's did.
package struct ClockReading: Equatable {
    /// This rank's clock, in nanoseconds. Ranks of a host have one clock.
    package var time = 0
    /// What is added to get rank 0's.
    package var offset = 0
    /// By how much that may be wrong: half of the time in which the best of several messages came and went.
    package var error = 0

    package init(time: Int = 0, offset: Int = 0, error: Int = 0) {
        (self.time, self.offset, self.error) = (time, offset, error)
    }

    /// How often a message goes there and back; the quickest counts.
    private static let rounds = 16

    /// The host's clock, in nanoseconds. The corresponding C function is `clock_gettime` with `CLOCK_MONOTONIC`.
    package static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }

    /// Reads this rank's clock and rank 0's: the first rank of every other host sends rank 0 a message and gets the time
    /// back, which it takes for that of the middle (Cristian 1989). Collective.
    package static func read(_ transport: any Transport) throws -> ClockReading {
        let hosts = try transport.hosts()
        let me = transport.rank.index
        var mine = ClockReading(time: now)
        for rank in hosts.indices where hosts[rank] == rank && hosts[rank] != hosts[0] {
            if me == 0 {
                for _ in 0..<rounds {
                    _ = try pass(to: nil, from: Rank(rank), transport)
                    _ = try pass(to: Rank(rank), from: nil, transport)
                }
            } else if me == rank {
                var best: ClockReading?
                for _ in 0..<rounds {
                    let sent = now
                    _ = try pass(to: Rank(0), from: nil, transport)
                    let there = try pass(to: nil, from: Rank(0), transport)
                    let back = now
                    let middle = sent + (back - sent) / 2
                    let reading = ClockReading(time: middle, offset: there - middle, error: (back - sent + 1) / 2)
                    if best.map({ reading.error < $0.error }) ?? true { best = reading }
                }
                mine = best ?? mine
            }
        }
        let all = try transport.allGather([mine.time, mine.offset, mine.error].withUnsafeBytes { Array($0) })
        return all[hosts[me]].withUnsafeBytes {
            ClockReading(
                time: $0.loadUnaligned(as: Int.self), offset: $0.loadUnaligned(fromByteOffset: 8, as: Int.self),
                error: $0.loadUnaligned(fromByteOffset: 16, as: Int.self))
        }
    }

    /// Sends the time, or receives one.
    private static func pass(to target: Rank?, from source: Rank?, _ transport: any Transport) throws -> Int {
        var time = now
        try withUnsafeMutableBytes(of: &time) { bytes in
            try transport.exchange(
                receive: source.map { [Incoming(from: $0, pieces: [bytes])] } ?? [],
                send: target.map { [Outgoing(to: $0, pieces: [UnsafeRawBufferPointer(bytes)])] } ?? [])
        }
        return time
    }
}

/// How times of a rank's timeline are read on rank 0's clock, from the job's start: two readings, and between them a
/// straight line, for clocks run at different speeds.
package struct AlignedClock: Equatable {
    /// What this rank's clock showed at the origin of its timeline.
    let origin: Int
    let first: ClockReading
    let last: ClockReading
    /// What rank 0's clock shows at time 0.
    let zero: Int

    package init(origin: Int, first: ClockReading, last: ClockReading, zero: Int) {
        (self.origin, self.first, self.last, self.zero) = (origin, first, last, zero)
    }

    /// By how much times may be wrong, in nanoseconds.
    var error: Int { max(first.error, last.error) }

    /// Nanoseconds of rank 0's clock since time 0.
    package func time(_ ofTimeline: Int) -> Int {
        let own = origin + ofTimeline
        let elapsed = last.time - first.time
        let drift = elapsed > 0 ? Double(last.offset - first.offset) * Double(own - first.time) / Double(elapsed) : 0
        return own + first.offset + Int(drift.rounded()) - zero
    }
}
