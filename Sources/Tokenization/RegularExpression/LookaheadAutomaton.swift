// Lookahead of any kind, decided for all places of a text at once.

/// A finite automaton that tells at which places of a text a pattern matches what follows.
///
/// Run from the end of the text to its start: the states from which the rest can be matched at one place follow from
/// those at the next, so the time is the text's length times the automaton's size, whatever the pattern.
struct LookaheadAutomaton: Sendable {
    private enum State: Sendable {
        case set(ScalarBitmap, next: Int)
        case split(Int, Int)
        case assertion(Pattern.Assertion, next: Int)
        case peek(ScalarBitmap, ahead: Bool, negated: Bool, next: Int)
        case accept
    }

    /// Every state comes behind those that it leads to, but for loops.
    private var states: [State] = [.accept]
    private var start = 0
    private var hasLoops = false

    private static let limit = 1000

    /// The states, each of which takes time at every place of a text.
    var size: Int { states.count }

    init(_ pattern: Pattern) throws(PatternParser.Refusal) {
        start = try add(pattern, next: 0)
    }

    /// Adds states that match `pattern` and then go on at `next`; returns the first.
    private mutating func add(_ pattern: Pattern, next: Int) throws(PatternParser.Refusal) -> Int {
        guard states.count <= Self.limit else {
            throw PatternParser.Refusal(reason: "a lookahead of more than \(Self.limit) steps")
        }
        switch pattern {
        case .empty: return next
        case .set(let set): return add(.set(ScalarBitmap(set), next: next))
        case .sequence(let parts):
            var next = next
            for part in parts.reversed() { next = try add(part, next: next) }
            return next
        case .alternation(let alternatives):
            var first: Int?
            for alternative in alternatives.reversed() {
                let state = try add(alternative, next: next)
                if let other = first { first = add(.split(state, other)) } else { first = state }
            }
            return first ?? next
        case .repetition(_, _, _, .possessive), .atomic:
            throw PatternParser.Refusal(reason: "an atomic group in a lookahead")
        case .repetition(let body, let minimum, let maximum, _):
            var next = next
            if let maximum {
                let end = next
                for _ in minimum..<maximum { next = add(.split(try add(body, next: next), end)) }
            } else {
                hasLoops = true
                let loop = add(.split(next, next))
                states[loop] = .split(try add(body, next: loop), next)
                next = loop
            }
            for _ in 0..<minimum { next = try add(body, next: next) }
            return next
        case .assertion(let assertion): return add(.assertion(assertion, next: next))
        case .look(.set(let set), let ahead, let negated):
            return add(.peek(ScalarBitmap(set), ahead: ahead, negated: negated, next: next))
        case .look: throw PatternParser.Refusal(reason: "a lookaround of more than one character in a lookahead")
        }
    }

    private mutating func add(_ state: State) -> Int {
        states.append(state)
        return states.count - 1
    }

    /// For each place of the text, its end included, whether the pattern matches what follows.
    func places(in text: PatternText) -> [Bool] {
        var result = [Bool](repeating: false, count: text.count + 1)
        var behind = [Bool](repeating: false, count: states.count)
        var here = behind
        for position in stride(from: text.count, through: 0, by: -1) {
            for index in here.indices { here[index] = false }
            // A loop's state comes before its body: then a second round carries what the first found, until nothing
            // does.
            var hasChanged = true
            while hasChanged {
                hasChanged = false
                for (index, state) in states.enumerated() where !here[index] {
                    here[index] = holds(state, at: position, text, here, behind)
                    if here[index], hasLoops { hasChanged = true }
                }
            }
            result[position] = here[start]
            swap(&here, &behind)
        }
        return result
    }

    private func holds(_ state: State, at position: Int, _ text: PatternText, _ here: [Bool], _ behind: [Bool]) -> Bool
    {
        switch state {
        case .accept: true
        case .set(let set, let next): position < text.count && behind[next] && set.contains(text[position])
        case .split(let first, let second): here[first] || here[second]
        case .assertion(let assertion, let next): here[next] && text.holds(assertion, at: position)
        case .peek(let set, true, let negated, let next):
            here[next] && (position < text.count && set.contains(text[position])) != negated
        case .peek(let set, false, let negated, let next):
            here[next] && (position > 0 && set.contains(text[position - 1])) != negated
        }
    }
}
