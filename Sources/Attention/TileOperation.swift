// A pass over a plan: what it takes and gives, and how one thread runs it tile by tile.

import Matrices
import Tiles

/// What a tile operation moves, by side, size and type: all that plans, messages and the executor know of it.
///
/// For a unit (query tile, key tile, head) an operation is a pure function of *row operands* and *column operands* to
/// *row results*, *column results* or both. Operands and results come in planes: of each plane a row (or a key) has so
/// many floats. Row operands and row results are those of a query head; column operands those of a key/value head.
public struct OperationShape: Sendable, Hashable {
    /// What of a packed key tile the operation reads.
    public enum Columns: Sendable, Hashable {
        case keysAndValues
        /// K alone, which is a packed tile's first part.
        case keys
    }

    /// Whose heads a result belongs to.
    public enum ResultHeads: Sendable, Hashable {
        case query
        /// First summed over the query heads that share a key/value head, ascending, then over query tiles.
        case keyValue
    }

    /// What it is called.
    public let name: String
    /// Floats that a row brings to a unit, plane by plane.
    public let rowOperands: [Int]
    /// What a unit reads of its key tile, and so what of it travels.
    public let columns: Columns
    /// Floats that a row gets; they merge over the key tiles it sees. Empty: rows get nothing.
    public let rowResults: [Int]
    /// Floats that a query tile gets beside those of its rows, with which they travel and merge.
    public let tileResults: Int
    /// Floats that a key gets; they merge over the query tiles that see it. Empty: keys get nothing.
    public let columnResults: [Int]
    /// Whose heads column results belong to, where there are any.
    public let columnResultHeads: ResultHeads
    /// Floating-point operations of a visible pair and query head.
    public let flopPerPair: Int

    /// - Parameters:
    ///   - name: what the operation is called.
    ///   - rowOperands: floats that a row brings, plane by plane.
    ///   - columns: what a unit reads of its key tile.
    ///   - rowResults: floats that a row gets, plane by plane.
    ///   - tileResults: floats that a query tile gets beside those of its rows.
    ///   - columnResults: floats that a key gets, plane by plane.
    ///   - columnResultHeads: whose heads column results belong to, where there are any.
    ///   - flopPerPair: floating-point operations of a visible pair and query head.
    /// - Precondition: rows or keys get something; query tiles only where rows do.
    public init(
        _ name: String, rowOperands: [Int], columns: Columns, rowResults: [Int] = [], tileResults: Int = 0,
        columnResults: [Int] = [], columnResultHeads: ResultHeads = .query, flopPerPair: Int
    ) {
        precondition(!rowResults.isEmpty || !columnResults.isEmpty, "an operation gives something")
        precondition(tileResults == 0 || !rowResults.isEmpty, "what tiles get travels with what rows get")
        self.name = name
        self.rowOperands = rowOperands
        self.columns = columns
        self.rowResults = rowResults
        self.tileResults = tileResults
        self.columnResults = columnResults
        self.columnResultHeads = columnResultHeads
        self.flopPerPair = flopPerPair
    }

    /// Floats that a row and query head brings.
    public var rowOperandFloats: Int { rowOperands.reduce(0, +) }
    /// Floats that a row and query head gets, of each part that travels.
    public var rowResultFloats: Int { rowResults.reduce(0, +) }
    /// Floats that a key gets, of each part that travels, for each head of `columnResultHeads`.
    public var columnResultFloats: Int { columnResults.reduce(0, +) }
}

/// An operation that an executor can run: its shape, and what it does.
public struct TileOperation: Sendable {
    /// What the operation moves, for which plans are made.
    public let shape: OperationShape
    /// How the results of two sets of tiles become those of both.
    package let mergeRows: ResultPool.Merge?
    package let mergeColumns: ResultPool.Merge?
    /// What a thread runs it with.
    package let makeWorker: @Sendable () -> any TileWorker

    package init(
        _ shape: OperationShape, mergeRows: ResultPool.Merge? = nil, mergeColumns: ResultPool.Merge? = nil,
        worker: @escaping @Sendable () -> any TileWorker
    ) {
        precondition(
            (mergeRows == nil) == shape.rowResults.isEmpty && (mergeColumns == nil) == shape.columnResults.isEmpty)
        self.shape = shape
        self.mergeRows = mergeRows
        self.mergeColumns = mergeColumns
        makeWorker = worker
    }
}

/// One application of an operation by one rank: where its operands are, and where its results go.
public struct TileCall {
    /// What scores are multiplied by, 1/√d as a rule.
    public var scale: Float
    /// What the relative positions of the score modifiers are to this call, where there are any.
    public var contents: PositionContents?
    /// What is dropped of the weights, if anything.
    public var dropout: WeightDropout?
    /// This rank's row operands, a plane each.
    public var rowOperands: [HeadRows]
    /// Where whole results of this rank's rows go, by the operation's own count; nil: nowhere.
    public var rowResults: [HeadRows?]
    /// Where those of its query tiles go, a row a tile, zeros where it meets nothing; nil: nowhere.
    public var tileResults: HeadRows?
    /// Where whole results of this rank's keys go.
    public var columnResults: [HeadRows?]

    /// - Parameters:
    ///   - scale: what scores are multiplied by, 1/√d as a rule.
    ///   - contents: what the relative positions of the score modifiers are to this call, where there are any.
    ///   - dropout: what is dropped of the weights, if anything.
    ///   - rowOperands: a plane for each of the operation's.
    ///   - rowResults: an entry for each row result that the operation writes, nil where it is not wanted.
    ///   - tileResults: where what query tiles get goes, a row for each of this rank's.
    ///   - columnResults: an entry for each column result that it writes, likewise.
    public init(
        scale: Float, contents: PositionContents? = nil, dropout: WeightDropout? = nil, rowOperands: [HeadRows],
        rowResults: [HeadRows?] = [], tileResults: HeadRows? = nil, columnResults: [HeadRows?] = []
    ) {
        self.scale = scale
        self.contents = contents
        self.dropout = dropout
        self.rowOperands = rowOperands
        self.rowResults = rowResults
        self.tileResults = tileResults
        self.columnResults = columnResults
    }
}

/// The row operands of one query tile and head, wherever they lie: this rank's own, or those that another sent.
package struct TileRows {
    /// A plane: its first row, and the floats from one row to the next.
    package typealias Plane = (rows: UnsafePointer<Float>, stride: Int)

    package let count: Int
    /// The query head.
    package let head: Int
    package let planes: [Plane]

    package init(count: Int, head: Int, planes: [Plane]) {
        self.count = count
        self.head = head
        self.planes = planes
    }
}

/// A query tile and a key tile that meet, and the packed key tile of the head.
package struct TilePair {
    package let queryTile: Int
    package let keyTile: Int
    /// The sequence of both; tiles are counted in it.
    package let sequence: SequenceShape
    /// The sequence's place in the batch.
    package let number: Int
    /// Whether every row sees every key; where not, the mask is looked at pair by pair.
    package let isWhole: Bool
    package let columns: UnsafePointer<Float>
    /// The keys that the packed tile has room for.
    package let capacity: Int
    /// The packed tile that comes next, if it is known: it may be fetched into the cache meanwhile.
    package let next: UnsafePointer<Float>?

    package init(
        queryTile: Int, keyTile: Int, in sequence: SequenceShape, number: Int = 0, isWhole: Bool,
        columns: UnsafePointer<Float>, capacity: Int,
        next: UnsafePointer<Float>? = nil
    ) {
        self.queryTile = queryTile
        self.keyTile = keyTile
        self.sequence = sequence
        self.number = number
        self.isWhole = isWhole
        self.columns = columns
        self.capacity = capacity
        self.next = next
    }

    /// The keys that the tile has.
    var keys: Range<Int> { TileGrid.tokens(of: keyTile, length: sequence.keys) }
    /// The rows that the query tile has.
    var rows: Range<Int> { TileGrid.tokens(of: queryTile, length: sequence.queries) }
    /// The position of the tile's first key minus that of the first row.
    var distance: Int { sequence.position(ofKey: keys.lowerBound) - sequence.position(ofQuery: rows.lowerBound) }
}

/// One thread's part in an operation. Each operation has one, in a file of its own.
package protocol TileWorker: AnyObject {
    /// Takes the row operands of a query tile and head, for the pairs that follow.
    func load(_ rows: TileRows, of call: TileCall)

    /// Takes the packed columns of a key tile and head, for the pairs that follow: an operation that goes by columns meets
    /// one key tile and head after another, and makes what other forms it needs of them once.
    func load(columns: UnsafePointer<Float>, keys: Int, capacity: Int)

    /// Runs a unit.
    /// - Parameters:
    ///   - rows: takes the row results, whatever it held; nil where the operation has none.
    ///   - columns: takes the column results; nil where it has none.
    ///   - adds: whether they are added to what `columns` holds: that of query heads before this one, which share the
    ///     key head.
    func run(_ pair: TilePair, rows: PartialResult?, columns: PartialResult?, adds: Bool)

    /// Writes the whole result of a query tile and head, whose first row is the rank's row `first`. Of operations with
    /// row results.
    func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall)

    /// Writes the result of rows that see no key.
    func finishUnseeing(rows: Range<Int>, head: Int, of call: TileCall)

    /// Writes the whole result of a key tile and head, whose first key is the rank's key `first`. Of operations with
    /// column results.
    func finishColumns(_ whole: PartialResult, first: Int, head: Int, of call: TileCall)

    /// Writes the result of keys that no row sees.
    func finishUnseen(keys: Range<Int>, head: Int, of call: TileCall)
}

/// What an operation without such results has no need of.
extension TileWorker {
    package func load(columns: UnsafePointer<Float>, keys: Int, capacity: Int) {}
    package func finishRows(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        preconditionFailure("row results have a place")
    }
    package func finishUnseeing(rows: Range<Int>, head: Int, of call: TileCall) {}
    package func finishColumns(_ whole: PartialResult, first: Int, head: Int, of call: TileCall) {
        preconditionFailure("column results have a place")
    }
    package func finishUnseen(keys: Range<Int>, head: Int, of call: TileCall) {}
}
