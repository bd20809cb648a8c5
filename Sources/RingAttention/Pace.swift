// How fast a rank computes: what its threads have done, and how long they took.

import Attention
import Plans
import Tiles

/// What has been computed in some time of some threads, messages and waits apart.
public struct Pace: Sendable, Equatable {
    /// Floating-point operations.
    public private(set) var flop: Double
    /// The time they took, added over the threads.
    public private(set) var seconds: Double

    /// Nothing yet, or so much in so long.
    public init(flop: Double = 0, seconds: Double = 0) {
        self.flop = flop
        self.seconds = seconds
    }

    /// Both together.
    public static func + (one: Pace, other: Pace) -> Pace {
        Pace(flop: one.flop + other.flop, seconds: one.seconds + other.seconds)
    }

    /// Adds what another part of the work took.
    public static func += (all: inout Pace, other: Pace) { all = all + other }
}

/// One thread's clock: it runs while the thread computes a unit that tells how fast it is.
final class UnitClock {
    private(set) var pace = Pace()
    private var started: ContinuousClock.Instant?

    /// Starts with a unit, a query tile and a head, if its time is to count.
    ///
    /// A short tile, a few key tiles or many that are seen in part take longer for what they compute than the rest of
    /// a long job does.
    func start(_ tile: SideTile, meeting keyTiles: [Int]) {
        // A diagonal is one tile of many.
        let isTypical =
            tile.count == TileGrid.tileSize && keyTiles.count >= 4
            && 16 * keyTiles.count(where: { !tile.meets.all.contains($0) }) <= keyTiles.count
        started = isTypical ? .now : nil
    }

    /// Ends with the unit that it was started for. Of a key tile that is seen in part, half counts, as of a diagonal.
    func stop(_ tile: SideTile, meeting keyTiles: [Int], of problem: AttentionProblem) {
        guard let started else { return }
        let time = ContinuousClock.now - started
        let keys = keyTiles.reduce(0.0) {
            $0 + Double(problem.keys.numbering.tokens(of: $1).count) * (tile.meets.all.contains($1) ? 1 : 0.5)
        }
        let (seconds, attoseconds) = time.components
        pace += Pace(
            flop: keys * Double(tile.count * problem.operation.flopPerPair),
            seconds: Double(seconds) + Double(attoseconds) * 1e-18)
    }
}
