// One participant of a job, by its place in the ring.

/// A rank: an index in `0..<count` of the processes (or virtual ranks) of one job. The ring order is
/// the order of the indices, wrapping around.
public struct Rank: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The rank's number, from 0.
    public let index: Int

    /// The rank of that number.
    /// - Precondition: `index` is not negative.
    public init(_ index: Int) {
        precondition(index >= 0, "a rank is not negative")
        self.index = index
    }

    /// Ranks are ordered by their index.
    public static func < (left: Rank, right: Rank) -> Bool { left.index < right.index }

    /// How many hops downstream of `origin` this rank stands in a ring of `count` ranks, in `0..<count`.
    @inlinable public func distance(from origin: Rank, count: Int) -> Int {
        let hops = index - origin.index
        return hops >= 0 ? hops : hops + count
    }

    /// The rank `hops` places downstream in a ring of `count` ranks; negative is upstream.
    @inlinable public func advanced(by hops: Int, count: Int) -> Rank {
        let place = (index + hops) % count
        return Rank(place >= 0 ? place : place + count)
    }

    /// The word and the number, as messages name a rank.
    public var description: String { "rank \(index)" }
}
