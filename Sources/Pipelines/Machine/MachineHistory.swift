// All that is known of the speed of a job's ranks and links, and what to believe of it.

import Plans

/// The rates that the ranks of a kind of job, and the links between them, have shown lately.
package struct MachineHistory: Equatable {
    /// A link's: small messages a second, bytes a second of large ones, and bytes that take a second of computing.
    package struct Link: Equatable {
        package var messages = RateHistory()
        package var bytes = RateHistory()
        package var processed = RateHistory()

        package init(
            messages: RateHistory = RateHistory(), bytes: RateHistory = RateHistory(),
            processed: RateHistory = RateHistory()
        ) {
            self.messages = messages
            self.bytes = bytes
            self.processed = processed
        }

        /// The link to believe in; nil where nothing is known.
        var link: Cluster.Link? {
            guard let messages = messages.best, let bytes = bytes.best else { return nil }
            return Cluster.Link(latency: 1 / messages, bandwidth: bytes, processing: processed.best.map { 1 / $0 } ?? 0)
        }

        mutating func add(_ link: Cluster.Link, at time: Double) {
            messages.add(1 / link.latency, at: time)
            bytes.add(link.bandwidth, at: time)
            // Where it takes nothing there is no rate.
            processed.add(1 / link.processing, at: time)
        }

        mutating func forget(at time: Double) {
            messages.forget(at: time)
            bytes.forget(at: time)
            processed.forget(at: time)
        }
    }

    /// Floating-point operations a second of each rank's attention.
    package var ranks: [RateHistory]
    /// Between two ranks of one host, and between two hosts.
    package var inside = Link()
    package var between = Link()

    /// Seconds after which links are measured again: they are not corrected by what runs show.
    static let linkLifetime = 600.0

    package init(rankCount: Int) { ranks = Array(repeating: RateHistory(), count: rankCount) }

    /// What to believe, rounded; nil where a rank's speed is not known.
    package var measurements: Measurements? {
        let flops = ranks.compactMap(\.best)
        guard flops.count == ranks.count else { return nil }
        return Measurements(flops: flops, inside: inside.link, between: between.link).rounded
    }

    /// Whether the links are to be measured again.
    func linksAreDue(at time: Double) -> Bool {
        let newest = [inside.messages.newest, between.messages.newest].compactMap { $0 }.min()
        return ranks.count > 1 && newest.map { time - $0 > Self.linkLifetime } ?? true
    }

    /// Takes into account what was measured; where ranks were not, their speeds are 0.
    package mutating func add(_ measured: Measurements, at time: Double) {
        precondition(measured.flops.count == ranks.count, "a speed for each rank")
        let measured = measured.rounded
        for (rank, flops) in measured.flops.enumerated() { ranks[rank].add(flops, at: time) }
        if let link = measured.inside { inside.add(link, at: time) }
        if let link = measured.between { between.add(link, at: time) }
    }

    /// Leaves out what is over a day old.
    package mutating func forget(at time: Double) {
        for rank in ranks.indices { ranks[rank].forget(at: time) }
        inside.forget(at: time)
        between.forget(at: time)
    }
}
