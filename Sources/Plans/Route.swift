// How tiles travel around a ring, each along the places that need it.

import Tiles

/// Tiles on a ring of places (ranks, or groups of ranks): each leaves its owner and hops downstream from one place that
/// needs it to the next, passing by those that do not. It reaches the place `d` downstream of its owner in stage `d − 1`
/// and is used there in stage `d`, so it leaves its owner, and every place that keeps it, exactly once: Σ over tiles of
/// the places other than the owner that need it is the least that can be sent.
struct RingRoute {
    /// What each place has at the start.
    let owned: [Runs]
    /// What each place needs, whoever owns it.
    let needed: [Runs]

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
            var upstream = stage - 1
            while !missing.isEmpty {
                let holder = self.place(upstream, from: owner)
                let held = upstream == 0 ? missing : missing.intersection(needed[holder])
                if !held.isEmpty { hops.append(Hop(peer: holder, stage: stage - 1, tiles: held)) }
                missing = missing.subtracting(held)
                upstream -= 1
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
            var downstream = distance + 1
            while !held.isEmpty, downstream < count {
                let reader = self.place(downstream, from: owner)
                let passed = held.intersection(needed[reader])
                if !passed.isEmpty { hops.append(Hop(peer: reader, stage: downstream - 1, tiles: passed)) }
                held = held.subtracting(passed)
                downstream += 1
            }
        }
        return hops
    }
}
