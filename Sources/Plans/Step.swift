// What plans are made of: units of work, what messages carry, and the steps of a rank.

import Attention
import Tiles

/// Units of work: each query tile of `queries`, for each head of `heads`, with those key tiles of `keys` that it sees.
///
/// Wherever a unit runs, what it gives is the same. Row results are those of the maximal subtrees that its key tiles
/// fill in the fixed tree over all key tiles that its query tile sees, column results those of the maximal subtrees
/// that its query tiles fill in the fixed tree over all query tiles that see its key tile.
public struct Units: Sendable, Hashable {
    /// Query tiles, by their number in the batch.
    public var queries: Runs
    /// Query heads.
    public var heads: Range<Int>
    /// Key tiles, by their number in the batch.
    public var keys: Runs

    /// - Parameters:
    ///   - queries: query tiles, by their number in the batch.
    ///   - heads: query heads.
    ///   - keys: key tiles, by their number in the batch.
    public init(queries: Runs, heads: Range<Int>, keys: Runs) {
        self.queries = queries
        self.heads = heads
        self.keys = keys
    }

    var isEmpty: Bool { queries.isEmpty || heads.isEmpty || keys.isEmpty }
}

/// What a message carries. Tiles travel head after head, and a head's in ascending order.
public enum Payload: Sendable, Hashable {
    /// What the operation reads of the packed keys and values of some tiles, for some key/value heads.
    case columns(Runs, heads: Range<Int>)
    /// What the rows of some query tiles bring, for some query heads, in float32.
    case rows(Runs, heads: Range<Int>)
    /// What the rows of some units got, in float32, a result for each maximal subtree. It moves: the sender keeps
    /// nothing.
    case rowResults(Units)
    /// What the keys of some units got, likewise.
    case columnResults(Units)

    var isEmpty: Bool {
        switch self {
        case .columns(let tiles, let heads), .rows(let tiles, let heads): tiles.isEmpty || heads.isEmpty
        case .rowResults(let units), .columnResults(let units): units.isEmpty
        }
    }

    /// Where the payload stands in a message: both sides put it together in this order.
    var order: (Int, Int, Int, Int) {
        switch self {
        case .columns(let tiles, let heads): (0, heads.lowerBound, tiles.ranges.first?.lowerBound ?? 0, 0)
        case .rows(let tiles, let heads): (1, heads.lowerBound, tiles.ranges.first?.lowerBound ?? 0, 0)
        case .rowResults(let units): Self.order(2, units)
        case .columnResults(let units): Self.order(3, units)
        }
    }

    private static func order(_ kind: Int, _ units: Units) -> (Int, Int, Int, Int) {
        (
            kind, units.heads.lowerBound, units.queries.ranges.first?.lowerBound ?? 0,
            units.keys.ranges.first?.lowerBound ?? 0
        )
    }
}

/// The message between this rank and another in one step.
public struct Transfer: Sendable, Hashable {
    /// The other rank: where a message that is sent goes, where one that is received comes from.
    public var peer: Rank
    /// What the message carries, one behind another, in an order that both sides put it in.
    public var payloads: [Payload]

    /// - Parameters:
    ///   - peer: the other rank.
    ///   - payloads: what the message carries, one behind another.
    public init(peer: Rank, payloads: [Payload]) {
        self.peer = peer
        self.payloads = payloads
    }
}

/// One step of a rank: while `attend` is computed from what is resident, `sends` leave and `receives` arrive; what
/// arrives is resident, or merged, from the next step on.
public struct Step: Sendable, Hashable {
    /// What arrives, at most one message from each rank.
    public package(set) var receives: [Transfer] = []
    /// What leaves, at most one message to each rank.
    public package(set) var sends: [Transfer] = []
    /// What is computed; no two share a query tile and head.
    public package(set) var attend: [Units] = []
    /// Key and query tiles of other ranks that are needed in no later step, neither to attend nor to send.
    public package(set) var release: [Payload] = []

    package init() {}
}
