// How tiles travel around a ring, each along the places that need it.

import Tiles

/// Tiles on a ring of places (ranks, or groups of ranks): each leaves its owner and hops downstream from one place that
/// needs it to the next, passing by those that do not. It reaches the place `d` downstream of its owner in stage `d −
/// 1` and is used there in stage `d`, so it enters every place that needs it exactly once: Σ over tiles of the places
/// other than the owner that need it is the least that can be sent.
///
/// Neighbouring places of one node share memory: a tile enters the node at the first of them that needs it, unless its
/// owner is of the node, and the others read it there in their stages.
struct RingRoute: Sendable {
    /// What each place has at the start.
    let owned: [Runs]
    /// What each place needs, whoever owns it.
    let needed: UnionTree
    /// What of it comes to the place in messages.
    private let entering: UnionTree
    /// The places of each place's node.
    private let nodes: [Range<Int>]

    init(owned: [Runs], needed: [Runs], topology: Topology) {
        self.owned = owned
        self.needed = UnionTree(needed)
        nodes = owned.indices.map { topology.mates(of: Rank($0)) }
        entering = UnionTree(topology.entering(owned: owned, needed: needed))
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
            var missing = entering[place].intersection(owned[owner])
            var nearest = stage
            while !missing.isEmpty {
                // Distances from the owner, the nearest to this place first.
                nearest = last(1..<nearest, downstreamOf: owner, needing: missing) ?? 0
                let holder = self.place(nearest, from: owner)
                let held = nearest == 0 ? missing : missing.intersection(entering[holder])
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
            var held = distance == 0 ? owned[owner] : entering[place].intersection(owned[owner])
            var next = distance
            while !held.isEmpty, let reached = first(next + 1..<count, downstreamOf: owner, needing: held) {
                next = reached
                let reader = self.place(next, from: owner)
                let passed = held.intersection(entering[reader])
                hops.append(Hop(peer: reader, stage: next - 1, tiles: passed))
                held = held.subtracting(passed)
            }
        }
        return hops
    }

    /// When the other places of a node read what reaches a place, or is there, in a stage: each needs it as many stages
    /// later as it lies downstream.
    /// - Parameter stage: the stage from which on the tiles are used at the place; 0 for its own.
    func readings(at place: Int, of tiles: Runs, stage: Int) -> [(stage: Int, tiles: Runs)] {
        nodes[place].compactMap { mate in
            let distance = mate - place + (mate < place ? count : 0)
            let read = tiles.intersection(needed[mate])
            return mate == place || read.isEmpty ? nil : ((stage + distance) % count, read)
        }
    }

    /// The first of some distances downstream of a place at which any of some tiles are needed.
    private func first(_ distances: Range<Int>, downstreamOf place: Int, needing tiles: Runs) -> Int? {
        for part in parts(distances, downstreamOf: place) {
            if let found = entering.first(in: part.places, meeting: tiles) { return found - part.offset }
        }
        return nil
    }

    /// The last of them.
    private func last(_ distances: Range<Int>, downstreamOf place: Int, needing tiles: Runs) -> Int? {
        for part in parts(distances, downstreamOf: place).reversed() {
            if let found = entering.last(in: part.places, meeting: tiles) { return found - part.offset }
        }
        return nil
    }

    /// Distances as places, before and after the ring closes; a place is its distance plus the offset.
    private func parts(_ distances: Range<Int>, downstreamOf place: Int) -> [(places: Range<Int>, offset: Int)] {
        if distances.isEmpty { return [] }
        let places = place + distances.lowerBound..<place + distances.upperBound
        return [
            (places.clamped(to: 0..<count), place),
            (
                places.clamped(to: count..<2 * count).lowerBound - count..<places.clamped(to: count..<2 * count)
                    .upperBound - count, place - count
            ),
        ].filter { !$0.places.isEmpty }
    }
}

extension Topology {
    /// What comes to each place in messages: what it needs and nobody of its node has, but for what a place before it,
    /// in the node, lets in.
    func entering(owned: [Runs], needed: [Runs]) -> [Runs] {
        var result: [Runs] = []
        while result.count < needed.count {
            let node = mates(of: Rank(result.count))
            var here = node.count > 1 ? Runs(node.flatMap { owned[$0].ranges }) : owned[node.lowerBound]
            for place in node {
                result.append(needed[place].subtracting(here))
                if node.count > 1 { here = here.union(needed[place]) }
            }
        }
        return result
    }
}
