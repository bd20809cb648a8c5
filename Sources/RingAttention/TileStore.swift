// Tiles of some heads in memory: a rank's own keys and values, and what arrives in a step.

import Attention
import Matrices
import Plans
import Tiles

/// Tiles of some heads, head after head, a head's in ascending order: packed keys and values, or what query rows bring.
/// Consecutive tiles of a head are adjacent.
final class TileStore {
    let tiles: Runs
    let heads: Range<Int>
    /// The memory, which another store may take over.
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
    /// - Parameter columns: what of them.
    convenience init(
        packed tiles: Runs, _ columns: OperationShape.Columns = .keysAndValues, heads: Range<Int>,
        of problem: AttentionProblem,
        memory: (_ floats: Int) -> AlignedBuffer
    ) {
        let packed = PackedTile(problem.heads, problem.element)
        self.init(
            tiles: tiles, heads: heads,
            tileFloats: { packed.floats(of: columns, capacity: problem.keys.numbering.capacity(of: $0)) },
            memory: memory)
    }

    private func place(of tile: Int) -> Int {
        for (run, range) in tiles.ranges.enumerated() where range.contains(tile) {
            return firstPlace[run] + tile - range.lowerBound
        }
        preconditionFailure("tile \(tile) is not in this store")
    }

    private func start(place: Int, head: Int) -> Int {
        (head - heads.lowerBound) * starts[starts.count - 1] + starts[place]
    }

    func contains(_ tile: Int, head: Int) -> Bool { heads.contains(head) && tiles.contains(tile) }

    func tile(_ tile: Int, head: Int) -> UnsafeMutablePointer<Float> {
        storage.pointer + start(place: place(of: tile), head: head)
    }

    /// Appends a run of tiles of one head to a message: of each tile its first floats, or all.
    /// - Parameter floats: how many of a tile; nil: all.
    func append(_ run: Range<Int>, head: Int, floats: ((_ tile: Int) -> Int)? = nil, to message: inout MessagePieces) {
        let first = place(of: run.lowerBound)
        func append(place: Int, floats: Int) {
            let start = storage.pointer + start(place: place, head: head)
            message.append(
                UnsafeMutableRawBufferPointer(start: start, count: floats * MemoryLayout<Float>.stride),
                keeping: storage)
        }
        if let floats {
            for (offset, tile) in run.enumerated() { append(place: first + offset, floats: floats(tile)) }
        } else {
            append(place: first, floats: starts[first + run.count] - starts[first])
        }
    }
}

/// What a rank can read at the moment.
struct ResidentTiles {
    private var stores: [TileStore] = []

    mutating func add(_ store: TileStore) { stores.append(store) }

    mutating func remove(_ store: TileStore) { stores.removeAll { $0 === store } }

    /// Forgets tiles; returns the memory of stores of which nothing is needed any more.
    mutating func release(_ tiles: Runs, heads: Range<Int>) -> [AlignedBuffer] {
        var freed: [AlignedBuffer] = []
        for store in stores {
            let released = store.tiles.intersection(tiles).count * store.heads.clamped(to: heads).count
            guard released > 0 else { continue }
            store.live -= released
            if store.live == 0 {
                freed.append(store.storage)
                remove(store)
            }
        }
        return freed
    }

    func tile(_ tile: Int, head: Int) -> UnsafePointer<Float> {
        for store in stores where store.contains(tile, head: head) {
            return UnsafePointer(store.tile(tile, head: head))
        }
        preconditionFailure("tile \(tile) of head \(head) is not resident")
    }

    /// Appends tiles of some heads to a message, wherever they lie.
    /// - Parameter floats: the first floats of a tile that are sent; nil: all.
    func append(
        _ tiles: Runs, heads: Range<Int>, floats: ((_ tile: Int) -> Int)? = nil, to message: inout MessagePieces
    ) {
        for head in heads {
            for run in tiles.ranges {
                var next = run.lowerBound
                while next < run.upperBound {
                    // A run of the message may cross from one store into another.
                    guard let store = stores.first(where: { $0.contains(next, head: head) }),
                        let here = store.tiles.intersection(next..<run.upperBound).ranges.first
                    else { preconditionFailure("tile \(next) of head \(head) is not resident") }
                    store.append(here, head: head, floats: floats, to: &message)
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
            owners.count == 1 || owners[owners.count - 1] === owner
        {
            pieces[pieces.count - 1] = UnsafeMutableRawBufferPointer(
                start: last.baseAddress, count: last.count + piece.count)
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
