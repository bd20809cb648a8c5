// Attention with statistics of its rows: what each row looks at, found while it is attended.

import CKernels
import Matrices
import Tiles

extension OperationShape {
    /// Attention of these heads, with statistics of each row.
    /// - Parameters:
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - topKeys: how many keys of most weight a row gets, at least 1.
    public static func observe(_ heads: HeadShape, topKeys: Int = 1) -> OperationShape {
        OperationShape(
            "observe", rowOperands: [heads.headDimension], columns: .keysAndValues,
            rowResults: RowStatistics.planes(heads, topKeys: topKeys),
            // Those of attention, and 2 each for the two means.
            flopPerPair: OperationShape.attend(heads).flopPerPair + 4)
    }
}

extension TileOperation {
    /// Attention, and of each row and query head statistics of its weights pⱼ = exp(sⱼ − L), L being the log-sum-exp:
    ///
    /// - the entropy −Σ pⱼ·ln pⱼ over keys, in nats, by Σ pⱼ·(sⱼ − m), which is shifted where parts merge;
    /// - the largest score, the keys of largest scores, by descending score and ascending key, and their weights;
    /// - the mean distance Σ pⱼ·|i − j| / Σ pⱼ, in tokens, i being the row's position among the keys;
    /// - the share of the sink, which is in none of the others but for taking its part of the weights.
    ///
    /// A score of −∞ adds nothing and is among no row's keys of largest scores. A row with a NaN among its scores has NaN
    /// for all of them, and −1 for keys. A row that sees nothing has zeros, −∞ for its largest score, and no keys.
    ///
    /// What attention itself gives has the bits that `attend` gives. The statistics take two multiply-adds a pair more
    /// (of 2·d), and 2 + 2·topKeys floats a row and part that travels (of dv + 2); keys of largest scores cost most where
    /// scores ascend. docs/performance.md has figures.
    /// A ``TileCall/observe(queries:scale:output:logSumExp:rowMax:rowSum:statistics:contents:)`` says of what.
    /// - Parameters:
    ///   - heads: the heads of queries, keys and values, and their widths.
    ///   - element: what keys and values are stored in.
    ///   - mask: which keys of its own sequence each query sees.
    ///   - modifiers: what is done to the scores; lists have an entry for each query head.
    ///   - topKeys: how many keys of largest scores a row gets, at least 1.
    ///   - kernels: those that compute products, softmaxes, statistics and merges.
    public static func observe(
        heads: HeadShape, element: ElementKind = .float32, mask: Mask, modifiers: ScoreModifiers = ScoreModifiers(),
        topKeys: Int = 1, kernels: KernelSet
    ) -> TileOperation {
        precondition(topKeys > 0, "a row's largest score is among its statistics")
        return TileOperation(
            .observe(heads, topKeys: topKeys), mergeRows: RowStatistics.merge(heads, topKeys: topKeys, kernels)
        ) {
            ObserveWorker(
                heads: heads, element: element, mask: mask, modifiers: modifiers, topKeys: topKeys, kernels: kernels)
        }
    }
}

/// Where the statistics of a rank's rows go; each a float a row and query head unless it says otherwise, nil: nowhere.
public struct RowStatistics {
    /// −Σ p·ln p over keys, in nats.
    public var entropy: HeadRows?
    /// The largest score; −∞ where a row sees nothing.
    public var largestScore: HeadRows?
    /// The key of the largest score; the lowest of equals; −1 where there is none. An `Int32`, by its bits.
    public var largestKey: HeadRows?
    /// Σ p·|i − j| over keys, divided by Σ p; in tokens.
    public var meanDistance: HeadRows?
    /// The weight of the sink.
    public var sinkShare: HeadRows?
    /// The keys of largest scores, so many `Int32` a row and head as the operation's `topKeys`, by their bits; −1 where
    /// there are no more. Keys count from the first of the whole sequence.
    public var topKeys: HeadRows?
    /// Their weights, as many; 0 where there are no more.
    public var topWeights: HeadRows?

    /// Statistics that go nowhere.
    public init() {}

    /// Floats of a row in each plane: those of attention, Σ w·(s − m) in steps, Σ w·|i − j|, the largest scores in steps,
    /// and their keys by their bits.
    fileprivate static func planes(_ heads: HeadShape, topKeys: Int) -> [Int] {
        PartialAttention.planes(heads) + [1, 1, topKeys, topKeys]
    }

    fileprivate static func merge(_ heads: HeadShape, topKeys: Int, _ kernels: KernelSet) -> ResultPool.Merge {
        let attention = PartialAttention.merge(heads, kernels)
        return { left, right in
            let (a, b) = (PartialStatistics(left), PartialStatistics(right))
            kernels.functions.merge_statistics(
                left.rows, left.plane(0), left.plane(1), right.plane(0), right.plane(1), a.weighted, a.distances,
                b.weighted, b.distances)
            kernels.functions.merge_best(left.rows, topKeys, a.scores, a.keys, b.scores, b.keys)
            attention(left, right)
        }
    }
}

/// The planes behind those of attention.
private struct PartialStatistics {
    let weighted: UnsafeMutablePointer<Float>
    let distances: UnsafeMutablePointer<Float>
    let scores: UnsafeMutablePointer<Float>
    let keys: UnsafeMutablePointer<Int32>

    init(_ result: PartialResult) {
        weighted = result.plane(3)
        distances = result.plane(4)
        scores = result.plane(5)
        // Keys lie in slots of floats, which nobody reads as floats.
        keys = UnsafeMutableRawPointer(result.plane(6)).assumingMemoryBound(to: Int32.self)
    }
}

extension TileCall {
    /// - Parameters:
    ///   - queries: this rank's query rows, unscaled; see
    ///     ``attend(queries:scale:output:logSumExp:rowMax:rowSum:contents:dropout:)``, as for all but the statistics.
    ///   - scale: what scores are multiplied by.
    ///   - output: where O/ℓ goes; may be the memory of `queries`.
    ///   - logSumExp: where m + ln ℓ goes, if anywhere.
    ///   - rowMax: where m goes, in steps, which `receive` reads.
    ///   - rowSum: where ℓ goes, likewise.
    ///   - statistics: where they go.
    ///   - contents: what the relative positions of the modifiers are to this attention, where there are any.
    public static func observe(
        queries: HeadRows, scale: Float, output: HeadRows, logSumExp: HeadRows? = nil, rowMax: HeadRows? = nil,
        rowSum: HeadRows? = nil, statistics: RowStatistics, contents: PositionContents? = nil
    ) -> TileCall {
        TileCall(
            scale: scale, contents: contents, rowOperands: [queries],
            rowResults: [
                output, logSumExp, rowMax, rowSum, statistics.entropy, statistics.largestScore, statistics.largestKey,
                statistics.meanDistance, statistics.sinkShare, statistics.topKeys, statistics.topWeights,
            ])
    }
}

/// One thread's attention with statistics.
private final class ObserveWorker: TileWorker {
    private let attention: AttendWorker
    private let topKeys: Int
    /// The largest scores of the loaded rows in the tiles so far: what none of them exceeds is among nobody's. As every
    /// part of a row merges into one whole, that loses nothing.
    private let best: AlignedBuffer
    /// Their keys, in slots of floats.
    private let bestKeys: AlignedBuffer
    private var scores: TileScores { attention.scores }
    private var kernels: KernelSet { attention.kernels }
    /// Of a whole: what keys have of ℓ, what the sink has of it, and statistics before they have a place.
    private let temporary = AlignedBuffer(count: 8 * TileGrid.tileSize)

    init(
        heads: HeadShape, element: ElementKind, mask: Mask, modifiers: ScoreModifiers, topKeys: Int, kernels: KernelSet
    ) {
        self.topKeys = topKeys
        best = AlignedBuffer(count: topKeys * TileGrid.tileSize)
        bestKeys = AlignedBuffer(count: topKeys * TileGrid.tileSize)
        attention = AttendWorker(
            heads: heads, element: element, mask: mask, modifiers: modifiers, kernels: kernels)
    }

    func load(_ rows: TileRows, of call: TileCall) {
        attention.load(rows, of: call)
        best.pointer.update(repeating: -.infinity, count: rows.count * topKeys)
        bestKeys.pointer.update(repeating: Self.slot(-1), count: rows.count * topKeys)
    }

    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool) {
        guard let rows else { return }
        let (partial, own) = (PartialAttention(rows), PartialStatistics(rows))
        let keys = pair.keys.count
        let bestKeys = UnsafeMutableRawPointer(bestKeys.pointer).assumingMemoryBound(to: Int32.self)
        /// The statistics of the rows from one on.
        func statistics(from row: Int) -> annulus_statistics {
            annulus_statistics(
                weighted: own.weighted + row, distances: own.distances + row, distance: pair.distance - row,
                count: topKeys, best: best.pointer + row * topKeys, best_keys: bestKeys + row * topKeys,
                scores: own.scores + row * topKeys,
                keys: own.keys + row * topKeys,
                first_key: Int32(truncatingIfNeeded: pair.sequence.position(ofKey: pair.keys.lowerBound)))
        }
        if pair.isWhole, scores.modifiers.leavesScores, keys == pair.capacity {
            scores.arithmetic.observe(
                scores.queries.pointer, tile: pair.columns, next: pair.next ?? pair.columns, keys: keys,
                scale: scores.scale, into: partial, scratch: scores.buffer.pointer, statistics: statistics(from: 0))
            return
        }
        scores.forEachStrip(of: pair) { strip in
            scores.arithmetic.observe(
                scores.buffer.pointer, stride: TileScores.stride, rows: strip.rows, keys: keys, bits: strip.bits,
                words: TileMask.wordsPerRow, scale: scores.scale, rowMax: partial.rowMax + strip.row,
                rowSum: partial.rowSum + strip.row, statistics: statistics(from: strip.row))
            attention.weigh(strip, pair, keys: keys, into: partial)
        }
    }

    func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        let (partial, own, rows) = (PartialAttention(whole), PartialStatistics(whole), whole.rows)
        let (keySum, sinkSum) = (temporary.pointer, temporary.pointer + TileGrid.tileSize)
        keySum.update(from: partial.rowSum, count: rows)
        sinkSum.update(repeating: 0, count: rows)
        if let sink = scores.modifiers.sinks?[head] { shift(partial, own, keySum, sinkSum, sink: sink) }
        // Merges the sink into m and ℓ.
        attention.finishRows(whole, first: first, head: head, of: call)
        let (entropy, distance) = (sinkSum + TileGrid.tileSize, sinkSum + 2 * TileGrid.tileSize)
        kernels.functions.finish_statistics(
            rows, partial.rowSum, keySum, own.weighted, own.distances, entropy, distance)
        for (values, target) in [(entropy, call.rowResults[4]), (distance, call.rowResults[7])] {
            guard let target else { continue }
            for row in 0..<rows { target.row(first + row, head).pointee = values[row] }
        }
        if let target = call.rowResults[8] {
            for row in 0..<rows {
                let sum = partial.rowSum[row]
                target.row(first + row, head).pointee = sum == 0 ? 0 : sinkSum[row] / sum
            }
        }
        finishBest(partial, own, first: first, head: head, of: call)
    }

    /// The largest scores, their keys and their weights.
    private func finishBest(
        _ partial: PartialAttention, _ own: PartialStatistics, first: Int, head: Int, of call: TileCall
    ) {
        for row in 0..<partial.rows {
            let (scores, keys) = (own.scores + row * topKeys, own.keys + row * topKeys)
            let isNaN = partial.rowSum[row].isNaN
            call.rowResults[5]?.row(first + row, head).pointee =
                isNaN ? .nan : Float(Double(scores[0]) / ANNULUS_STEPS)
            call.rowResults[6]?.row(first + row, head).pointee = Self.slot(isNaN ? -1 : keys[0])
            if let target = call.rowResults[9]?.row(first + row, head) {
                for place in 0..<topKeys { target[place] = Self.slot(isNaN ? -1 : keys[place]) }
            }
            guard let target = call.rowResults[10]?.row(first + row, head) else { continue }
            target.update(repeating: isNaN ? .nan : 0, count: topKeys)
            let found = (0..<topKeys).prefix { scores[$0] > -.infinity }.count
            if isNaN || found == 0 { continue }
            let factor = 1 / partial.rowSum[row]
            withUnsafePointer(to: factor) { factor in
                kernels.functions.receive_rows(
                    scores, topKeys, 1, found, nil, 0, 1, partial.rowMax + row, factor, target)
            }
        }
    }

    /// Shifts what keys have to the maximum of them and the sink, and finds what the sink has.
    private func shift(
        _ partial: PartialAttention, _ own: PartialStatistics, _ keySum: UnsafeMutablePointer<Float>,
        _ sinkSum: UnsafeMutablePointer<Float>, sink: Float
    ) {
        let rows = partial.rows
        let (level, nothing, one) = (
            temporary.pointer + 4 * TileGrid.tileSize, temporary.pointer + 5 * TileGrid.tileSize,
            temporary.pointer + 6 * TileGrid.tileSize
        )
        let spare = temporary.pointer + 7 * TileGrid.tileSize
        level.update(repeating: Float(Double(sink) * ANNULUS_STEPS), count: rows)
        nothing.update(repeating: 0, count: rows)
        one.update(repeating: 1, count: rows)
        spare.update(repeating: 0, count: rows)
        func merge(
            _ weighted: UnsafeMutablePointer<Float>, _ linear: UnsafeMutablePointer<Float>,
            _ other: UnsafePointer<Float>
        ) {
            kernels.functions.merge_statistics(
                rows, partial.rowMax, partial.rowSum, level, nothing, weighted, linear, nothing, other)
        }
        merge(own.weighted, own.distances, nothing)
        merge(spare, keySum, nothing)
        merge(spare, sinkSum, one)
    }

    /// A key in a slot of a float.
    private static func slot(_ key: Int32) -> Float { Float(bitPattern: UInt32(bitPattern: key)) }

    func finishUnseeing(rows: Range<Int>, head: Int, of call: TileCall) {
        attention.finishUnseeing(rows: rows, head: head, of: call)
        let sinkShare: Float = scores.modifiers.sinks == nil ? 0 : 1
        for row in rows {
            for (place, value) in [(4, 0), (5, -.infinity), (6, Self.slot(-1)), (7, 0), (8, sinkShare)] {
                call.rowResults[place]?.row(row, head).pointee = value
            }
            call.rowResults[9]?.row(row, head).update(repeating: Self.slot(-1), count: topKeys)
            call.rowResults[10]?.row(row, head).update(repeating: 0, count: topKeys)
        }
    }
}
