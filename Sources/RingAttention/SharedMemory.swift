// Memory that the ranks of one node share, and the clocks by which they take turns in it.

import Plans
import Synchronization
import Tiles

/// A segment for each rank of a node, which its rank writes and all of them read.
///
/// Each segment begins with its rank's clock: what the rank has written before it set the clock to a time is seen by
/// those that have seen the time.
public final class SharedMemory: Sendable {
    /// The ranks of the node.
    public let ranks: Range<Int>
    /// Their places, integers so that any thread may be handed them.
    private let segments: [UInt]
    private let owners: [any AnyObject & Sendable]
    private let pulse: @Sendable (Rank) throws -> Void

    /// The bytes before what a segment is for.
    private static let header = 64

    /// The bytes of a segment for so many floats.
    static func byteCount(floats: Int) -> Int { header + floats * MemoryLayout<Float>.stride }

    /// - Parameters:
    ///   - segments: the memory of each rank, aligned to 64 bytes and zero.
    ///   - owners: what keeps it.
    ///   - pulse: called again and again while a rank waits for another, with that one: lets others run, and throws where
    ///     it waits in vain.
    init(
        ranks: Range<Int>, segments: [UnsafeMutableRawPointer], owners: [any AnyObject & Sendable],
        pulse: @escaping @Sendable (Rank) throws -> Void
    ) {
        precondition(ranks.count == segments.count)
        self.ranks = ranks
        self.segments = segments.map { UInt(bitPattern: $0) }
        self.owners = owners
        self.pulse = pulse
    }

    /// The floats of a rank's segment.
    package func floats(of rank: Rank) -> UnsafeMutablePointer<Float> {
        (segment(of: rank) + Self.header).assumingMemoryBound(to: Float.self)
    }

    private func clock(of rank: Rank) -> UnsafeMutablePointer<Atomic<Int>> {
        segment(of: rank).assumingMemoryBound(to: Atomic<Int>.self)
    }

    private func segment(of rank: Rank) -> UnsafeMutableRawPointer {
        // It came from a pointer and is never zero.
        UnsafeMutableRawPointer(bitPattern: segments[rank.index - ranks.lowerBound]).unsafelyUnwrapped
    }

    /// Sets this rank's clock.
    package func setClock(of rank: Rank, to time: Int) { clock(of: rank).pointee.store(time, ordering: .releasing) }

    /// Returns once a rank's clock has reached a time.
    /// - Throws: where the carrier knows that it never will.
    package func wait(for rank: Rank, toReach time: Int, poll: () -> Void = {}) throws {
        while clock(of: rank).pointee.load(ordering: .acquiring) < time {
            poll()
            do {
                try pulse(rank)
            } catch {
                // Its last act may have been to set the clock.
                if clock(of: rank).pointee.load(ordering: .acquiring) >= time { return }
                throw error
            }
        }
    }
}

/// What the ranks of a node share.
public enum SharedUse: Sendable {
    case keyValues, weights
}

/// A node whose ranks do without shared memory, because its host has not as much as it would take.
public struct SharedMemoryShortage: Sendable, Hashable, CustomStringConvertible {
    /// What its ranks do not share.
    public let use: SharedUse
    /// The ranks of the node.
    public let ranks: Range<Int>
    /// The bytes that sharing would take, all its ranks together.
    public let needed: Int
    /// The bytes that its host had left for shared memory.
    public let free: Int

    /// One line for the user: what the ranks do instead, and what to do about it.
    public var description: String {
        let instead =
            switch use {
            case .keyValues: "send each other their keys and values, since sharing them"
            case .weights: "keep a copy of the weights each, since sharing one"
            }
        return
            "ranks \(ranks.lowerBound) to \(ranks.upperBound - 1) \(instead) would take \(needed >> 20) MiB and /dev/shm has "
            + "\(free >> 20); enlarge it (Docker: --shm-size) to save the \(use == .weights ? "memory" : "messages")"
    }
}

/// The nodes whose ranks could not have the memory that they were to share, though there seemed to be room: others took
/// it meanwhile. Every rank of the job knows of it.
public struct SharedMemoryRefused: Error, CustomStringConvertible {
    struct Node {
        let ranks: Range<Int>
        /// In bytes.
        let needed: Int
        let free: Int
    }

    let nodes: [Node]

    /// The ranks of every node that was refused, and the bytes that they were to share.
    public var description: String {
        nodes.map {
            "ranks \($0.ranks.lowerBound) to \($0.ranks.upperBound - 1) cannot share \($0.needed) bytes of memory"
        }.joined(separator: "; ")
    }
}

extension Topology {
    /// What `make` makes with as many nodes sharing memory as have it: those that turn out not to share nothing, and it
    /// is made anew. Collective.
    /// - Parameters:
    ///   - floats: what this rank's segment takes with some nodes.
    ///   - make: makes it with those nodes; calls `Transport.shareMemory` for it.
    package func sharing<Made>(
        _ use: SharedUse, over transport: any Transport, floats: (Topology) throws -> Int,
        make: (Topology) throws -> Made
    ) throws -> (made: Made, shortages: [SharedMemoryShortage]) {
        var topology = self
        var shortages: [SharedMemoryShortage] = []
        while true {
            if topology.isShared {
                let (roomy, short) = try topology.withRoom(try floats(topology), for: use, over: transport)
                topology = roomy
                shortages += short
            }
            do {
                return (try make(topology), shortages)
            } catch let refused as SharedMemoryRefused {
                shortages += refused.nodes.map {
                    SharedMemoryShortage(use: use, ranks: $0.ranks, needed: $0.needed, free: $0.free)
                }
                topology = topology.separating(refused.nodes.map(\.ranks))
            }
        }
    }

    /// The same nodes, but for some, whose ranks share nothing.
    private func separating(_ nodes: [Range<Int>]) -> Topology {
        Topology(ranks: rankCount) { rank, neighbour in
            mates(of: Rank(rank)).contains(neighbour) && !nodes.contains { $0.contains(rank) }
        }
    }

    /// The same nodes, but for those that have not the memory for it: their ranks share nothing. Collective.
    /// - Parameter floats: what this rank's segment takes.
    package func withRoom(_ floats: Int, for use: SharedUse, over transport: any Transport) throws -> (
        topology: Topology, shortages: [SharedMemoryShortage]
    ) {
        let mine = [SharedMemory.byteCount(floats: floats), transport.freeSharedMemory ?? .max]
        let all = try transport.allGather(mine.withUnsafeBytes { Array($0) }).map { bytes in
            bytes.withUnsafeBytes {
                ($0.loadUnaligned(as: Int.self), $0.loadUnaligned(fromByteOffset: 8, as: Int.self))
            }
        }
        var shortages: [SharedMemoryShortage] = []
        var hosts: [[Int]] = []
        for rank in all.indices {
            let node = mates(of: Rank(rank))
            let (needed, free) = (node.reduce(0) { $0 + all[$1].0 }, all[node.lowerBound].1)
            // Other programs may take some meanwhile.
            let hasRoom = node.count == 1 || needed <= free - free / 16
            hosts.append(hasRoom ? [node.lowerBound] : [node.lowerBound, rank])
            if !hasRoom, rank == node.lowerBound {
                shortages.append(SharedMemoryShortage(use: use, ranks: node, needed: needed, free: free))
            }
        }
        return (Topology(ranks: hosts.count) { hosts[$0] == hosts[$1] }, shortages)
    }
}
