// A regular expression compiled to instructions for the matcher.

/// Instructions of a backtracking matcher.
///
/// Repetitions of a single class of scalars, which are most of what tokenizers have, are one instruction, and the
/// matcher knows how to remember their failures. All other choices are splits; those that a text can come to twice at
/// the same place carry a mark number, by which the matcher remembers them.
struct PatternProgram: Sendable {
    enum Instruction: Sendable {
        /// One scalar of the set of that number.
        case set(Int)
        /// As many scalars of the set as `greed` says; `memory` numbers what the matcher remembers of it.
        case run(set: Int, minimum: Int, maximum: Int, Pattern.Greed, memory: Int)
        /// First here, then there. The mark is −1 where none is needed.
        case split(Int, Int, mark: Int)
        case jump(Int)
        case assertion(Pattern.Assertion)
        /// Whether the next scalar is of the set; the end of the text counts as one that is not.
        case peek(set: Int, negated: Bool)
        /// The same of the scalar before.
        case peekBehind(set: Int, negated: Bool)
        case lookahead(Int, negated: Bool)
        case atomicStart
        case atomicEnd
        case match
    }

    private(set) var instructions: [Instruction] = []
    private(set) var sets: [ScalarBitmap] = []
    private(set) var lookaheads: [LookaheadAutomaton] = []
    private(set) var runCount = 0
    private(set) var markCount = 0
    /// The scalars that a match can begin with; nil where a match may be empty.
    private(set) var firstScalars: ScalarBitmap?

    private var knownSets: [ScalarSet: Int] = [:]

    /// Programs of more steps are refused: a match takes up to so many for every place of a text.
    /// What tokenizers use is far smaller.
    private static let stepLimit = 500
    /// Longer literals, and lookaheads that are larger together, are refused.
    private static let limit = 5000
    private static let mostAtomicChoices = 12

    init(_ pattern: Pattern) throws(PatternParser.Refusal) {
        try emit(pattern, isAtomic: false)
        instructions.append(.match)
        try numberMarks()
        if !pattern.matchesEmpty { firstScalars = ScalarBitmap(Self.first(pattern)) }
    }

    /// One scalar of each set, one after the other.
    init(literal sets: [ScalarSet]) throws(PatternParser.Refusal) {
        guard sets.count <= Self.limit else {
            throw PatternParser.Refusal(reason: "more than \(Self.limit) characters")
        }
        for set in sets { instructions.append(.set(number(of: set))) }
        instructions.append(.match)
        firstScalars = sets.first.map { ScalarBitmap($0) }
    }

    private mutating func number(of set: ScalarSet) -> Int {
        if let number = knownSets[set] { return number }
        knownSets[set] = sets.count
        sets.append(ScalarBitmap(set))
        return sets.count - 1
    }

    private mutating func emit(_ pattern: Pattern, isAtomic: Bool) throws(PatternParser.Refusal) {
        guard instructions.count <= Self.stepLimit else {
            throw PatternParser.Refusal(reason: "a pattern of more than \(Self.stepLimit) steps")
        }
        switch pattern {
        case .empty: break
        case .set(let set): instructions.append(.set(number(of: set)))
        case .sequence(let parts):
            for part in parts { try emit(part, isAtomic: isAtomic) }
        case .alternation(let alternatives):
            var jumps: [Int] = []
            for (index, alternative) in alternatives.enumerated() {
                guard index + 1 < alternatives.count else {
                    try emit(alternative, isAtomic: isAtomic)
                    break
                }
                let split = reserve()
                try emit(alternative, isAtomic: isAtomic)
                jumps.append(reserve())
                instructions[split] = .split(split + 1, instructions.count, mark: -1)
            }
            for jump in jumps { instructions[jump] = .jump(instructions.count) }
        case .repetition(.set(let set), let minimum, let maximum, let greed):
            instructions.append(
                .run(set: number(of: set), minimum: minimum, maximum: maximum ?? .max, greed, memory: runCount))
            runCount += 1
        case .repetition(let body, let minimum, let maximum, .possessive):
            try emit(.atomic(.repetition(body, minimum: minimum, maximum: maximum, .greedy)), isAtomic: isAtomic)
        case .repetition(let body, let minimum, let maximum, let greed):
            try emitRepetition(of: body, minimum, maximum, isLazy: greed == .lazy, isAtomic: isAtomic)
        case .assertion(let assertion): instructions.append(.assertion(assertion))
        case .look(.set(let set), let ahead, let negated):
            let number = number(of: set)
            instructions.append(
                ahead ? .peek(set: number, negated: negated) : .peekBehind(set: number, negated: negated))
        case .look(let body, true, let negated):
            instructions.append(.lookahead(lookaheads.count, negated: negated))
            lookaheads.append(try LookaheadAutomaton(body))
            guard lookaheads.reduce(0, { $0 + $1.size }) <= Self.limit else {
                throw PatternParser.Refusal(reason: "lookaheads of more than \(Self.limit) steps together")
            }
        case .look: throw PatternParser.Refusal(reason: "a lookbehind of more than one character")
        case .atomic(let body):
            instructions.append(.atomicStart)
            try emit(body, isAtomic: true)
            instructions.append(.atomicEnd)
        }
    }

    private mutating func reserve() -> Int {
        instructions.append(.match)
        return instructions.count - 1
    }

    private mutating func emitRepetition(
        of body: Pattern, _ minimum: Int, _ maximum: Int?, isLazy: Bool, isAtomic: Bool
    ) throws(PatternParser.Refusal) {
        for _ in 0..<minimum { try emit(body, isAtomic: isAtomic) }
        var exits: [Int] = []
        if let maximum {
            for _ in minimum..<maximum {
                exits.append(reserve())
                try emit(body, isAtomic: isAtomic)
            }
        } else {
            // Oniguruma leaves the loop behind such a turn, which needs to know where the turn began.
            if body.matchesEmpty {
                throw PatternParser.Refusal(reason: "an unlimited repetition of what may match nothing")
            }
            // What is remembered of a loop would cross the border of the atomic group.
            if isAtomic {
                throw PatternParser.Refusal(reason: "an atomic or possessive group with a repeated group in it")
            }
            let loop = reserve()
            try emit(body, isAtomic: isAtomic)
            instructions.append(.jump(loop))
            exits.append(loop)
        }
        for exit in exits {
            instructions[exit] =
                isLazy ? .split(instructions.count, exit + 1, mark: -1) : .split(exit + 1, instructions.count, mark: -1)
        }
    }

    /// Gives a mark to every split that can be come to twice at one place: those that something can be matched before,
    /// those of loops, and those behind alternatives that may all match nothing. Within atomic groups there is none,
    /// because what fails there may not fail elsewhere; so there may be few splits, each of which may double the work.
    private mutating func numberMarks() throws(PatternParser.Refusal) {
        var isReachable = [Bool](repeating: false, count: instructions.count)
        var work: [Int] = []
        var ways = [Int](repeating: 0, count: instructions.count)
        for (index, instruction) in instructions.enumerated() {
            switch instruction {
            case .match: break
            case .jump(let target): ways[target] += 1
            case .split(let first, let second, _):
                ways[first] += 1
                ways[second] += 1
            default: ways[index + 1] += 1
            }
        }
        for (index, instruction) in instructions.enumerated() {
            switch instruction {
            case .set, .run: work.append(index + 1)
            case .jump(let target) where target <= index: work.append(target)
            default: break
            }
            if ways[index] > 1 { work.append(index) }
        }
        while let index = work.popLast() {
            if isReachable[index] { continue }
            isReachable[index] = true
            switch instructions[index] {
            case .match: break
            case .jump(let target): work.append(target)
            case .split(let first, let second, _): work += [first, second]
            default: work.append(index + 1)
            }
        }
        var depth = 0
        var choices = 0
        for (index, instruction) in instructions.enumerated() {
            switch instruction {
            case .atomicStart:
                if depth == 0 { choices = 0 }
                depth += 1
            case .atomicEnd: depth -= 1
            case .split where depth > 0:
                choices += 1
                guard choices <= Self.mostAtomicChoices else {
                    throw PatternParser.Refusal(
                        reason: "an atomic or possessive group of more than \(Self.mostAtomicChoices) alternatives")
                }
            case .split(let first, let second, _) where depth == 0 && isReachable[index]:
                instructions[index] = .split(first, second, mark: markCount)
                markCount += 1
            default: break
            }
        }
    }

    /// The scalars that a match of a pattern can begin with.
    private static func first(_ pattern: Pattern) -> ScalarSet {
        switch pattern {
        case .empty, .assertion, .look: ScalarSet()
        case .set(let set): set
        case .alternation(let parts): parts.reduce(ScalarSet()) { $0.union(first($1)) }
        case .repetition(let part, _, _, _), .atomic(let part): first(part)
        case .sequence(let parts):
            parts.prefix((parts.firstIndex { !$0.matchesEmpty } ?? parts.count - 1) + 1).reduce(ScalarSet()) {
                $0.union(first($1))
            }
        }
    }
}
