// Packed key/value tiles in memory: one slab for a rank's own, one for what arrives in a step.

import Attention
import Matrices
import Plans
import Tiles

/// Packed tiles of one group of heads, in ascending order: per tile, per key/value head of the group,
/// K panels and V panels. Consecutive tiles are adjacent, so a run of tiles is one piece of a message.
final class KeyValueSlab {
    let tiles: Runs
    private let heads: Int
    private let memory: AlignedBuffer
    /// Where each tile starts, in floats of one head; one more than tiles.
    private let starts: [Int]
    /// For each run of tiles, its first place in `starts`.
    private let firstPlace: [Int]

    /// - Parameters:
    ///   - heads: key/value heads of the group.
    ///   - memory: at least `floats(...)` floats, or nil to allocate them.
    init(tiles: Runs, heads: Int, numbering: TileNumbering, packed: PackedTile, memory: AlignedBuffer? = nil) {
        self.tiles = tiles
        self.heads = heads
        var starts = [0]
        var places: [Int] = []
        for run in tiles.ranges {
            places.append(starts.count - 1)
            for tile in run {
                starts.append(starts[starts.count - 1] + packed.floats(keys: numbering.tokens(of: tile).count))
            }
        }
        self.starts = starts
        firstPlace = places
        self.memory = memory ?? AlignedBuffer(count: max(1, starts[starts.count - 1] * heads))
    }

    /// The floats that a slab of these tiles takes.
    static func floats(tiles: Runs, heads: Int, numbering: TileNumbering, packed: PackedTile) -> Int {
        tiles.ranges.reduce(0) { sum, run in
            run.reduce(sum) { $0 + packed.floats(keys: numbering.tokens(of: $1).count) }
        } * heads
    }

    private func place(of tile: Int) -> Int {
        for (run, range) in tiles.ranges.enumerated() where range.contains(tile) {
            return firstPlace[run] + tile - range.lowerBound
        }
        preconditionFailure("tile \(tile) is not in this slab")
    }

    /// The packed tile of one head, by its place in the group.
    func tile(_ tile: Int, head: Int) -> UnsafeMutablePointer<Float> {
        let place = place(of: tile)
        return memory.pointer + starts[place] * heads + head * (starts[place + 1] - starts[place])
    }

    /// The memory of some of the tiles, a piece for each run.
    func pieces(of wanted: Runs) -> [UnsafeMutableRawBufferPointer] {
        wanted.ranges.map { run in
            let first = starts[place(of: run.lowerBound)] * heads
            let last = starts[place(of: run.upperBound - 1) + 1] * heads
            return UnsafeMutableRawBufferPointer(
                start: memory.pointer + first, count: (last - first) * MemoryLayout<Float>.stride)
        }
    }

    /// The memory, which another slab may take over.
    var storage: AlignedBuffer { memory }
}

/// The tiles that a rank can read at the moment: its own and what has arrived and not been released.
struct ResidentTiles {
    private var slabs: [(slab: KeyValueSlab, live: Runs, own: Bool)]

    init(own: KeyValueSlab) { slabs = [(own, own.tiles, true)] }

    mutating func add(_ slab: KeyValueSlab) {
        if !slab.tiles.isEmpty { slabs.append((slab, slab.tiles, false)) }
    }

    /// Forgets tiles; returns the memory of slabs of which nothing is needed any more.
    mutating func release(_ tiles: Runs) -> [AlignedBuffer] {
        var freed: [AlignedBuffer] = []
        for index in slabs.indices.reversed() where !slabs[index].own {
            slabs[index].live = slabs[index].live.subtracting(tiles)
            if slabs[index].live.isEmpty { freed.append(slabs.remove(at: index).slab.storage) }
        }
        return freed
    }

    func tile(_ tile: Int, head: Int) -> UnsafePointer<Float> {
        for entry in slabs where entry.slab.tiles.contains(tile) {
            return UnsafePointer(entry.slab.tile(tile, head: head))
        }
        preconditionFailure("tile \(tile) is not resident")
    }

    /// The message for a transfer: its tiles, wherever they lie, in ascending order.
    func outgoing(_ transfer: Transfer) -> Outgoing {
        var pieces: [UnsafeRawBufferPointer] = []
        var owners: [AnyObject] = []
        for run in transfer.tiles.ranges {
            var next = run.lowerBound
            while next < run.upperBound {
                // A run of the message may cross from one slab into another.
                guard let entry = slabs.first(where: { $0.slab.tiles.contains(next) }),
                    let here = entry.slab.tiles.intersection(next..<run.upperBound).ranges.first
                else { preconditionFailure("tile \(next) is not resident") }
                pieces += entry.slab.pieces(of: Runs(here)).map { UnsafeRawBufferPointer($0) }
                owners.append(entry.slab.storage)
                next = here.upperBound
            }
        }
        return Outgoing(to: transfer.peer, pieces: pieces, keeping: owners)
    }
}
