// When a rank did what: what a trace and a closing summary are made of.

import Synchronization

/// When a rank did what, by lanes, in bounded memory: where a lane is full its events merge, two by two.
///
/// An executor tells it of every step; a simulation fills one for each rank of a described cluster. Times are nanoseconds
/// since ``origin``.
public final class Timeline: Sendable {
    /// What a rank's time goes into. Spans of one lane do not overlap; those of several may.
    public enum Lane: Int, CaseIterable, Sendable {
        /// What the whole rank is busy with: reading, tokenizing, encoding, writing.
        case phase
        /// What works row by row: dense layers, norms, activations.
        case dense
        /// Units of attention, or of another tile operation.
        case compute
        /// Taking in what has arrived: results merge, what was narrowed is widened.
        case merge
        /// Nothing is left to compute, and messages or neighbours are waited for.
        case wait
        /// All ranks meet: agreements, gathers of numbers, barriers. Whoever is early waits here for the others.
        case meeting
        /// Messages under way, from where they are put together to where the last has arrived.
        case exchange

        /// As a trace calls it.
        public var name: String {
            switch self {
            case .phase: "phase"
            case .dense: "dense"
            case .compute: "compute"
            case .merge: "merge"
            case .wait: "wait"
            case .meeting: "meeting"
            case .exchange: "exchange"
            }
        }
    }

    /// A span of a lane, or several that were merged.
    public struct Event: Sendable, Hashable {
        /// What it was; the lane's name where different ones were merged.
        public var name: String
        /// Nanoseconds since the origin at which the first span began.
        public var start: Int
        /// Nanoseconds since the origin at which the last span ended.
        public var end: Int
        /// Nanoseconds of the spans themselves: less than `end` − `start` where several were merged.
        public var busy: Int
        /// How many spans it stands for.
        public var count = 1
        /// Bytes that were sent in it.
        public var bytes = 0
        /// The step or layer of the first span; negative where there is none.
        public var number = -1

        /// - Parameters:
        ///   - name: what it was.
        ///   - start: nanoseconds since the origin.
        ///   - end: nanoseconds since the origin, not before `start`.
        ///   - number: the step or layer; negative where there is none.
        ///   - bytes: bytes that were sent in it.
        public init(_ name: String, start: Int, end: Int, number: Int = -1, bytes: Int = 0) {
            self.name = name
            self.start = start
            self.end = max(start, end)
            self.number = number
            self.bytes = bytes
            busy = self.end - start
        }

        fileprivate mutating func absorb(_ next: Event, in lane: Lane) {
            if name != next.name { name = lane.name }
            end = max(end, next.end)
            busy += next.busy
            count += next.count
            bytes += next.bytes
        }
    }

    /// What all spans of one name take together.
    public struct Total: Sendable, Hashable {
        /// Nanoseconds.
        public var busy = 0
        /// How many spans there were.
        public var count = 0
        /// Bytes that were sent in them.
        public var bytes = 0

        /// Nothing yet.
        public init() {}
    }

    private struct Series {
        var events: [Event] = []
        /// How many spans an event stands for; the last may stand for fewer.
        var fold = 1
        var totals: [String: Total] = [:]

        mutating func add(_ event: Event, in lane: Lane, capacity: Int) {
            totals[event.name, default: Total()].busy += event.busy
            totals[event.name, default: Total()].count += 1
            totals[event.name, default: Total()].bytes += event.bytes
            if let last = events.indices.last, events[last].count < fold {
                events[last].absorb(event, in: lane)
                return
            }
            if events.count == capacity {
                for place in 0..<capacity / 2 {
                    events[place] = events[2 * place]
                    events[place].absorb(events[2 * place + 1], in: lane)
                }
                events.removeLast(capacity / 2)
                fold *= 2
            }
            events.append(event)
        }
    }

    private struct State {
        var series: [Series] = Lane.allCases.map { _ in Series() }
        var phase: (name: String, number: Int, start: Int)?
    }

    /// The moment from which times count.
    public let origin: ContinuousClock.Instant
    private let capacity: Int
    private let state = Mutex(State())

    /// - Parameters:
    ///   - capacity: the most events of a lane, an even number; a lane that has as many merges them two by two, and goes on
    ///     with events that stand for twice as many spans. Totals stay exact.
    ///   - origin: the moment from which times count.
    /// - Precondition: `capacity` is positive and even.
    public init(capacity: Int, origin: ContinuousClock.Instant = .now) {
        precondition(capacity > 0 && capacity % 2 == 0)
        self.capacity = capacity
        self.origin = origin
    }

    /// Nanoseconds from the origin to a moment.
    public func time(_ instant: ContinuousClock.Instant) -> Int {
        let (seconds, attoseconds) = (instant - origin).components
        return Int(seconds) * 1_000_000_000 + Int(attoseconds / 1_000_000_000)
    }

    /// Adds a span.
    /// - Parameters:
    ///   - event: begins no earlier than the last of its lane did.
    ///   - lane: what the time went into.
    public func add(_ event: Event, to lane: Lane) {
        state.withLock { $0.series[lane.rawValue].add(event, in: lane, capacity: capacity) }
    }

    /// Adds a span between two moments; nothing where there is no time between them.
    /// - Parameters:
    ///   - lane: what the time went into.
    ///   - name: what it was.
    ///   - start: when it began.
    ///   - end: when it was over.
    ///   - number: the step or layer; negative where there is none.
    ///   - bytes: bytes that were sent in it.
    public func add(
        _ lane: Lane, _ name: String, from start: ContinuousClock.Instant, to end: ContinuousClock.Instant,
        number: Int = -1, bytes: Int = 0
    ) {
        if end > start { add(Event(name, start: time(start), end: time(end), number: number, bytes: bytes), to: lane) }
    }

    /// Another phase begins, and the one before it ends. Any thread may say so; the same phase again changes nothing.
    /// - Parameters:
    ///   - name: what the rank is busy with from now on; nil: nothing more.
    ///   - number: the layer; negative where there is none.
    public func enter(_ name: String?, number: Int = -1) {
        let now = time(.now)
        state.withLock { state in
            if let phase = state.phase {
                if phase.name == name, phase.number == number { return }
                let event = Event(phase.name, start: phase.start, end: now, number: phase.number)
                state.series[Lane.phase.rawValue].add(event, in: .phase, capacity: capacity)
            }
            state.phase = name.map { ($0, number, now) }
        }
    }

    /// The events of a lane, in the order in which they began, and how many spans each stands for, the last perhaps fewer.
    public func events(_ lane: Lane) -> (events: [Event], fold: Int) {
        state.withLock { ($0.series[lane.rawValue].events, $0.series[lane.rawValue].fold) }
    }

    /// What the spans of a lane take together, by their names; exact also where events have merged.
    public func totals(_ lane: Lane) -> [String: Total] { state.withLock { $0.series[lane.rawValue].totals } }
}

extension Timeline? {
    /// Runs `body`; where there is a timeline, as a span of it.
    package func span(_ lane: Timeline.Lane, _ name: String, number: Int = -1, _ body: () throws -> Void) rethrows {
        guard let self else { return try body() }
        let start = ContinuousClock.now
        try body()
        self.add(lane, name, from: start, to: .now, number: number)
    }
}
