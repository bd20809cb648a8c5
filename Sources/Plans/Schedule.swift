// The steps of a rank while a strategy writes them down.

import Tiles

/// A rank's steps in the making: a strategy says what happens when, and `steps` is what follows from it.
struct Schedule {
    private let problem: AttentionProblem
    private let rank: Rank
    private var written: [Step]
    /// What ranks that share memory with this one read of what it received, step by step.
    private var lent: [[Payload]]
    /// Where the messages of each step and peer are.
    private var sent: [[Rank: Int]]
    private var received: [[Rank: Int]]

    init(_ problem: AttentionProblem, rank: Rank, stepCount: Int) {
        self.problem = problem
        self.rank = rank
        written = Array(repeating: Step(), count: stepCount)
        lent = Array(repeating: [], count: stepCount)
        sent = Array(repeating: [:], count: stepCount)
        received = sent
    }

    mutating func attend(_ units: Units, at time: Int) {
        if !units.isEmpty { written[time].attend.append(units) }
    }

    mutating func send(_ payload: Payload, to peer: Rank, at time: Int) {
        if !payload.isEmpty { Self.add(payload, peer, &written[time].sends, &sent[time]) }
    }

    mutating func receive(_ payload: Payload, from peer: Rank, at time: Int) {
        if !payload.isEmpty { Self.add(payload, peer, &written[time].receives, &received[time]) }
    }

    /// Keeps what this rank received until a step in which a mate reads it.
    mutating func lend(_ payload: Payload, at time: Int) {
        if !payload.isEmpty { lent[time].append(payload) }
    }

    /// Everything for one peer in one step is one message.
    private static func add(
        _ payload: Payload, _ peer: Rank, _ transfers: inout [Transfer], _ places: inout [Rank: Int]
    ) {
        if let place = places[peer] {
            transfers[place].payloads.append(payload)
        } else {
            places[peer] = transfers.count
            transfers.append(Transfer(peer: peer, payloads: [payload]))
        }
    }

    /// What was written, messages in their order, with the releases.
    var steps: [Step] {
        var steps = written
        for index in steps.indices {
            for place in steps[index].sends.indices { steps[index].sends[place].payloads.sort { $0.order < $1.order } }
            for place in steps[index].receives.indices {
                steps[index].receives[place].payloads.sort { $0.order < $1.order }
            }
        }
        var (receivedColumns, receivedRows): (ReceivedTiles, ReceivedTiles) = ([:], [:])
        for step in steps {
            for payload in step.receives.flatMap(\.payloads) {
                switch payload {
                case .columns(let tiles, let heads):
                    for head in heads { receivedColumns[head, default: []] += tiles.ranges }
                case .rows(let tiles, let heads): for head in heads { receivedRows[head, default: []] += tiles.ranges }
                case .rowResults, .columnResults: break
                }
            }
        }
        var columns = LastUses(receivedColumns)
        var rows = LastUses(receivedRows)
        for index in steps.indices.reversed() {
            for payload in steps[index].sends.flatMap(\.payloads) + lent[index] {
                switch payload {
                case .columns(let tiles, let heads): columns.use(tiles, heads)
                case .rows(let tiles, let heads): rows.use(tiles, heads)
                case .rowResults, .columnResults: break
                }
            }
            for units in steps[index].attend {
                columns.use(units.keys, problem.heads.keyValueHeads(of: units.heads))
                rows.use(units.queries, units.heads)
            }
            steps[index].release =
                columns.takeFresh().map { .columns($0.tiles, heads: $0.heads) }
                + rows.takeFresh().map { .rows($0.tiles, heads: $0.heads) }
        }
        return steps
    }
}

/// The runs of tiles that a rank receives, of each head.
private typealias ReceivedTiles = [Int: [Range<Int>]]

/// Which received tiles of which heads a later step still uses, as the steps are gone through from the last to the
/// first.
private struct LastUses {
    private let received: [Int: Runs]
    private var later: [Int: Runs] = [:]
    /// What the step at hand uses, of each range of heads.
    private var fresh: [Range<Int>: [Range<Int>]] = [:]

    init(_ received: ReceivedTiles) { self.received = received.mapValues { Runs($0) } }

    mutating func use(_ tiles: Runs, _ heads: Range<Int>) { fresh[heads, default: []] += tiles.ranges }

    /// What was used since the last call and by no later step; neighbouring heads with the same tiles together.
    mutating func takeFresh() -> [(tiles: Runs, heads: Range<Int>)] {
        var used: [Int: Runs] = [:]
        for (heads, ranges) in fresh {
            let tiles = Runs(ranges)
            for head in heads {
                guard let foreign = received[head]?.intersection(tiles), !foreign.isEmpty else { continue }
                used[head] = used[head]?.union(foreign) ?? foreign
            }
        }
        fresh.removeAll(keepingCapacity: true)
        var result: [(tiles: Runs, heads: Range<Int>)] = []
        for (head, tiles) in used.sorted(by: { $0.key < $1.key }) {
            let before = later[head] ?? Runs()
            let new = tiles.subtracting(before)
            if new.isEmpty { continue }
            later[head] = before.union(new)
            if let last = result.last, last.heads.upperBound == head, last.tiles == new {
                result[result.count - 1].heads = last.heads.lowerBound..<head + 1
            } else {
                result.append((new, head..<head + 1))
            }
        }
        return result
    }
}
