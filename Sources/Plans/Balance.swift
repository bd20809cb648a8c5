// The balanced layout: sequences dealt out so that every rank's modelled load is level.

/// Loads being filled up, the costliest sequence first.
///
/// Whole sequences need no exchange: each goes to the rank that stands lowest, as in Graham's longest-processing-time
/// rule (1969). Where that leaves the ranks uneven, long ones are poured over the ranks up to a common level instead.
struct Balance {
    private let speeds: [Double]
    private let tokens: [Int]
    private let weights: [Double]
    private var loads: [Double]
    private var held: [Int]
    private let cap: Double
    private let mean: Double

    /// A sequence that costs less than this part of a mean load is never split.
    private static let shortSequence = 0.02
    /// Ranks are level where the highest stands at most this part of a mean load above it.
    private static let unevenness = 0.01

    /// - Parameters:
    ///   - tokens, weights: tokens and cost at each place of the layout's order.
    init(speeds: [Double], tokens: [Int], weights: [Double]) {
        self.speeds = speeds
        self.tokens = tokens
        self.weights = weights
        loads = Array(repeating: 0, count: speeds.count)
        held = Array(repeating: 0, count: speeds.count)
        // With fewer tiles than ranks the mean is less than a tile: a rank has room for one all the same.
        cap = max(Sharding.tokenCap * Double(tokens.reduce(0, +)) / Double(speeds.count), Double(tokens.max() ?? 0))
        mean = weights.reduce(0, +) / speeds.reduce(0, +)
    }

    /// The rank of every place.
    /// - Parameter sequences: the places of each sequence.
    func owners(sequences: [Range<Int>]) -> [Int] {
        var whole = self
        let owners = whole.deal(sequences, wholeBelow: .infinity)
        if zip(whole.loads, speeds).allSatisfy({ $0 / $1 <= (1 + Self.unevenness) * mean }),
            whole.held.allSatisfy({ Double($0) <= cap })
        {
            return owners
        }
        var poured = self
        return poured.deal(sequences, wholeBelow: Self.shortSequence * weights.reduce(0, +) / Double(speeds.count))
    }

    private mutating func deal(_ sequences: [Range<Int>], wholeBelow: Double) -> [Int] {
        var owners = Array(repeating: 0, count: tokens.count)
        let costs = sequences.map { weights[$0].reduce(0, +) }
        for sequence in sequences.indices.sorted(by: { (costs[$1], $0) < (costs[$0], $1) }) {
            let places = sequences[sequence]
            if places.count <= 1 || costs[sequence] <= wholeBelow {
                let rank = lowest(cost: costs[sequence], tokens: tokens[places].reduce(0, +))
                for place in places { owners[place] = rank }
            } else {
                pour(places, cost: costs[sequence], into: &owners)
            }
            for place in places {
                loads[owners[place]] += weights[place]
                held[owners[place]] += tokens[place]
            }
        }
        return owners
    }

    /// The rank that would stand lowest with a sequence more, of those that have room for its tokens.
    private func lowest(cost: Double, tokens: Int) -> Int {
        func height(_ rank: Int) -> Double { (loads[rank] + cost) / speeds[rank] }
        let open = speeds.indices.filter { Double(held[$0] + tokens) <= cap }
        return (open.isEmpty ? Array(speeds.indices) : open).min { (height($0), $0) < (height($1), $1) } ?? 0
    }

    /// Gives each rank a stretch of a sequence, so much that all come up to one level.
    private func pour(_ places: Range<Int>, cost: Double, into owners: inout [Int]) {
        // The level at which what is missing below it, over the ranks that stand lower, sums to the cost.
        let order = speeds.indices.sorted { loads[$0] / speeds[$0] < loads[$1] / speeds[$1] }
        var level = 0.0
        var load = cost
        var speed = 0.0
        for (number, rank) in order.enumerated() {
            load += loads[rank]
            speed += speeds[rank]
            level = load / speed
            if number + 1 < order.count, level <= loads[order[number + 1]] / speeds[order[number + 1]] { break }
        }
        var ends: [Double] = []
        for rank in speeds.indices { ends.append((ends.last ?? 0) + max(0, level * speeds[rank] - loads[rank])) }
        var before = 0.0
        var rank = 0
        var taken = Array(repeating: 0, count: speeds.count)
        for place in places {
            // A tile goes where its middle falls; one that a rank has no room for goes on.
            let middle = before + weights[place] / 2
            while rank + 1 < speeds.count,
                ends[rank] <= middle || Double(held[rank] + taken[rank] + tokens[place]) > cap
            { rank += 1 }
            owners[place] = rank
            taken[rank] += tokens[place]
            before += weights[place]
        }
        // What went on to a full last rank moves back, each tile to the rank before.
        for rank in speeds.indices.dropFirst().reversed() {
            var place = places.first { owners[$0] >= rank } ?? places.upperBound
            while place < places.upperBound, owners[place] == rank, Double(held[rank] + taken[rank]) > cap {
                owners[place] = rank - 1
                taken[rank] -= tokens[place]
                taken[rank - 1] += tokens[place]
                place += 1
            }
        }
    }
}
