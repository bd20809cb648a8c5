// The shapes of an attention problem: heads, and the tokens of one sequence.

import Tiles

/// The heads of one attention: query heads in groups that share a key/value head (multi-head,
/// grouped-query and multi-query attention), and their dimensions.
public struct HeadShape: Hashable, Sendable {
    public let queryHeads: Int
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

    /// The floats of a partial output row: the value dimension rounded up to whole vectors.
    @inlinable public var paddedValueDimension: Int { (valueDimension + 15) & ~15 }
}

/// The tokens of one sequence: how many rows ask and how many are asked. Equal for self-attention;
/// for cross-attention the last query stands at the last key (bottom-right alignment).
public struct SequenceShape: Hashable, Sendable {
    public let queries: Int
    public let keys: Int

    public init(queries: Int, keys: Int) {
        precondition(queries >= 0 && keys >= 0)
        self.queries = queries
        self.keys = keys
    }

    /// Self-attention over `length` tokens.
    public init(length: Int) { self.init(queries: length, keys: length) }

    /// The position among the keys at which query row 0 stands; negative where queries outnumber keys.
    @inlinable public var offset: Int { keys - queries }
}
