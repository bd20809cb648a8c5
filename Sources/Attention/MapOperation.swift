// Attention seen from afar, as a tile operation: rows bring queries, m and ℓ, columns keys, and blocks of rows get the
// weights that they give to blocks of keys.

import Matrices
import Synchronization
import Tiles

extension OperationShape {
    /// The block sums of the weights of these heads.
    public static func map(_ heads: HeadShape) -> OperationShape {
        OperationShape(
            "map", rowOperands: [heads.headDimension, 1, 1], columns: .keys, rowResults: [BlockGrid.largestSide],
            // 2·d for a score and 2 for its weight.
            flopPerPair: 2 * heads.headDimension + 2)
    }
}

/// The blocks of a sequence that a map of it has: of equally many tokens, the last of perhaps fewer.
public enum BlockGrid {
    /// The most blocks that a side of a map has.
    public static let largestSide = 256

    /// Tokens of a block: the fewest with which a sequence has at most ``largestSide`` blocks.
    public static func size(tokens: Int) -> Int { max(1, (tokens + largestSide - 1) / largestSide) }
    /// The blocks of a sequence.
    public static func side(tokens: Int) -> Int { (tokens + size(tokens: tokens) - 1) / size(tokens: tokens) }
}

/// Where the block sums of one rank's tiles go: those of each query tile and head as they become whole. Any thread may
/// put one there.
public final class BlockSums: Sendable {
    /// The sums of the rows of one tile, by block of rows and block of keys.
    public struct Part: Sendable {
        /// The first of the rank's rows that the tile holds.
        public let firstRow: Int
        /// The query head.
        public let head: Int
        /// The first of the blocks of rows that the tile has a part of.
        public let firstBlock: Int
        /// (blocks of rows that the tile has a part of, `BlockGrid.side`)
        public let sums: [Float]
    }

    /// By the first of the rank's rows that a tile holds: its tokens, and those of its sequence.
    private let tiles: [Int: (tokens: Range<Int>, length: Int)]
    private let parts = Mutex<[Part]>([])

    /// - Parameter tiles: each tile of the rank: the first row that holds it, its tokens, and the length of its sequence.
    public init(tiles: [(firstRow: Int, tokens: Range<Int>, length: Int)]) {
        self.tiles = Dictionary(uniqueKeysWithValues: tiles.map { ($0.firstRow, ($0.tokens, $0.length)) })
    }

    /// What has come since it was last taken, by tile, then by head. A tile of which nothing comes gives nothing: its
    /// sums are zero.
    public func take() -> [Part] {
        parts.withLock { parts in
            defer { parts = [] }
            return parts.sorted { ($0.firstRow, $0.head) < ($1.firstRow, $1.head) }
        }
    }

    fileprivate func put(_ whole: PartialResult, firstRow: Int, head: Int) {
        guard let (tokens, length) = tiles[firstRow] else { return }
        let (size, side) = (BlockGrid.size(tokens: length), BlockGrid.side(tokens: length))
        let first = tokens.lowerBound / size
        var sums = [Float](repeating: 0, count: ((tokens.upperBound - 1) / size - first + 1) * side)
        for row in 0..<whole.rows {
            let source = whole.plane(0) + row * BlockGrid.largestSide
            let target = ((tokens.lowerBound + row) / size - first) * side
            for block in 0..<side { sums[target + block] += source[block] }
        }
        let part = Part(firstRow: firstRow, head: head, firstBlock: first, sums: sums)
        parts.withLock { $0.append(part) }
    }
}

extension TileOperation {
    /// For each query head, the softmax weights summed over blocks of rows and blocks of keys (`BlockGrid`) of each
    /// sequence, which attends to itself: attention as a picture, without the matrix.
    ///
    /// A second pass over the keys: attention first gives m and ℓ. A ``TileCall/map(queries:scale:rowMax:rowSum:contents:)``
    /// says of what; mask and modifiers are those of the attention.
    /// - Parameters:
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - element: what keys and values are stored in.
    ///   - mask: which keys of its own sequence each query sees.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - sums: takes the results of this rank's rows.
    ///   - kernels: those that compute products and weights.
    public static func map(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        sums: BlockSums, kernels: KernelSet
    ) -> TileOperation {
        TileOperation(
            .map(heads),
            mergeRows: { left, right in
                let (mine, more) = (left.plane(0), right.plane(0))
                for place in 0..<left.rows * BlockGrid.largestSide { mine[place] += more[place] }
            }
        ) {
            MapWorker(
                heads: heads, element: element, mask: mask, modifiers: modifiers, sums: sums, kernels: kernels)
        }
    }
}

extension TileCall {
    /// - Parameters:
    ///   - queries: this rank's query rows, as they were attended.
    ///   - scale: the scale they were attended with.
    ///   - rowMax: the m that attention gave for them, a float a row and head.
    ///   - rowSum: the ℓ that attention gave for them, a float a row and head.
    ///   - contents: the relative positions that they were attended with, where there are any.
    public static func map(
        queries: HeadRows, scale: Float, rowMax: HeadRows, rowSum: HeadRows, contents: PositionContents? = nil
    ) -> TileCall {
        TileCall(scale: scale, contents: contents, rowOperands: [queries, rowMax, rowSum])
    }
}

/// One thread's block sums.
private final class MapWorker: TileWorker {
    private let scores: TileScores
    private let kernels: KernelSet
    private let sums: BlockSums
    /// Of the loaded rows: m, and 1/ℓ.
    private let rowMax = AlignedBuffer(count: TileGrid.tileSize)
    private let factors = AlignedBuffer(count: TileGrid.tileSize)
    private let weights = AlignedBuffer(count: TileGrid.tileSize)

    init(
        heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, sums: BlockSums,
        kernels: KernelSet
    ) {
        scores = TileScores(heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
        self.sums = sums
        self.kernels = kernels
    }

    func load(_ rows: TileRows, of call: TileCall) {
        scores.load(rows.planes[0], rows: rows.count, head: rows.head, of: call)
        let (maxima, sums) = (rows.planes[1], rows.planes[2])
        for row in 0..<rows.count {
            let sum = sums.rows[row * sums.stride]
            rowMax[row] = maxima.rows[row * maxima.stride]
            factors[row] = sum == 0 ? 0 : 1 / sum
        }
    }

    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool) {
        guard let result = rows?.plane(0) else { return }
        let (keys, side) = (pair.keys, BlockGrid.largestSide)
        let size = BlockGrid.size(tokens: pair.sequence.keys)
        result.update(repeating: 0, count: pair.rows.count * side)
        scores.forEachStrip(of: pair) { strip in
            for row in 0..<strip.rows {
                weights.pointer.update(repeating: 0, count: keys.count)
                scores.arithmetic.receive(
                    scores.buffer.pointer + row * TileScores.stride, stride: TileScores.stride, rows: 1,
                    keys: keys.count, bits: strip.bits.map { $0 + row * TileMask.wordsPerRow },
                    words: TileMask.wordsPerRow, scale: scores.scale, rowMax: rowMax.pointer + strip.row + row,
                    factors: factors.pointer + strip.row + row, mass: weights.pointer)
                kernels.functions.add_block_sums(
                    weights.pointer, keys.count, keys.lowerBound, size, result + (strip.row + row) * side)
            }
        }
    }

    func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        sums.put(whole, firstRow: first, head: head)
    }
}
