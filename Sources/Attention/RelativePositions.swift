// Scores of contents against relative positions: disentangled attention (He et al. 2021, DeBERTa).

import Matrices
import Tiles

/// Which of a few relative positions a query and a key stand in, by their distance alone. Beyond `reach` on either side
/// every distance is the same position, so a far tile has one for all its pairs.
public struct RelativePositions: Sendable, Hashable {
    /// How many relative positions there are.
    public let count: Int
    /// The distance from which on the position no longer changes.
    public let reach: Int
    /// By distance i − j from −reach to reach; never decreasing.
    private let positions: [Int32]

    /// - Precondition: `position` never decreases, and gives 0 ..< count.
    public init(count: Int, reach: Int, position: (_ distance: Int) -> Int) {
        precondition(count > 0 && reach >= 0)
        self.count = count
        self.reach = reach
        positions = (-reach...reach).map { Int32(position($0)) }
        precondition(
            zip(positions, positions.dropFirst()).allSatisfy { $0 <= $1 },
            "relative positions never decrease with the distance")
        precondition(positions.allSatisfy { (0..<count).contains(Int($0)) })
    }

    /// The position of a query that stands `distance` after a key.
    func position(_ distance: Int) -> Int { Int(positions[reach + max(-reach, min(reach, distance))]) }
}

/// What the relative positions are to one layer: a key for each, which queries meet, and a query for each, which keys
/// meet. A pair's score is then (qᵢ·kⱼ + qᵢ·K[p] + kⱼ·Q[p])·scale, p being the position of the distance i − j.
///
/// Both products are those of the tile kernel itself, an element being one chain over the channels, so a score depends
/// on its query, its key and their distance alone.
public struct PositionContents: Sendable {
    let count: Int
    /// For each head, the keys in panels of positions; nil where queries do not meet positions.
    let keyPanels: WeightBlock?
    /// For each head, the queries as operands, scaled; nil where keys do not meet positions.
    let queryOperands: WeightBlock?
    let keyFloats: Int
    let queryFloats: Int

    /// - Parameters:
    ///   - keys: makes the keys of positions, (positions, query heads · headDimension), row-major; nil where queries do
    ///     not meet positions.
    ///   - queries: makes the queries of positions, of the same shape; nil where keys do not meet positions.
    ///   - positions: the relative positions, of which the number counts here.
    ///   - heads: those of the attention which uses them.
    ///   - scale: that of the attention which uses them.
    ///   - element: what that attention stores keys in.
    ///   - kernels: those that pack.
    ///   - block: gives memory for so many floats, zero but for what it calls its argument for.
    public init<Failure: Error>(
        keys: (() throws(Failure) -> [Float])?, queries: (() throws(Failure) -> [Float])?, positions: RelativePositions,
        heads: HeadShape,
        scale: Float, element: ElementKind, kernels: KernelSet,
        block: (_ floats: Int, _ fill: (UnsafeMutablePointer<Float>) throws(Failure) -> Void) throws(Failure) ->
            WeightBlock
    ) throws(Failure) {
        let (layout, count, width) = (PackedTile(heads, element), positions.count, heads.headDimension)
        let stride = heads.queryHeads * width
        let arithmetic = TileArithmetic(layout: layout, modified: true, kernels: kernels)
        self.count = count
        keyFloats = layout.keyFloats(capacity: count)
        queryFloats = count * layout.queryStride
        func perHead(
            _ make: (() throws(Failure) -> [Float])?, floats: Int,
            _ body: @escaping (UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void
        ) throws(Failure) -> WeightBlock? {
            guard let make else { return nil }
            return try block(heads.queryHeads * floats) { (target: UnsafeMutablePointer<Float>) throws(Failure) in
                let source = try make()
                precondition(source.count == count * stride)
                source.withUnsafeBufferPointer { source in
                    guard let source = source.baseAddress else { return }
                    for head in 0..<heads.queryHeads { body(source + head * width, target + head * floats) }
                }
            }
        }
        keyPanels = try perHead(keys, floats: keyFloats) {
            layout.packKeys(rows: count, $0, stride: stride, into: $1, kernels: kernels)
        }
        queryOperands = try perHead(queries, floats: queryFloats) {
            _ = arithmetic.load(queries: $0, stride: stride, rows: count, scale: scale, into: $1)
        }
    }
}

/// The scores of one thread's unit against relative positions.
final class PositionScores {
    private let positions: RelativePositions
    private let layout: PackedTile
    private let arithmetic: TileArithmetic
    /// (rows of a strip, positions rounded up to whole panels): what queries make of positions.
    private let ofQueries: AlignedBuffer
    /// (positions, keys of a tile): what the tile's keys make of them.
    private let ofKeys: AlignedBuffer
    private let stride: Int
    /// The positions of the tile's pairs: the unit's row r and key j stand in `places[rows − 1 − r + j]`.
    private var places: [Int32] = []
    private var rows = 0
    /// The positions that the tile's pairs stand in; one alone for a far tile.
    private var used = 0..<0

    init(_ positions: RelativePositions, rows: Int, layout: PackedTile, arithmetic: TileArithmetic) {
        self.positions = positions
        self.layout = layout
        self.arithmetic = arithmetic
        stride = layout.padded(positions.count)
        ofQueries = AlignedBuffer(count: rows * stride)
        ofKeys = AlignedBuffer(count: positions.count * TileGrid.tileSize)
    }

    /// Takes a key tile and the distances at which some query rows stand to it.
    /// - Parameter distance: position of the tile's first key minus that of the first row.
    func load(
        _ contents: PositionContents, head: Int, tile: UnsafePointer<Float>, keys: Int, capacity: Int, rows: Int,
        distance: Int
    ) {
        self.rows = rows
        let (smallest, largest) = (-distance - (keys - 1), rows - 1 - distance)
        used = positions.position(smallest)..<positions.position(largest) + 1
        places = Swift.stride(from: largest, through: smallest, by: -1).map { Int32(positions.position($0)) }
        guard let operands = contents.queryOperands else { return }
        let first = operands.pointer + head * contents.queryFloats + used.lowerBound * layout.queryStride
        for key in Swift.stride(from: 0, to: keys, by: PackedTile.productColumns) {
            arithmetic.scores(
                first, rows: used.count, panels: tile + key * layout.queryStride,
                columns: layout.width(at: key, of: keys),
                into: ofKeys.pointer + used.lowerBound * TileGrid.tileSize + key, stride: TileGrid.tileSize)
        }
    }

    /// What some query rows, as operands, make of the positions that the tile's pairs stand in.
    func load(_ contents: PositionContents, head: Int, queries: UnsafePointer<Float>, rows: Int) {
        guard let panels = contents.keyPanels else { return }
        let first = panels.pointer + head * contents.keyFloats
        let width = PackedTile.productColumns
        for column in Swift.stride(from: used.lowerBound / width * width, to: used.upperBound, by: width) {
            arithmetic.scores(
                queries, rows: rows, panels: first + column * layout.queryStride,
                columns: layout.width(at: column, of: contents.count), into: ofQueries.pointer + column, stride: stride)
        }
    }

    /// Adds what was loaded to the scores of a strip and some keys.
    /// - Parameters:
    ///   - scores: those of the strip's first row and the tile's first key.
    ///   - row: the strip's first row in the unit.
    func add(
        _ contents: PositionContents, to scores: UnsafeMutablePointer<Float>, stride scoreStride: Int, row: Int,
        rows strip: Int, keys: Range<Int>
    ) {
        places.withUnsafeBufferPointer { places in
            guard let places = places.baseAddress else { return }
            for r in 0..<strip {
                let target = scores + r * scoreStride
                let place = places + rows - 1 - (row + r)
                if contents.keyPanels != nil {
                    let own = ofQueries.pointer + r * stride
                    if used.count == 1 {
                        let same = own[used.lowerBound]
                        for key in keys { target[key] += same }
                    } else {
                        for key in keys { target[key] += own[Int(place[key])] }
                    }
                }
                if contents.queryOperands != nil {
                    if used.count == 1 {
                        let own = ofKeys.pointer + used.lowerBound * TileGrid.tileSize
                        for key in keys { target[key] += own[key] }
                    } else {
                        for key in keys { target[key] += ofKeys.pointer[Int(place[key]) * TileGrid.tileSize + key] }
                    }
                }
            }
        }
    }
}
