// The rates that a machine has shown lately, and the one of them to believe.

/// The rates at which one thing was seen to go: a rank's attention, a link's messages or its bytes.
///
/// Whatever disturbs a measurement slows it: a neighbour takes time and gives none. So the best of what was seen lately
/// is believed. A faster run corrects a slower one at once; a slower one counts when it is all that the last
/// ``length`` sightings, each a minute from the one before, have shown, or when the faster ones are a day old. Noise of
/// less than four minutes therefore changes nothing that was known before it, and what was first seen amid noise is
/// mended by the first run that is free of it.
package struct RateHistory: Equatable {
    /// What was seen within some time.
    package struct Sighting: Equatable {
        /// When the first of it was seen, in seconds since 1970.
        package let time: Double
        /// The best of it, a second.
        package var rate: Double

        package init(time: Double, rate: Double) {
            self.time = time
            self.rate = rate
        }
    }

    /// How many sightings are kept.
    package static let length = 5
    /// Seconds within which all that is seen is one sighting: a noisy minute is not to drive out what was seen before.
    package static let apart = 60.0
    /// Seconds after which a sighting is forgotten.
    package static let lifetime = 86_400.0

    /// Oldest first.
    package private(set) var sightings: [Sighting] = []

    package init() {}

    /// Of sightings that were kept; those that are no rates are left out.
    package init(_ kept: [Sighting]) {
        let rates = kept.filter { Self.isRate($0.rate) && $0.time.isFinite }
        sightings = rates.sorted { $0.time < $1.time }.suffix(Self.length)
    }

    /// The rate to believe; nil where nothing is known.
    package var best: Double? { sightings.map(\.rate).max() }

    /// When the newest sighting began.
    package var newest: Double? { sightings.last?.time }

    /// Takes a rate into account that was seen at some time; one that is not positive and finite tells nothing.
    package mutating func add(_ rate: Double, at time: Double) {
        guard Self.isRate(rate) else { return }
        if let last = sightings.last, abs(time - last.time) < Self.apart {
            sightings[sightings.count - 1].rate = max(last.rate, rate)
        } else {
            sightings.append(Sighting(time: time, rate: rate))
            sightings.removeFirst(max(0, sightings.count - Self.length))
        }
    }

    /// Leaves out what is over a day old, or was written by a clock that is ahead of this one.
    package mutating func forget(at time: Double) {
        sightings.removeAll { time - $0.time > Self.lifetime || $0.time - time >= Self.apart }
    }

    private static func isRate(_ value: Double) -> Bool { value > 0 && value.isFinite }
}
