// A monitor that also keeps a rank's timeline.

import Plans

/// Tells a timeline and a log of each phase that the work comes to, and whoever watched before of everything.
struct TimedMonitor: Monitor {
    let base: any Monitor
    let timeline: Timeline?
    let log: RankLog?

    private static let names = Phase.allCases.map { "\($0.name)" }

    func progress(_ phase: Phase, layer: Int, tile: Int) {
        let name = Self.names[phase.rawValue]
        timeline?.enter(name, number: layer)
        log?.enter(name)
        base.progress(phase, layer: layer, tile: tile)
    }

    func progress() { base.progress() }
    func beginWaiting() { base.beginWaiting() }
    func endWaiting() { base.endWaiting() }
}
