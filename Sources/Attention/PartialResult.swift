// The result of a tile operation for one tile and head over some of the tiles it meets: the value that merges.

import Matrices
import Synchronization
import Tiles

/// A result of the rows of one query tile and head over some key tiles, or of the keys of one key tile and head over
/// some query tiles: planes of floats, float32 whatever the storage.
public final class PartialResult: Mergeable {
    /// Rows, or keys, in use; at most a tile.
    public let rows: Int
    private let block: ResultPool.Block
    package let pool: ResultPool

    /// Takes memory from the pool, whose floats are left from earlier use; it goes back when the result is gone.
    /// - Precondition: at most a tile of rows, `TileGrid.tileSize`.
    public init(rows: Int, from pool: ResultPool) {
        precondition(rows <= TileGrid.tileSize)
        self.rows = rows
        self.pool = pool
        block = pool.take()
    }

    deinit { pool.give(block) }

    /// A plane, dense: so many floats a row as the pool's `planes` say.
    package func plane(_ index: Int) -> UnsafeMutablePointer<Float> { block.pointer + pool.starts[index] }

    /// What the tile gets beside its rows: so many floats as the pool's `tileFloats` say.
    package var ofTile: UnsafeMutablePointer<Float> { block.pointer + pool.starts[pool.planes.count] }

    /// Makes this, the left of the two, the result of the tiles of both, as the pool's operation merges.
    public func merge(right: PartialResult) { pool.merge(self, right) }
}

/// Recycles the blocks of results of one shape, so that no unit of work allocates. Blocks may be taken and given back
/// by different threads.
public final class ResultPool: Sendable {
    /// Makes the left result that of the tiles of both.
    package typealias Merge = @Sendable (_ left: PartialResult, _ right: PartialResult) -> Void

    /// An owned block of floats, by its address: an integer so that the free list can be shared.
    struct Block: Sendable {
        let address: UInt
        var pointer: UnsafeMutablePointer<Float> {
            // The address came from an allocation and is never zero.
            UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped
        }
    }

    /// Floats of a row in each plane.
    package let planes: [Int]
    /// Floats of a tile beside those of its rows.
    package let tileFloats: Int
    let starts: [Int]
    let merge: Merge
    private let blockBytes: Int
    private let free = Mutex<[Block]>([])

    package init(planes: [Int], tileFloats: Int = 0, merge: @escaping Merge) {
        self.planes = planes
        self.tileFloats = tileFloats
        self.merge = merge
        starts = planes.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1 * TileGrid.tileSize) }
        blockBytes = Self.blockBytes(planes, tileFloats: tileFloats)
    }

    /// The bytes of one block, which is the memory of one result.
    public static func blockBytes(_ planes: [Int], tileFloats: Int = 0) -> Int {
        (TileGrid.tileSize * planes.reduce(0, +) + tileFloats) * MemoryLayout<Float>.stride
    }

    func take() -> Block {
        if let block = free.withLock({ $0.popLast() }) { return block }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: 64)
        return Block(address: UInt(bitPattern: memory))
    }

    func give(_ block: Block) { free.withLock { $0.append(block) } }

    /// Lets go of the memory of results that nobody holds.
    package func drain() {
        free.withLock { blocks in
            for block in blocks { UnsafeMutableRawPointer(block.pointer).deallocate() }
            blocks = []
        }
    }

    deinit { drain() }
}
