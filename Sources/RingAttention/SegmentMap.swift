// Where the keys and values that arrive at a rank lie in the memory that it shares with its node.

import Attention
import Plans
import Tiles

/// The places in a rank's segment of what arrives step by step.
///
/// A pure function of the rank's plan, so that every rank of the node knows where to read.
package struct SegmentMap {
    /// Tiles that arrive in a step, of the same heads.
    package struct Arrival {
        let tiles: Runs
        let heads: Range<Int>
        /// The step in which they arrive: they can be read from the next one on.
        package let step: Int
        /// The last step in which they are read.
        fileprivate(set) var lastStep: Int
        /// In floats, from the start of the segment.
        package fileprivate(set) var offset = 0
        let floats: Int

        /// The memory is written in `step`; a step after the last reading the next may come, so that a rank that is one
        /// step ahead of its mates does not wait for them.
        fileprivate func overlaps(_ other: Arrival) -> Bool { step <= other.lastStep + 1 && other.step <= lastStep + 1 }
    }

    package private(set) var arrivals: [Arrival] = []
    /// The floats of the segment.
    private(set) var floats = 0

    package init(_ plan: Plan) {
        let problem = plan.problem
        // Of each arrival that is here: the (tile, head) pairs not yet released.
        var here: [(arrival: Int, pairs: Int)] = []
        for (number, step) in plan.steps.enumerated() {
            for case .columns(let tiles, let heads) in step.release {
                for place in here.indices {
                    let arrival = arrivals[here[place].arrival]
                    let released = arrival.tiles.intersection(tiles).count * arrival.heads.clamped(to: heads).count
                    here[place].pairs -= released
                    if released > 0 { arrivals[here[place].arrival].lastStep = number }
                }
                here.removeAll { $0.pairs == 0 }
            }
            for (tiles, heads) in step.arrivingColumns {
                here.append((arrivals.count, tiles.count * heads.count))
                let floats = problem.packedBytes(of: tiles, problem.operation.columns) / 4 * heads.count
                arrivals.append(
                    Arrival(tiles: tiles, heads: heads, step: number, lastStep: plan.steps.count, floats: floats))
            }
        }
        place()
    }

    /// Each arrival at the lowest place that is free while it is there.
    private mutating func place() {
        for index in arrivals.indices {
            let taken = arrivals.prefix(index).filter { $0.overlaps(arrivals[index]) }.sorted { $0.offset < $1.offset }
            var offset = 0
            for other in taken where other.offset < offset + arrivals[index].floats {
                offset = max(offset, other.offset + other.floats)
            }
            arrivals[index].offset = offset
            floats = max(floats, offset + arrivals[index].floats)
        }
    }
}

extension Step {
    /// What key and value tiles arrive, those of the same heads together.
    var arrivingColumns: [(tiles: Runs, heads: Range<Int>)] {
        var byHeads: [Range<Int>: [Range<Int>]] = [:]
        for case .columns(let tiles, let heads) in receives.flatMap(\.payloads) {
            byHeads[heads, default: []] += tiles.ranges
        }
        return byHeads.map { (Runs($1), $0) }.sorted {
            ($0.1.lowerBound, $0.1.upperBound) < ($1.1.lowerBound, $1.1.upperBound)
        }
    }
}
