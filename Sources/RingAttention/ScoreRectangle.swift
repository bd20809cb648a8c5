// Rectangles of scores and weights: queries that every rank knows against the keys that each rank holds.

import Attention
import Matrices
import Plans
import Tiles

/// Some queries of one sequence and head, known to every rank, and what attention gave for them.
public struct RectangleQueries {
    /// Which rows of the sequence.
    public let rows: Range<Int>
    /// (rows, headDimension), unscaled, as they were attended.
    public let queries: [Float]
    /// m of each row, in steps.
    public let rowMax: [Float]
    /// ℓ of each row.
    public let rowSum: [Float]

    /// - Precondition: as many of each as there are rows.
    public init(rows: Range<Int>, queries: [Float], rowMax: [Float], rowSum: [Float]) {
        precondition(rowMax.count == rows.count && rowSum.count == rows.count)
        self.rows = rows
        self.queries = queries
        self.rowMax = rowMax
        self.rowSum = rowSum
    }
}

/// What one query tile and one rank's tile of keys have of a rectangle.
public struct RectanglePart: Sendable {
    /// The queries, counted in their sequence.
    public let rows: Range<Int>
    /// The keys, counted likewise.
    public let keys: Range<Int>
    /// (rows, keys): scale, softcap and biases applied, −∞ where a row does not see a key.
    public let scores: [Float]
    /// (rows, keys): softmax weights, 0 where a row does not see a key.
    public let weights: [Float]
}

extension KeyValueTiles {
    /// The scores and weights of some queries of one sequence and head against those of this rank's keys that lie in a
    /// range: each the bits that attention computes with. Not collective; any number of threads may ask.
    /// - Parameters:
    ///   - asked: the queries.
    ///   - wantedRows: those of them that are looked at.
    ///   - sequence: their sequence's place in the batch.
    ///   - keys: the keys that are wanted, counted in the sequence.
    ///   - head: the query head.
    ///   - problem: the attention.
    ///   - modifiers: what it does to scores.
    ///   - scale: what it multiplies them by.
    ///   - contents: its relative positions, where there are any.
    ///   - kernels: those that it computes with.
    /// - Returns: for each query tile of the rows a part for each of this rank's key tiles that has any of the keys, in
    ///   ascending order.
    public func rectangle(
        _ asked: RectangleQueries, rows wantedRows: Range<Int>, sequence: Int, keys: Range<Int>, head: Int,
        of problem: AttentionProblem, modifiers: ScoreModifiers, scale: Float, contents: PositionContents?,
        kernels: KernelSet
    ) -> [RectanglePart] {
        let (shape, width) = (problem.shapes[sequence], heads.headDimension)
        let pairs = PairScores(
            heads: heads, element: element, mask: problem.mask, modifiers: modifiers, kernels: kernels)
        let call = TileCall(scale: scale, contents: contents, rowOperands: [])
        let first = self.keys.numbering.firstTile[sequence]
        let rowsOfTile = AlignedBuffer(count: TileGrid.tileSize * width)
        var parts: [RectanglePart] = []
        for queryTile in TileGrid.tiles(covering: wantedRows) {
            let all = TileGrid.tokens(of: queryTile, length: shape.queries)
            let rows = wantedRows.clamped(to: all)
            // Rows that nobody asks about count as zero.
            rowsOfTile.pointer.update(repeating: 0, count: all.count * width)
            let skipped = rows.lowerBound - asked.rows.lowerBound
            for place in 0..<rows.count * width {
                rowsOfTile[(rows.lowerBound - all.lowerBound) * width + place] = asked.queries[skipped * width + place]
            }
            pairs.load(
                TileRows(count: all.count, head: head, planes: [(UnsafePointer(rowsOfTile.pointer), width)]), of: call)
            for tile in TileGrid.tiles(covering: keys) where own.tiles.contains(first + tile) {
                let tokens = TileGrid.tokens(of: tile, length: shape.keys)
                let wanted = keys.clamped(to: tokens)
                if wanted.isEmpty { continue }
                var scores = [Float](repeating: 0, count: rows.count * wanted.count)
                var weights = scores
                let pair = TilePair(
                    queryTile: queryTile, keyTile: tile, in: shape, isWhole: false,
                    columns: UnsafePointer(own.tile(first + tile, head: head / heads.groupSize)),
                    capacity: self.keys.numbering.capacity(of: first + tile))
                scores.withUnsafeMutableBufferPointer { scores in
                    weights.withUnsafeMutableBufferPointer { weights in
                        asked.rowMax.withUnsafeBufferPointer { rowMax in
                            asked.rowSum.withUnsafeBufferPointer { rowSum in
                                guard let scores = scores.baseAddress, let weights = weights.baseAddress,
                                    let rowMax = rowMax.baseAddress, let rowSum = rowSum.baseAddress
                                else { return }
                                pairs.write(
                                    pair, rows: rows.lowerBound - all.lowerBound..<rows.upperBound - all.lowerBound,
                                    keys: wanted.lowerBound - tokens.lowerBound..<wanted.upperBound
                                        - tokens.lowerBound,
                                    rowMax: rowMax + skipped, rowSum: rowSum + skipped,
                                    scores: .init(scores, stride: wanted.count),
                                    weights: .init(weights, stride: wanted.count))
                            }
                        }
                    }
                }
                parts.append(RectanglePart(rows: rows, keys: wanted, scores: scores, weights: weights))
            }
        }
        return parts
    }
}
