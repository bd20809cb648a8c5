// What a job tells whoever watches over it.

/// What a rank is busy with.
package enum Phase: Int, CaseIterable, Sendable {
    case starting, reading, tokenizing, planning, encoding, attention, dense, pooling, writing, finishing

    /// As reports call it; text that a crash can use.
    package var name: StaticString {
        switch self {
        case .starting: "starting"
        case .reading: "reading"
        case .tokenizing: "tokenizing"
        case .planning: "planning"
        case .encoding: "encoding"
        case .attention: "attention"
        case .dense: "dense"
        case .pooling: "pooling"
        case .writing: "writing"
        case .finishing: "finishing"
        }
    }
}

/// Told of every step of a rank's work, from any thread, by calls that cost next to nothing.
package protocol Monitor: Sendable {
    /// The work has come to a step. Layers and tiles count from 1 and 0; negative where there is none.
    func progress(_ phase: Phase, layer: Int, tile: Int)
    /// The work moves, at the step it was at.
    func progress()
    /// From here on the work may stand still for as long as it likes: it waits for a reader, or for a person.
    func beginWaiting()
    /// The wait that began last is over.
    func endWaiting()
}

extension Monitor {
    package func progress(_ phase: Phase, layer: Int = -1) { progress(phase, layer: layer, tile: -1) }

    /// Runs `body`, which may stand still for as long as it likes.
    package func whileWaiting<Result>(_ body: () throws -> Result) rethrows -> Result {
        beginWaiting()
        defer { endWaiting() }
        return try body()
    }
}

/// Shows how far a long piece of work has come.
package protocol ProgressDisplay: AnyObject {
    func advance(to done: Int)
    func finish(done: Int)
}

/// Nobody watches.
package struct Unwatched: Monitor {
    package init() {}

    package func progress(_ phase: Phase, layer: Int, tile: Int) {}
    package func progress() {}
    package func beginWaiting() {}
    package func endWaiting() {}
}

/// Nobody looks.
package final class NoDisplay: ProgressDisplay {
    package init() {}

    package func advance(to done: Int) {}
    package func finish(done: Int) {}
}
