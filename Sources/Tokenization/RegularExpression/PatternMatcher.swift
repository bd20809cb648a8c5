// Finds the matches of a regular expression in a text.

/// Matches a program by backtracking, on a stack of its own, and tries nothing twice.
///
/// Whether the rest of a pattern can be matched from a place does not depend on how one came there: there are no
/// back-references. So a choice that has failed at a place fails there again, in this search and in later ones, and the
/// work is at most the number of instructions times the places of the text.
struct PatternMatcher {
    private let program: PatternProgram
    private let text: PatternText

    private enum Choice {
        /// Go on at an instruction.
        case branch(instruction: Int, position: Int)
        /// A run that has matched up to `position` and may end anywhere down to `limit` (greedy) or up to it (lazy).
        case run(instruction: Int, position: Int, limit: Int)
        /// Where an atomic group began.
        case atomic
    }
    private var choices: [Choice] = []

    /// What is known of a run.
    private struct RunMemory {
        /// The maximal run of scalars of the set that was looked through last.
        var extent = 0..<0
        /// Ends from which the rest of the pattern is known to fail.
        var failed = 0..<0
    }
    private var runs: [RunMemory]

    /// Splits taken, by place and mark; empty until the first.
    private var marks: [UInt64] = []
    /// By lookahead, the places where it holds, once asked for.
    private var lookaheads: [[Bool]?]

    init(_ program: PatternProgram, _ text: PatternText) {
        self.program = program
        self.text = text
        runs = Array(repeating: RunMemory(), count: program.runCount)
        lookaheads = Array(repeating: nil, count: program.lookaheads.count)
    }

    /// The leftmost match that starts at `start` or behind.
    mutating func search(from start: Int) -> Range<Int>? {
        var position = start
        while position <= text.count {
            if let first = program.firstScalars {
                while position < text.count, !first.contains(text[position]) { position += 1 }
                if position == text.count { return nil }
            }
            if let end = match(at: position) {
                forgetMarks(at: end)
                return position..<end
            }
            position += 1
        }
        return nil
    }

    /// The end of the match that starts at `start`.
    private mutating func match(at start: Int) -> Int? {
        choices.removeAll(keepingCapacity: true)
        var instruction = 0
        var position = start
        while true {
            var fails = false
            switch program.instructions[instruction] {
            case .match: return position
            case .set(let set):
                if position < text.count, program.sets[set].contains(text[position]) {
                    position += 1
                } else {
                    fails = true
                }
            case .jump(let target):
                instruction = target
                continue
            case .split(let first, let second, let mark):
                if mark < 0 || setMark(mark, at: position) {
                    choices.append(.branch(instruction: second, position: position))
                    instruction = first
                    continue
                }
                fails = true
            case .run(let set, let minimum, let maximum, let greed, let memory):
                if let end = startRun(instruction, position, set, minimum, maximum, greed, memory) {
                    position = end
                } else {
                    fails = true
                }
            case .assertion(let assertion): fails = !text.holds(assertion, at: position)
            case .peek(let set, let negated):
                fails = (position < text.count && program.sets[set].contains(text[position])) == negated
            case .peekBehind(let set, let negated):
                fails = (position > 0 && program.sets[set].contains(text[position - 1])) == negated
            case .lookahead(let number, let negated): fails = holds(lookahead: number, at: position) == negated
            case .atomicStart: choices.append(.atomic)
            case .atomicEnd:
                while let choice = choices.popLast() { if case .atomic = choice { break } }
            }
            if !fails {
                instruction += 1
            } else if let (next, place) = backtrack() {
                instruction = next
                position = place
            } else {
                return nil
            }
        }
    }

    /// The latest choice that is left: where to go on.
    private mutating func backtrack() -> (instruction: Int, position: Int)? {
        while let choice = choices.popLast() {
            switch choice {
            case .branch(let instruction, let position): return (instruction, position)
            case .run(let instruction, let position, let limit):
                if let next = resumeRun(instruction, position, limit) { return (instruction + 1, next) }
            case .atomic: continue
            }
        }
        return nil
    }

    // MARK: Runs

    /// The first end of a run that starts at `position`, nil where none can lead to a match.
    private mutating func startRun(
        _ instruction: Int, _ position: Int, _ set: Int, _ minimum: Int, _ maximum: Int, _ greed: Pattern.Greed,
        _ memory: Int
    ) -> Int? {
        let longest = maximum < text.count - position ? position + maximum : text.count
        let bitmap = program.sets[set]
        let extent = runs[memory].extent
        var end = position
        while end < longest {
            if extent.contains(end) {
                end = min(longest, extent.upperBound)
                break
            }
            guard bitmap.contains(text[end]) else { break }
            end += 1
        }
        if end < longest || end == text.count {
            runs[memory].extent = (extent.contains(position) ? extent.lowerBound : position)..<end
        }
        guard end - position >= minimum else { return nil }
        let shortest = position + minimum
        switch greed {
        case .possessive: return end
        case .greedy: return offer(instruction, from: end, to: shortest, memory)
        case .lazy: return offer(instruction, from: shortest, to: end, memory)
        }
    }

    /// Chooses the end `first`, or the next towards `last` that is not known to fail, and leaves the rest as a choice.
    private mutating func offer(_ instruction: Int, from first: Int, to last: Int, _ memory: Int) -> Int? {
        let failed = runs[memory].failed
        let step = first <= last ? 1 : -1
        var end = first
        if failed.contains(end) { end = step > 0 ? failed.upperBound : failed.lowerBound - 1 }
        if step > 0 ? end > last : end < last { return nil }
        choices.append(.run(instruction: instruction, position: end, limit: last))
        return end
    }

    /// The rest of the pattern has failed from the end `position` of a run: notes it and chooses the next end.
    private mutating func resumeRun(_ instruction: Int, _ position: Int, _ limit: Int) -> Int? {
        guard case .run(_, _, _, let greed, let memory) = program.instructions[instruction] else { return nil }
        let failed = runs[memory].failed
        if position + 1 == failed.lowerBound, !failed.isEmpty {
            runs[memory].failed = position..<failed.upperBound
        } else if position == failed.upperBound, !failed.isEmpty {
            runs[memory].failed = failed.lowerBound..<position + 1
        } else {
            runs[memory].failed = position..<position + 1
        }
        guard position != limit else { return nil }
        return offer(instruction, from: greed == .lazy ? position + 1 : position - 1, to: limit, memory)
    }

    // MARK: Marks and lookahead

    /// Marks a split at a place; false where it was marked before.
    private mutating func setMark(_ mark: Int, at position: Int) -> Bool {
        if marks.isEmpty { marks = Array(repeating: 0, count: (text.count + 1) * program.markCount / 64 + 1) }
        let bit = position * program.markCount + mark
        if marks[bit / 64] >> UInt64(bit % 64) & 1 != 0 { return false }
        marks[bit / 64] |= 1 << UInt64(bit % 64)
        return true
    }

    /// The end of a match is where the next search may begin, and marks there are of choices that did not fail.
    private mutating func forgetMarks(at position: Int) {
        guard !marks.isEmpty else { return }
        for mark in 0..<program.markCount {
            let bit = position * program.markCount + mark
            marks[bit / 64] &= ~(1 << UInt64(bit % 64))
        }
    }

    private mutating func holds(lookahead number: Int, at position: Int) -> Bool {
        if let places = lookaheads[number] { return places[position] }
        let places = program.lookaheads[number].places(in: text)
        lookaheads[number] = places
        return places[position]
    }
}
