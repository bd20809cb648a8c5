// `annulus bench merge`: what the fixed tree costs on top of the tiles that it joins.

import ArgumentParser
import Attention
import Foundation
import Matrices
import Pipelines
import Tiles
import Transformers

struct BenchMerge: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "merge",
        abstract: "Time the merges of the fixed tree beside the attention tiles that they join, on one thread.",
        discussion: """
            One tile of queries meets all tiles of keys, head by head: once with every partial result merged up the fixed tree, \
            once with the same tiles and no merge at all. cost is the first time over the second, minus 1. A running softmax \
            rescales its sums at every tile; here that is counted as free, so its price is the most that the tree can cost \
            against it.
            """)

    @OptionGroup var bench: BenchOptions

    @Option(help: "Keys of the sequence.")
    var length: Int = 8192

    @Option(help: "Heads, one after another.")
    var heads: Int = 12

    @Option(help: "Width of a head.")
    var headDim: Int = 64

    mutating func validate() throws {
        for (name, value) in [("--length", length), ("--heads", heads), ("--head-dim", headDim)] where value < 1 {
            throw ValidationError("\(name) takes a positive number, not \(value)")
        }
    }

    func run() throws {
        let command = self
        guard bench.run.dtype.rawValue == "float32" else { throw ValidationError("bench merge takes --dtype float32") }
        try Session.run(self, bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let work = TreeWork(
            length: length, heads: heads, dimension: headDim, kernels: session.kernels, seed: bench.seed)
        var merged: [Double] = []
        var unmerged: [Double] = []
        for repetition in 0...bench.repetitions {
            try session.transport.barrier()
            let tree = try session.maximum(Self.seconds { work.attend(mergesOnTree: true) })
            let tiles = try session.maximum(Self.seconds { work.attend(mergesOnTree: false) })
            session.monitor.progress()
            // The first is not counted.
            if repetition > 0 {
                merged.append(tree)
                unmerged.append(tiles)
            }
        }
        let seconds = Pipelines.median(merged)
        let row = BenchRow(fields: [
            ("bench", .text("merge")), ("length", .integer(length)), ("heads", .integer(heads)),
            ("head_dim", .integer(headDim)),
            ("dtype", .text("float32")), ("ranks", .integer(session.transport.size)),
            ("kernel", .text(session.kernels.name)),
            ("merges", .integer(heads * (TileGrid.count(length: length) - 1))), ("seconds", .number(seconds)),
            ("seconds_all", .numbers(merged)), ("unmerged_seconds", .number(Pipelines.median(unmerged))),
            ("unmerged_seconds_all", .numbers(unmerged)), ("cost", .number(seconds / Pipelines.median(unmerged) - 1)),
        ])
        try session.agree { try session.printLines(row.text(bench.format)) }
    }

    private static func seconds(_ work: () -> Void) -> Double {
        let start = ContinuousClock.now
        work()
        return (ContinuousClock.now - start).inSeconds
    }
}

/// One tile of queries against all keys of a few heads.
private final class TreeWork {
    private let shape: SequenceShape
    private let heads: Int
    private let headShape: HeadShape
    private let worker: TileWorker
    private let pool: ResultPool
    /// (rows, heads, dimension)
    private let queries: AlignedBuffer
    /// Packed tiles, head by head.
    private let packed: AlignedBuffer
    private let tileFloats: Int

    init(length: Int, heads: Int, dimension: Int, kernels: KernelSet, seed: UInt64) {
        shape = SequenceShape(queries: min(TileGrid.tileSize, length), keys: length)
        self.heads = heads
        headShape = HeadShape(heads: 1, headDimension: dimension)
        worker = TileOperation.attend(heads: headShape, mask: .full, kernels: kernels).makeWorker()
        pool = PartialAttention.pool(headShape, kernels: kernels)
        queries = AlignedBuffer(count: shape.queries * heads * dimension)
        for index in 0..<queries.count { queries[index] = CountedNormal.value(key: seed, index: index) }
        let layout = PackedTile(headShape)
        tileFloats = layout.floats(capacity: TileGrid.tileSize)
        let tiles = TileGrid.count(length: length)
        packed = AlignedBuffer(count: heads * tiles * tileFloats)
        let rows = AlignedBuffer(count: TileGrid.tileSize * dimension)
        for index in 0..<heads * tiles {
            for element in 0..<rows.count {
                rows[element] = CountedNormal.value(key: seed &+ 1, index: index * rows.count + element)
            }
            let count = TileGrid.tokens(of: index % tiles, length: length).count
            withExtendedLifetime(rows) {
                layout.pack(
                    rows: 0..<count, capacity: count, keys: rows.pointer, keyStride: dimension, values: rows.pointer,
                    valueStride: dimension, into: packed.pointer + index * tileFloats, kernels: kernels)
            }
        }
    }

    func attend(mergesOnTree: Bool) {
        let tiles = TileGrid.count(length: shape.keys)
        let dimension = headShape.headDimension
        for head in 0..<heads {
            let rows = TileRows(
                count: shape.queries, head: 0,
                planes: [(UnsafePointer(queries.pointer + head * dimension), heads * dimension)])
            worker.load(rows, of: TileCall(scale: 1 / Float(dimension).squareRoot(), rowOperands: []))
            var forest = MergeForest<PartialResult>(tiles: Runs(0..<tiles))
            let only = PartialResult(rows: shape.queries, from: pool)
            for tile in 0..<tiles {
                let part = mergesOnTree ? PartialResult(rows: shape.queries, from: pool) : only
                let pair = TilePair(
                    queryTile: 0, keyTile: tile, in: shape, isWhole: true,
                    columns: packed.pointer + (head * tiles + tile) * tileFloats,
                    capacity: TileGrid.tokens(of: tile, length: shape.keys).count)
                worker.run(pair, rows: part, columns: nil, adds: false)
                if mergesOnTree { forest.insert(part, tile: tile) }
            }
        }
    }
}
