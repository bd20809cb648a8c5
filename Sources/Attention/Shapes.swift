// The shapes of an attention problem: heads, and the tokens of one sequence.

import Tiles

/// The heads of one attention: query heads in groups that share a key/value head (multi-head,
/// grouped-query and multi-query attention), and their dimensions.
public struct HeadShape: Hashable, Sendable {
    /// Heads of queries; each has an output of its own.
    public let queryHeads: Int
    /// Heads of keys and values; each serves ``groupSize`` consecutive query heads.
    public let keyValueHeads: Int
    /// The width of a query and of a key.
    public let headDimension: Int
    /// The width of a value and of an output.
    public let valueDimension: Int

    /// - Precondition: all positive, `queryHeads` a multiple of `keyValueHeads`.
    public init(queryHeads: Int, keyValueHeads: Int, headDimension: Int, valueDimension: Int) {
        precondition(queryHeads > 0 && keyValueHeads > 0 && headDimension > 0 && valueDimension > 0)
        precondition(queryHeads % keyValueHeads == 0, "query heads are a multiple of key/value heads")
        self.queryHeads = queryHeads
        self.keyValueHeads = keyValueHeads
        self.headDimension = headDimension
        self.valueDimension = valueDimension
    }

    /// Equally many query and key/value heads of one width.
    public init(heads: Int, headDimension: Int) {
        self.init(queryHeads: heads, keyValueHeads: heads, headDimension: headDimension, valueDimension: headDimension)
    }

    /// Query heads for each key/value head.
    @inlinable public var groupSize: Int { queryHeads / keyValueHeads }

    /// The floats of a gradient row of queries or keys: the head dimension rounded up to whole vectors.
    @inlinable public var paddedHeadDimension: Int { (headDimension + 15) & ~15 }

    /// The floats of a partial output row: the value dimension rounded up to whole vectors.
    @inlinable public var paddedValueDimension: Int { (valueDimension + 15) & ~15 }
}

/// The tokens of one sequence: how many rows ask and how many are asked.
///
/// Equal for self-attention. For cross-attention the last query stands at the last key (bottom-right alignment): query
/// row r stands at position r + (keys − queries). A sequence may be a piece of a longer, packed one, whose positions
/// then count: masks and biases are defined on the whole.
public struct SequenceShape: Hashable, Sendable {
    /// The query rows of this sequence, or of this piece of one.
    public let queries: Int
    /// The keys of this sequence, or of this piece of one.
    public let keys: Int
    /// Where the piece's query rows start in the whole.
    public let firstQuery: Int
    /// Where the piece's keys start in the whole.
    public let firstKey: Int
    /// What the mask's positions refer to: keys minus queries of the whole.
    private let alignment: Int
    /// The keys of the whole.
    public let wholeKeys: Int

    /// A whole sequence of so many query rows and keys.
    /// - Precondition: neither is negative.
    public init(queries: Int, keys: Int) {
        precondition(queries >= 0 && keys >= 0)
        self.queries = queries
        self.keys = keys
        firstQuery = 0
        firstKey = 0
        alignment = keys - queries
        wholeKeys = keys
    }

    /// Self-attention over `length` tokens.
    public init(length: Int) { self.init(queries: length, keys: length) }

    /// The piece of a sequence that consists of some of its queries and keys.
    public init(queries: Range<Int>, keys: Range<Int>, of whole: SequenceShape) {
        self.queries = queries.count
        self.keys = keys.count
        firstQuery = whole.firstQuery + queries.lowerBound
        firstKey = whole.firstKey + keys.lowerBound
        alignment = whole.alignment
        wholeKeys = whole.wholeKeys
    }

    /// The position, among the keys of the whole, at which a query row of this piece stands; may be negative.
    public func position(ofQuery row: Int) -> Int { firstQuery + row + offset }

    /// The position of a key of this piece among the keys of the whole.
    public func position(ofKey key: Int) -> Int { firstKey + key }

    /// What is added to a query's row in the whole to give its position.
    public var offset: Int { alignment }
}
