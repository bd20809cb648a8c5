// In which order the leaves of a rank's tiles merge, said once for all the sums that merge so.

import Tiles

/// The way of some tiles' leaves, ascending, up the fixed tree over a step's tiles, as far as one rank's tiles reach.
///
/// A leaf is computed into one of a few places, or right onto the part to its left where it merges with that first; then
/// parts merge, place into place. So whoever sums a block of a weight holds it in the cache, with at most about
/// log₂(tiles) parts beside it.
struct MergeOrder: Sendable {
    struct Leaf: Sendable {
        /// Which of the tiles.
        let tile: Int
        /// The place that takes the leaf.
        let place: Int
        /// Whether it is added to what is there: its own merge with the part to its left.
        let adds: Bool
        /// Merges that follow: the part at `from`, which is to the right, joins that at `into`.
        let merges: [(into: Int, from: Int)]
        /// The part that is whole now, if one is, and its place.
        let finished: (part: Int, place: Int)?
    }

    /// From the first tile to the last.
    let leaves: [Leaf]
    /// The node of each part, from left to right.
    let nodes: [TreeNode]
    /// How many places are in use at a time.
    let places: Int

    /// - Parameters:
    ///   - tiles: the numbers in the step of those tiles that contribute, ascending.
    ///   - owned: those of all tiles of this rank.
    ///   - step: those of the whole step.
    init(tiles: [Int], owned: Runs, step: Runs) {
        var leaves: [Leaf] = []
        var nodes: [TreeNode] = []
        var (free, places): ([Int], Int) = ([], 0)
        var next = 0
        for node in TreeNode.maximal(in: owned, of: step) {
            let first = next
            while next < tiles.count, node.tiles.contains(tiles[next]) { next += 1 }
            if first == next { continue }
            let log = MergeLog()
            var forest = MergeForest<LoggedPart>(tiles: Runs(tiles[first..<next].map { $0..<$0 + 1 }))
            for tile in first..<next {
                let own: Int
                if let place = free.popLast() {
                    own = place
                } else {
                    own = places
                    places += 1
                }
                log.merges = []
                forest.insert(LoggedPart(place: own, log: log), tile: tiles[tile])
                var merges = log.merges
                free += merges.map(\.from)
                var (place, adds) = (own, false)
                // Tiles come in ascending order, so the leaf is the right side of its first merge.
                if let merge = merges.first {
                    (place, adds) = (merge.into, true)
                    merges.removeFirst()
                }
                var finished: (part: Int, place: Int)?
                if let root = forest.root {
                    finished = (nodes.count, root.place)
                    free.append(root.place)
                    nodes.append(node)
                }
                leaves.append(Leaf(tile: tile, place: place, adds: adds, merges: merges, finished: finished))
            }
        }
        (self.leaves, self.nodes, self.places) = (leaves, nodes, places)
    }
}

/// What merges of parts have happened.
private final class MergeLog {
    var merges: [(into: Int, from: Int)] = []
}

/// A part that only notes where it is and what it merges with.
private struct LoggedPart: Mergeable {
    let place: Int
    let log: MergeLog

    mutating func merge(right: LoggedPart) { log.merges.append((place, right.place)) }
}
