// How far the attention of a document moves where one of its tokens is edited.

import Matrices
import RingAttention
import Transformers

/// Where the tokens of a document are once one of them is edited.
struct EditedPlaces {
    let edit: ProbeEdit
    /// The token that is edited.
    let token: Int

    /// Where a token of the original is; nil where it was left out. What takes a token's place counts as that token.
    func place(of original: Int) -> Int? {
        switch edit {
        case .mask, .noise: original
        case .drop: original == token ? nil : original < token ? original : original - 1
        case .swap: original == token ? token + 1 : original == token + 1 ? token : original
        }
    }
}

/// The attention of one layer over a document, as far as documents are compared by it.
struct AttentionSummary {
    let tokens: Int
    /// (heads, tokens): what each token receives of all queries.
    var mass: [Float]
    /// (heads, tokens): that of each query's weights, in nats.
    var entropy: [Float]

    init(tokens: Int, heads: Int) {
        self.tokens = tokens
        mass = [Float](repeating: 0, count: heads * tokens)
        entropy = mass
    }

    /// ½·Σ |s − s′| over the tokens, s being a token's share of all mass that a head's keys receive, and s′ that in the
    /// edited document, 0 where it was left out: the total variation distance of the two, from 0, nothing has moved,
    /// to 1, all has.
    func massDistance(head: Int, to edited: AttentionSummary, _ places: EditedPlaces) -> Float {
        let (first, editedFirst) = (head * tokens, head * edited.tokens)
        let (whole, editedWhole) = (total(head), edited.total(head))
        var sum = 0.0
        for token in 0..<tokens {
            let share = whole == 0 ? 0 : Double(mass[first + token]) / whole
            var editedShare = 0.0
            if let place = places.place(of: token), editedWhole != 0 {
                editedShare = Double(edited.mass[editedFirst + place]) / editedWhole
            }
            sum += abs(share - editedShare)
        }
        return Float(sum / 2)
    }

    /// The mean of |h − h′| over the queries that both documents have, h being the entropy of a query's weights; in nats.
    func entropyChange(head: Int, to edited: AttentionSummary, _ places: EditedPlaces) -> Float {
        let (first, editedFirst) = (head * tokens, head * edited.tokens)
        var (sum, count) = (0.0, 0)
        for token in 0..<tokens {
            guard let place = places.place(of: token) else { continue }
            sum += abs(Double(entropy[first + token]) - Double(edited.entropy[editedFirst + place]))
            count += 1
        }
        return Float(sum / Double(count))
    }

    private func total(_ head: Int) -> Double {
        var sum = 0.0
        for place in head * tokens..<(head + 1) * tokens { sum += Double(mass[place]) }
        return sum
    }
}

/// Compares each layer of edited documents with that of their originals, as they are run. On rank 0.
final class AttentionShifts {
    /// One document's: (layers, heads, tokens) each, NaN where a token was left alone.
    struct Shifts {
        var massDistances: [Float]
        var entropyChanges: [Float]
    }

    private let layers: [Int]
    private let heads: [Int]
    private let session: Session
    /// Of every item that is run, its document, and the token that is edited in it; nil: none.
    private let edits: [(document: Int, places: EditedPlaces?)]
    /// Of each layer, the last original that was run.
    private var originals: [AttentionSummary?]
    /// Those of every document.
    private(set) var shifts: [Shifts]

    /// - Parameters:
    ///   - layers: those that are observed, ascending.
    ///   - heads: those of a layer that are.
    ///   - tokens: of each document.
    ///   - edits: of every item in turn: a document's original comes before what is made of it.
    init(
        layers: [Int], heads: [Int], tokens: [Int], edits: [(document: Int, places: EditedPlaces?)], _ session: Session
    ) {
        (self.layers, self.heads, self.edits, self.session) = (layers, heads, edits, session)
        originals = Array(repeating: nil, count: layers.count)
        let isRoot = session.isRoot
        shifts = tokens.map {
            let none = [Float](repeating: .nan, count: isRoot ? layers.count * heads.count * $0 : 0)
            return Shifts(massDistances: none, entropyChanges: none)
        }
    }

    /// Takes one layer of a batch in. Collective.
    func take(_ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer) throws {
        guard let place = layers.firstIndex(of: layer.layer) else { return }
        let found = try summaries(run, items, layer)
        guard session.isRoot else { return }
        for (sequence, item) in items.enumerated() {
            let (document, places) = edits[item]
            guard let places else {
                originals[place] = found[sequence]
                continue
            }
            guard let original = originals[place] else { continue }
            for head in heads.indices {
                let at = (place * heads.count + head) * original.tokens + places.token
                shifts[document].massDistances[at] = original.massDistance(head: head, to: found[sequence], places)
                shifts[document].entropyChanges[at] = original.entropyChange(head: head, to: found[sequence], places)
            }
        }
    }

    /// What a batch's documents have of a layer, on rank 0. Collective.
    private func summaries(_ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer) throws -> [AttentionSummary]
    {
        guard let mass = layer.receivedMass else { return [] }
        var mine: [(span: Int, vector: [Float])] = []
        withExtendedLifetime(layer) {
            for tile in run.tiles {
                var values: [Float] = []
                values.reserveCapacity(2 * heads.count * tile.tokens.count)
                for buffer in [mass, layer.entropy] {
                    for head in heads {
                        values += UnsafeBufferPointer(
                            start: buffer.pointer + head * layer.rows + tile.firstRow, count: tile.tokens.count)
                    }
                }
                mine.append((tile.number, values))
            }
        }
        let numbering = run.sharding.numbering
        let all = try session.gather(mine)
        guard session.isRoot else { return [] }
        var found = items.indices.map {
            AttentionSummary(tokens: numbering.lengths[$0 - items.lowerBound], heads: heads.count)
        }
        for (tile, values) in all {
            let (sequence, tokens) = (numbering.sequence(of: tile), numbering.tokens(of: tile))
            for head in heads.indices {
                let target = head * found[sequence].tokens + tokens.lowerBound
                for row in 0..<tokens.count {
                    found[sequence].mass[target + row] = values[head * tokens.count + row]
                    found[sequence].entropy[target + row] = values[(heads.count + head) * tokens.count + row]
                }
            }
        }
        return found
    }
}
