// Which rank holds which tiles of a step's part: runs of consecutive tiles of even cost.

import Plans
import Tiles

extension Sharding {
    /// How far a cut may stand from where costs would be even, as a part of a rank's even cost, so that it stands well.
    private static let slack = 0.03

    /// One run of consecutive tiles a rank, of about the same cost.
    ///
    /// The fewer maximal subtrees a rank's tiles fill, the fewer sums of gradients it sends. Of the places near an even
    /// cut the best is one between two documents, which then need no exchange, and of those, or where there is none, the
    /// one whose tile number in the step divides by the highest power of two.
    /// - Parameters:
    ///   - lengths: the tokens of each document.
    ///   - costs: of each tile.
    ///   - firstTile: the step's number of the first tile.
    ///   - ranks: how many ranks there are.
    public static func ofStep(lengths: [Int], costs: [Double], firstTile: Int, ranks: Int) -> Sharding {
        let numbering = TileNumbering(lengths: lengths)
        precondition(costs.count == numbering.tileCount, "a cost for every tile")
        let starts = Set(numbering.firstTile)
        var before = [0.0]
        for cost in costs { before.append(before[before.count - 1] + cost) }
        let even = before[costs.count] / Double(ranks)
        var owners = [Int](repeating: 0, count: costs.count)
        var cut = 0
        for rank in 1..<max(1, ranks) {
            let wanted = Double(rank) * even
            let places = (cut...costs.count)
            let nearest = places.min { abs(before[$0] - wanted) < abs(before[$1] - wanted) } ?? cut
            let near = places.filter { $0 == nearest || abs(before[$0] - wanted) <= slack * even }
            func order(_ place: Int) -> (Int, Int, Double) {
                (
                    starts.contains(place) ? 1 : 0, (firstTile + place).trailingZeroBitCount,
                    -abs(before[place] - wanted)
                )
            }
            cut = near.max { order($0) < order($1) } ?? nearest
            for tile in cut..<costs.count { owners[tile] = rank }
        }
        return Sharding(lengths: lengths, owners: owners, rankCount: ranks)
    }
}
