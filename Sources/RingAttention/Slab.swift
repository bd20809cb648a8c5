// Tiles of some heads in memory: a rank's own keys and values, and what arrives in a step.

import Attention
import Matrices
import Plans
import Tiles

/// Tiles of some heads, head after head, a head's in ascending order: packed keys and values, or query rows. Consecutive
/// tiles of a head are adjacent, so a run of tiles is one piece of a message.
final class Slab {
    let tiles: Runs
    let heads: Range<Int>
    /// The memory, which another slab may take over.
    let storage: AlignedBuffer
    /// (tile, head) pairs that have not been released.
    fileprivate var live: Int
    /// Where each tile starts, in floats of one head; one more than tiles.
    private let starts: [Int]
    /// For each run of tiles, its first place in `starts`.
    private let firstPlace: [Int]

    /// - Parameters:
    ///   - tileFloats: the floats of a tile of one head.
    ///   - memory: makes a buffer of at least so many floats.
    init(tiles: Runs, heads: Range<Int>, tileFloats: (_ tile: Int) -> Int, memory: (_ floats: Int) -> AlignedBuffer) {
        self.tiles = tiles
        self.heads = heads
        var starts = [0]
        var places: [Int] = []
        for run in tiles.ranges {
            places.append(starts.count - 1)
            for tile in run { starts.append(starts[starts.count - 1] + tileFloats(tile)) }
        }
        self.starts = starts
        firstPlace = places
        live = (starts.count - 1) * heads.count
        storage = memory(max(1, starts[starts.count - 1] * heads.count))
    }

    /// Packed keys and values of some tiles and key/value heads.
    convenience init(keyValues tiles: Runs, heads: Range<Int>, of job: AttentionJob, memory: (_ floats: Int) -> AlignedBuffer) {
        let packed = PackedTile(job.heads, job.element)
        self.init(
            tiles: tiles, heads: heads, tileFloats: { packed.floats(keys: job.keys.numbering.tokens(of: $0).count) }, memory: memory)
    }

    private func place(of tile: Int) -> Int {
        for (run, range) in tiles.ranges.enumerated() where range.contains(tile) {
            return firstPlace[run] + tile - range.lowerBound
        }
        preconditionFailure("tile \(tile) is not in this slab")
    }

    private func start(place: Int, head: Int) -> Int { (head - heads.lowerBound) * starts[starts.count - 1] + starts[place] }

    func contains(_ tile: Int, head: Int) -> Bool { heads.contains(head) && tiles.contains(tile) }

    func tile(_ tile: Int, head: Int) -> UnsafeMutablePointer<Float> { storage.pointer + start(place: place(of: tile), head: head) }

    /// The memory of a run of tiles of one head.
    func piece(of run: Range<Int>, head: Int) -> UnsafeMutableRawBufferPointer {
        let first = place(of: run.lowerBound)
        let floats = starts[first + run.count] - starts[first]
        return UnsafeMutableRawBufferPointer(
            start: storage.pointer + start(place: first, head: head), count: floats * MemoryLayout<Float>.stride)
    }
}

/// The slabs that a rank can read at the moment.
struct ResidentSlabs {
    private var slabs: [Slab] = []

    mutating func add(_ slab: Slab) { slabs.append(slab) }

    mutating func remove(_ slab: Slab) { slabs.removeAll { $0 === slab } }

    /// Forgets tiles; returns the memory of slabs of which nothing is needed any more.
    mutating func release(_ tiles: Runs, heads: Range<Int>) -> [AlignedBuffer] {
        var freed: [AlignedBuffer] = []
        for slab in slabs {
            let released = slab.tiles.intersection(tiles).count * slab.heads.clamped(to: heads).count
            guard released > 0 else { continue }
            slab.live -= released
            if slab.live == 0 {
                freed.append(slab.storage)
                remove(slab)
            }
        }
        return freed
    }

    func tile(_ tile: Int, head: Int) -> UnsafePointer<Float> {
        for slab in slabs where slab.contains(tile, head: head) { return UnsafePointer(slab.tile(tile, head: head)) }
        preconditionFailure("tile \(tile) of head \(head) is not resident")
    }

    /// Appends tiles of some heads to a message, wherever they lie.
    func append(_ tiles: Runs, heads: Range<Int>, to message: inout MessagePieces) {
        for head in heads {
            for run in tiles.ranges {
                var next = run.lowerBound
                while next < run.upperBound {
                    // A run of the message may cross from one slab into another.
                    guard let slab = slabs.first(where: { $0.contains(next, head: head) }),
                        let here = slab.tiles.intersection(next..<run.upperBound).ranges.first
                    else { preconditionFailure("tile \(next) of head \(head) is not resident") }
                    message.append(slab.piece(of: here, head: head), keeping: slab.storage)
                    next = here.upperBound
                }
            }
        }
    }
}

/// The memory of a message as it is put together: pieces that touch become one.
struct MessagePieces {
    private(set) var pieces: [UnsafeMutableRawBufferPointer] = []
    private(set) var owners: [AnyObject] = []

    mutating func append(_ piece: UnsafeMutableRawBufferPointer, keeping owner: AnyObject) {
        if owners.last !== owner { owners.append(owner) }
        if let last = pieces.last, let end = last.baseAddress.map({ $0 + last.count }), end == piece.baseAddress,
            owners.count == 1 || owners[owners.count - 1] === owner {
            pieces[pieces.count - 1] = UnsafeMutableRawBufferPointer(start: last.baseAddress, count: last.count + piece.count)
        } else {
            pieces.append(piece)
        }
    }

    mutating func append(_ other: MessagePieces) {
        for piece in other.pieces { pieces.append(piece) }
        owners += other.owners
    }

    /// The first floats of a buffer.
    mutating func append(_ buffer: AlignedBuffer, floats: Int) {
        append(UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<(4 * floats)]), keeping: buffer)
    }

    func outgoing(to peer: Rank) -> Outgoing {
        Outgoing(to: peer, pieces: pieces.map { UnsafeRawBufferPointer($0) }, keeping: owners)
    }

    func incoming(from peer: Rank) -> Incoming { Incoming(from: peer, pieces: pieces, keeping: owners) }
}
