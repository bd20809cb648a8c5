// When a step of a plan was where: what a rank's timeline is told.

import Plans

/// The moments of one step, in the order in which they come.
struct StepTimes {
    /// The step before it was done.
    let reached: ContinuousClock.Instant
    /// What its messages carry was there, and room for what arrives.
    var begun: ContinuousClock.Instant
    /// Its messages were posted.
    var posted: ContinuousClock.Instant
    /// What its units read of neighbours' memory was there.
    var ready: ContinuousClock.Instant
    /// Its units were computed.
    var computed: ContinuousClock.Instant
    /// All messages had arrived.
    var arrived: ContinuousClock.Instant

    /// A step begins.
    init() {
        reached = .now
        (begun, posted, ready, computed, arrived) = (reached, reached, reached, reached, reached)
    }
}

extension Timeline {
    /// Adds a step that is done now.
    func add(_ times: StepTimes, _ number: Int, _ step: Step, _ plan: Plan) {
        let name = plan.problem.operation.name
        let (readsNeighbours, hasMessages) = (
            plan.problem.topology.isShared, !step.sends.isEmpty || !step.receives.isEmpty
        )
        if readsNeighbours {
            add(.wait, "neighbours", from: times.reached, to: times.begun, number: number)
            add(.wait, "neighbours", from: times.posted, to: times.ready, number: number)
        }
        if hasMessages {
            let bytes = step.sends.reduce(0) { $0 + $1.payloads.reduce(0) { $0 + plan.bytes(of: $1) } }
            add(.exchange, name, from: times.begun, to: times.arrived, number: number, bytes: bytes)
            add(.wait, "messages", from: times.computed, to: times.arrived, number: number)
        }
        add(.compute, name, from: times.ready, to: times.computed, number: number)
        add(.merge, name, from: times.arrived, to: .now, number: number)
    }
}
