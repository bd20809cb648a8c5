// Unions of neighbouring sets, and the next set that meets another, in logarithmic time.

import Tiles

/// A segment tree over sets at places 0, 1, …, whose nodes hold the unions of what is below them.
package struct UnionTree: Sendable {
    /// Level 0 holds the sets, each further one the unions of pairs of the one before, up to a single set.
    private let levels: [[Runs]]

    package init(_ sets: [Runs]) {
        var levels = [sets]
        while let last = levels.last, last.count > 1 {
            levels.append(
                stride(from: 0, to: last.count, by: 2).map {
                    $0 + 1 < last.count ? last[$0].union(last[$0 + 1]) : last[$0]
                })
        }
        self.levels = levels
    }

    package subscript(place: Int) -> Runs { levels[0][place] }

    var count: Int { levels[0].count }

    /// The union of all sets.
    package var whole: Runs { levels[levels.count - 1].first ?? Runs() }

    /// The level of the largest node that begins or ends at `edge` and has at most `room` places below it.
    private func highestLevel(at edge: Int, room: Int) -> Int {
        min(edge.trailingZeroBitCount, Int.bitWidth - 1 - room.leadingZeroBitCount)
    }

    /// The union of the sets at some places.
    package func union(_ places: Range<Int>) -> Runs {
        var result = Runs()
        var place = places.lowerBound
        while place < places.upperBound {
            let level = highestLevel(at: place, room: places.upperBound - place)
            result = result.union(levels[level][place >> level])
            place += 1 << level
        }
        return result
    }

    /// The first place of some whose set meets `set`.
    package func first(in places: Range<Int>, meeting set: Runs) -> Int? {
        var place = places.lowerBound
        while place < places.upperBound {
            // As high up as nothing else is below …
            var level = highestLevel(at: place, room: places.upperBound - place)
            if levels[level][place >> level].intersects(set) {
                // … and down to the first that does.
                while level > 0 {
                    level -= 1
                    if !levels[level][place >> level].intersects(set) { place += 1 << level }
                }
                return place
            }
            place += 1 << level
        }
        return nil
    }

    /// The last place of some whose set meets `set`.
    package func last(in places: Range<Int>, meeting set: Runs) -> Int? {
        var end = places.upperBound
        while end > places.lowerBound {
            var level = highestLevel(at: end, room: end - places.lowerBound)
            if levels[level][(end >> level) - 1].intersects(set) {
                while level > 0 {
                    level -= 1
                    if !levels[level][(end >> level) - 1].intersects(set) { end -= 1 << level }
                }
                return end - 1
            }
            end -= 1 << level
        }
        return nil
    }
}
