// Which rank holds which tiles.

import Tiles

/// How the tiles of a batch are dealt out to ranks.
public enum Layout: String, CaseIterable, Sendable {
    /// In natural order, equal token counts: one run of consecutive tiles of a sequence a rank.
    case contiguous
    /// Each sequence folded in the middle (first, last, second, last but one, …), equal token counts: two runs of a
    /// sequence a rank, one from each end, which evens out causal masks (zhuzilin's zigzag ring).
    case zigzag
    /// Folded like `zigzag`, equal modelled cost in proportion to the ranks' speeds, under a cap on tokens.
    case balanced

    var isFolded: Bool { self != .contiguous }
}

/// The owner of every tile of a batch: at most two runs of consecutive tiles of a sequence a rank.
///
/// The tiles are numbered through (`TileNumbering`) and laid out in the layout's order, natural or folded; a stretch of
/// places belongs to one rank. A rank may be left without any. A pure function of its arguments.
public struct Sharding: Sendable, Equatable {
    /// The tiles of the batch, with the tokens that they hold and have room for.
    public private(set) var numbering: TileNumbering
    /// How many ranks the tiles are dealt out to.
    public let rankCount: Int
    /// How they were dealt out.
    public let layout: Layout
    /// Where the stretches start, ascending, and whose they are.
    private let starts: [Int]
    private let owners: [Int]
    /// The places of each rank.
    private let places: [Runs]

    /// A balanced layout gives no rank more than this many times the mean of tokens, or one tile where that is more,
    /// which bounds its memory.
    public static let tokenCap = 2.0

    /// - Parameters:
    ///   - lengths: the tokens of each sequence.
    ///   - layout: how their tiles are dealt out.
    ///   - rankCount: how many ranks they are dealt out to, at least one.
    ///   - costs: for `balanced`, the modelled cost of each tile by its number; without them, tokens count.
    ///   - speeds: for `balanced`, the ranks' relative speeds; without them, all are equal.
    public init(lengths: [Int], layout: Layout, rankCount: Int, costs: [Double]? = nil, speeds: [Double]? = nil) {
        precondition(rankCount > 0)
        let numbering = TileNumbering(lengths: lengths)
        precondition(costs.map { $0.count == numbering.tileCount } ?? true, "a cost for every tile")
        precondition(
            speeds.map { $0.count == rankCount && $0.allSatisfy { $0 > 0 } } ?? true, "a positive speed for every rank")
        self.numbering = numbering
        self.rankCount = rankCount
        self.layout = layout
        var tokens: [Int] = []
        tokens.reserveCapacity(numbering.tileCount)
        var weights: [Double] = []
        for (sequence, length) in lengths.enumerated() {
            let count = TileGrid.count(length: length)
            for place in 0..<count {
                let tile = layout.isFolded ? Self.unfolded(place, count: count) : place
                tokens.append(TileGrid.tokens(of: tile, length: length).count)
                if layout == .balanced {
                    weights.append(costs?[numbering.firstTile[sequence] + tile] ?? Double(tokens[tokens.count - 1]))
                }
            }
        }
        let owner: [Int]
        if layout == .balanced {
            let balance = Balance(
                speeds: speeds ?? Array(repeating: 1, count: rankCount), tokens: tokens, weights: weights)
            owner = balance.owners(sequences: lengths.indices.map { numbering.tiles(of: $0) })
        } else {
            owner = Self.equalShares(tokens: tokens, ranks: rankCount)
        }
        (starts, owners, places) = Self.stretches(owner, rankCount: rankCount)
    }

    /// Tiles in their natural order, dealt out by whoever asks.
    /// - Parameters:
    ///   - lengths: the tokens of each sequence.
    ///   - owners: the rank of every tile.
    ///   - rankCount: how many ranks there are.
    public init(lengths: [Int], owners: [Int], rankCount: Int) {
        numbering = TileNumbering(lengths: lengths)
        precondition(owners.count == numbering.tileCount, "an owner for every tile")
        precondition(owners.allSatisfy { (0..<rankCount).contains($0) }, "a tile of no rank")
        self.rankCount = rankCount
        layout = .contiguous
        (starts, self.owners, places) = Self.stretches(owners, rankCount: rankCount)
    }

    /// Where the stretches of one owner start, whose they are, and the places of each rank.
    private static func stretches(_ owner: [Int], rankCount: Int) -> ([Int], [Int], [Runs]) {
        var starts: [Int] = []
        var owners: [Int] = []
        var places: [[Range<Int>]] = Array(repeating: [], count: rankCount)
        for (place, rank) in owner.enumerated() {
            if owners.last != rank {
                starts.append(place)
                owners.append(rank)
            }
            places[rank].append(place..<place + 1)
        }
        return (starts, owners, places.map { Runs($0) })
    }

    /// The same tiles on the same ranks, with room for the tokens that this sharding has, and so many of them there.
    public func holding(lengths: [Int]) -> Sharding {
        var other = self
        other.numbering = TileNumbering(lengths: lengths, capacities: numbering.capacities)
        return other
    }

    /// A tile goes to the rank whose share of the tokens its middle falls into, in whole numbers.
    private static func equalShares(tokens: [Int], ranks: Int) -> [Int] {
        let total = tokens.reduce(0, +)
        var before = 0
        return tokens.map { count in
            defer { before += count }
            return (2 * before + count) * ranks / (2 * total)
        }
    }

    /// The tile at a place of a folded sequence: 0, n − 1, 1, n − 2, …
    private static func unfolded(_ place: Int, count: Int) -> Int { place & 1 == 0 ? place / 2 : count - 1 - place / 2 }

    /// The place of a tile of a folded sequence.
    private static func folded(_ tile: Int, count: Int) -> Int {
        tile < (count + 1) / 2 ? 2 * tile : 2 * (count - 1 - tile) + 1
    }

    /// The tiles of a rank, in ascending order.
    public func tiles(of rank: Rank) -> Runs {
        let places = places[rank.index]
        guard layout.isFolded, let first = places.ranges.first, let last = places.ranges.last else { return places }
        var ranges: [Range<Int>] = []
        // Places are numbered through like tiles, so a place lies in the same sequence as its tile.
        for sequence in numbering.sequence(of: first.lowerBound)...numbering.sequence(of: last.upperBound - 1) {
            let tiles = numbering.tiles(of: sequence)
            for part in places.intersection(tiles).ranges {
                let (low, high) = (part.lowerBound - tiles.lowerBound, part.upperBound - tiles.lowerBound)
                ranges.append(tiles.lowerBound + (low + 1) / 2..<tiles.lowerBound + (high + 1) / 2)
                ranges.append(tiles.upperBound - high / 2..<tiles.upperBound - low / 2)
            }
        }
        return Runs(ranges)
    }

    /// The rank that holds a tile.
    public func owner(of tile: Int) -> Rank {
        var place = tile
        if layout.isFolded {
            let sequence = numbering.sequence(of: tile)
            let first = numbering.firstTile[sequence]
            place = first + Self.folded(tile - first, count: numbering.firstTile[sequence + 1] - first)
        }
        var low = 0
        var high = starts.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= place { low = middle } else { high = middle }
        }
        return Rank(owners[low])
    }

    /// Whether no sequence is spread over ranks, so that none has to wait for another.
    public var keepsSequencesWhole: Bool {
        numbering.lengths.indices.allSatisfy { sequence in
            let tiles = numbering.tiles(of: sequence)
            return tiles.isEmpty || tiles.dropFirst().allSatisfy { owner(of: $0) == owner(of: tiles.lowerBound) }
        }
    }

    /// The number of tokens that a rank holds.
    public func tokenCount(of rank: Rank) -> Int {
        tiles(of: rank).reduce(0) { $0 + numbering.tokens(of: $1).count }
    }
}
