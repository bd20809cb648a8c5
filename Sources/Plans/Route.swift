// How tiles travel around a ring, each along the places that need it.

import Tiles

/// Tiles on a ring of places (ranks, or groups of ranks): each leaves its owner and hops downstream from one place that
/// needs it to the next, passing by those that do not. It reaches the place `d` downstream of its owner in stage `d − 1`
/// and is used there in stage `d`, so it enters every place that needs it exactly once: Σ over tiles of the places other
/// than the owner that need it is the least that can be sent.
struct RingRoute: Sendable {
    /// What each place has at the start.
    let owned: [Runs]
    /// What each place needs, whoever owns it.
    let needed: UnionTree

    init(owned: [Runs], needed: [Runs]) {
        self.owned = owned
        self.needed = UnionTree(needed)
    }

    var count: Int { owned.count }

    /// Some tiles between a place and a peer.
    struct Hop {
        let peer: Int
        /// The stage in which they travel.
        let stage: Int
        let tiles: Runs
    }

    private func place(_ hops: Int, from place: Int) -> Int {
        let sum = (place + hops) % count
        return sum < 0 ? sum + count : sum
    }

    /// What a place uses in a stage: what it needs of the tiles of the owner `stage` places upstream.
    func used(at place: Int, stage: Int) -> Runs {
        needed[place].intersection(owned[self.place(-stage, from: place)])
    }

    /// What reaches a place, from the nearest place upstream that had it.
    func arrivals(at place: Int) -> [Hop] {
        var hops: [Hop] = []
        for stage in 1..<max(1, count) {
            let owner = self.place(-stage, from: place)
            var missing = used(at: place, stage: stage)
            var nearest = stage
            while !missing.isEmpty {
                // Distances from the owner, the nearest to this place first.
                nearest = last(1..<nearest, downstreamOf: owner, needing: missing) ?? 0
                let holder = self.place(nearest, from: owner)
                let held = nearest == 0 ? missing : missing.intersection(needed[holder])
                hops.append(Hop(peer: holder, stage: stage - 1, tiles: held))
                missing = missing.subtracting(held)
            }
        }
        return hops
    }

    /// What leaves a place, to the nearest place downstream that needs it.
    func departures(from place: Int) -> [Hop] {
        var hops: [Hop] = []
        for distance in 0..<count {
            let owner = self.place(-distance, from: place)
            var held = distance == 0 ? owned[owner] : used(at: place, stage: distance)
            var next = distance
            while !held.isEmpty, let reached = first(next + 1..<max(next + 1, count), downstreamOf: owner, needing: held) {
                next = reached
                let reader = self.place(next, from: owner)
                let passed = held.intersection(needed[reader])
                hops.append(Hop(peer: reader, stage: next - 1, tiles: passed))
                held = held.subtracting(passed)
            }
        }
        return hops
    }

    /// The first of some distances downstream of a place at which any of some tiles are needed.
    private func first(_ distances: Range<Int>, downstreamOf place: Int, needing tiles: Runs) -> Int? {
        for part in parts(distances, downstreamOf: place) {
            if let found = needed.first(in: part.places, meeting: tiles) { return found - part.offset }
        }
        return nil
    }

    /// The last of them.
    private func last(_ distances: Range<Int>, downstreamOf place: Int, needing tiles: Runs) -> Int? {
        for part in parts(distances, downstreamOf: place).reversed() {
            if let found = needed.last(in: part.places, meeting: tiles) { return found - part.offset }
        }
        return nil
    }

    /// Distances as places, before and after the ring closes; a place is its distance plus the offset.
    private func parts(_ distances: Range<Int>, downstreamOf place: Int) -> [(places: Range<Int>, offset: Int)] {
        if distances.isEmpty { return [] }
        let places = place + distances.lowerBound..<place + distances.upperBound
        return [
            (places.clamped(to: 0..<count), place),
            (places.clamped(to: count..<2 * count).lowerBound - count..<places.clamped(to: count..<2 * count).upperBound - count, place - count),
        ].filter { !$0.places.isEmpty }
    }
}
