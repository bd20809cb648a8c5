// Which examples make up which step: a permutation for every epoch, cut into steps by tokens.

import Tiles

/// An example of a training, by its task and its place in the task's file.
public struct ExampleNumber: Hashable, Sendable {
    /// The task, counted from 0.
    public let task: Int
    /// The example's place among those of the task.
    public let example: Int

    /// The example of that task and place.
    public init(task: Int, example: Int) {
        self.task = task
        self.example = example
    }
}

/// The order in which examples are seen, by a seed alone: neither ranks nor threads change it.
///
/// Every epoch has every example once. A task's examples come in the order of 64 random bits each
/// (`CountedDraws(seed:step:site:head:)` with the epoch as step, `shuffling` as site and the task as head; the state of
/// row 0 of the example as document), those of equal bits by their place. Tasks are merged so that all come to their end
/// together: the i-th of n examples stands at (i + ½)/n of the epoch, of equal places the first task's first. The
/// sequence is then cut into steps of as many whole examples as fit into the step's tokens, at least one.
public struct StepOrder: Sendable {
    /// The tokens of every example, by task.
    public let lengths: [[Int]]
    /// Tokens that a step has at most, unless a single example is longer.
    public let stepTokens: Int
    /// What the order follows from.
    public let seed: UInt64

    /// - Parameters:
    ///   - lengths: the tokens of every example, by task.
    ///   - stepTokens: tokens that a step has at most.
    ///   - seed: what the order follows from.
    public init(lengths: [[Int]], stepTokens: Int, seed: UInt64) {
        self.lengths = lengths
        self.stepTokens = stepTokens
        self.seed = seed
    }

    /// The examples of an epoch, in order.
    public func examples(epoch: Int) -> [ExampleNumber] {
        var placed: [(place: Double, number: ExampleNumber)] = []
        for (task, lengths) in lengths.enumerated() {
            let draws = CountedDraws(seed: seed, step: epoch, site: .shuffling, head: task)
            let keys = lengths.indices.map { draws.state(document: $0, row: 0) }
            let order = lengths.indices.sorted { (keys[$0], $0) < (keys[$1], $1) }
            for (rank, example) in order.enumerated() {
                placed.append(
                    ((Double(rank) + 0.5) / Double(order.count), ExampleNumber(task: task, example: example)))
            }
        }
        // Examples of a task come in their order already, so a task and a place tell all.
        placed.sort { ($0.place, $0.number.task) < ($1.place, $1.number.task) }
        return placed.map(\.number)
    }

    /// The steps of an epoch.
    public func steps(epoch: Int) -> [[ExampleNumber]] {
        var steps: [[ExampleNumber]] = []
        var tokens = 0
        for number in examples(epoch: epoch) {
            let length = lengths[number.task][number.example]
            if steps.isEmpty || tokens + length > stepTokens {
                steps.append([])
                tokens = 0
            }
            steps[steps.count - 1].append(number)
            tokens += length
        }
        return steps
    }
}

/// A step's parts that go through the model one after the other: runs of its documents of about as many tokens each.
/// - Parameters:
///   - lengths: the tokens of the step's documents.
///   - groups: documents that stay together, as the two texts of a pair: how many each takes, in order.
///   - count: how many parts there are to be; there are fewer where nothing falls into one.
public func microBatches(lengths: [Int], groups: [Int], count: Int) -> [Range<Int>] {
    let total = max(1, lengths.reduce(0, +))
    var batches: [Range<Int>] = []
    var (next, before, last) = (0, 0, -1)
    for group in groups {
        let size = lengths[next..<next + group].reduce(0, +)
        // A group goes where its middle falls.
        let batch = min(count - 1, (2 * before + size) * count / (2 * total))
        if batch == last {
            batches[batches.count - 1] = batches[batches.count - 1].lowerBound..<next + group
        } else {
            batches.append(next..<next + group)
            last = batch
        }
        before += size
        next += group
    }
    return batches
}
