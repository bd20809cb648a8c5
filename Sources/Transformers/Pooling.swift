// From hidden states to vectors: spans of tokens pooled on the fixed tree.

import Checkpoints
import Matrices
import RingAttention
import Tiles

/// Consecutive tokens of one document that become one vector.
public struct Span: Sendable, Hashable {
    /// The document's place in its batch.
    public let sequence: Int
    /// Positions in the document; not empty.
    public let tokens: Range<Int>
    /// Tokens before the first that do not count, and yet have had their weights: those of a prompt.
    public let skipped: Int

    /// - Precondition: `tokens` is not empty.
    public init(sequence: Int, tokens: Range<Int>, skipped: Int = 0) {
        precondition(!tokens.isEmpty, "a span holds at least one token")
        self.sequence = sequence
        self.tokens = tokens
        self.skipped = skipped
    }
}

/// The pooled hidden states of the tokens of a span inside one tile, or of several tiles merged.
struct PooledPart: Mergeable {
    let mode: PoolingMode
    var values: [Float]

    mutating func merge(right: PooledPart) {
        for column in values.indices {
            switch mode {
            case .max: values[column] = Swift.max(values[column], right.values[column])
            default: values[column] += right.values[column]
            }
        }
    }
}

extension EncoderRun {
    /// Pools every span; the vector of a span is returned on the rank that holds its first token. Collective.
    /// - Returns: (index of the span, hiddenSize values), in ascending order of the spans.
    /// - Throws: what the transport throws.
    public func pool(_ spans: [Span], mode: PoolingMode, transport: any Transport) throws -> [(
        span: Int, vector: [Float]
    )] {
        try pooledParts(spans, mode: mode, transport: transport).map { home in
            var forest = MergeForest<PooledPart>(tiles: Runs(home.parts.map { $0.tile..<$0.tile + 1 }))
            for part in home.parts { forest.insert(part.part, tile: part.tile) }
            guard let root = forest.root else { preconditionFailure("every part has arrived") }
            let divisor = mode.divisor(spans[home.span])
            return (home.span, divisor == 1 ? root.values : root.values.map { $0 / divisor })
        }
    }

    /// The parts of every span that is at home on this rank, of all its tiles from the first to the last. Collective.
    func pooledParts(_ spans: [Span], mode: PoolingMode, transport: any Transport) throws -> [(
        span: Int, parts: [(tile: Int, part: PooledPart)]
    )] {
        let width = encoder.configuration.hiddenSize
        let mine = transport.rank
        let localTiles = Dictionary(uniqueKeysWithValues: tiles.map { ($0.number, $0) })
        var homes: [(span: Int, parts: [(tile: Int, part: PooledPart)])] = []
        // Leaves of spans at home elsewhere leave in one message a rank; both sides list them in the same order.
        var leaving: [Rank: [Float]] = [:]
        var arriving: [Rank: [(home: Int, tile: Int)]] = [:]
        for (index, span) in spans.enumerated() {
            let first = sharding.numbering.firstTile[span.sequence]
            let covered = mode.tokens(of: span.tokens)
            let home = home(of: span)
            if home == mine { homes.append((index, [])) }
            for tile in TileGrid.tiles(covering: covered) {
                if let local = localTiles[first + tile] {
                    let part = leaf(local, covered.clamped(to: local.tokens), span: span, mode: mode)
                    if home == mine {
                        homes[homes.count - 1].parts.append((tile, part))
                    } else {
                        leaving[home, default: []] += part.values
                    }
                } else if home == mine {
                    arriving[sharding.owner(of: first + tile), default: []].append((homes.count - 1, tile))
                }
            }
        }
        let arrived = try exchange(
            leaving, arriving: arriving.mapValues { $0.count * width }, transport: transport)
        for (source, leaves) in arriving {
            for (place, leaf) in leaves.enumerated() {
                let values = Array((arrived[source] ?? [])[place * width..<(place + 1) * width])
                homes[leaf.home].parts.append((leaf.tile, PooledPart(mode: mode, values: values)))
            }
        }
        for home in homes.indices { homes[home].parts.sort { $0.tile < $1.tile } }
        return homes
    }

    /// The rank that holds a span's first token.
    func home(of span: Span) -> Rank {
        sharding.owner(
            of: sharding.numbering.firstTile[span.sequence] + span.tokens.lowerBound / TileGrid.tileSize)
    }

    /// Sends floats to some ranks and receives those of others. Collective.
    /// - Parameter arriving: how many floats come from whom.
    func exchange(_ leaving: [Rank: [Float]], arriving: [Rank: Int], transport: any Transport) throws -> [Rank: [Float]]
    {
        let sources = arriving.keys.sorted()
        let targets = leaving.keys.sorted()
        let inbox = sources.map { AlignedBuffer(count: arriving[$0] ?? 0) }
        let outbox = targets.map { rank in
            let values = leaving[rank] ?? []
            let buffer = AlignedBuffer(count: values.count)
            withExtendedLifetime(buffer) { $0.pointer.update(from: values, count: values.count) }
            return buffer
        }
        try transport.exchange(
            receive: zip(sources, inbox).map { Incoming(from: $0, pieces: [$1.bytes], keeping: [$1]) },
            send: zip(targets, outbox).map {
                Outgoing(to: $0, pieces: [UnsafeRawBufferPointer($1.bytes)], keeping: [$1])
            })
        var arrived: [Rank: [Float]] = [:]
        for (source, buffer) in zip(sources, inbox) {
            arrived[source] = withExtendedLifetime(buffer) {
                Array(UnsafeBufferPointer(start: buffer.pointer, count: buffer.count))
            }
        }
        return arrived
    }

    /// The part of one of this rank's tiles.
    private func leaf(_ tile: LocalTile, _ tokens: Range<Int>, span: Span, mode: PoolingMode) -> PooledPart {
        let width = encoder.configuration.hiddenSize
        let start: Float = mode == .max ? -.infinity : 0
        var values = Array(repeating: start, count: width)
        for position in tokens {
            let row = hidden.pointer + (tile.firstRow + position - tile.tokens.lowerBound) * width
            switch mode {
            case .max:
                for column in 0..<width { values[column] = Swift.max(values[column], row[column]) }
            case .weightedMean:
                let weight = Float(position - span.tokens.lowerBound + span.skipped + 1)
                for column in 0..<width { values[column] += weight * row[column] }
            case .cls, .lastToken, .mean, .meanSquareRootLength:
                for column in 0..<width { values[column] += row[column] }
            }
        }
        return PooledPart(mode: mode, values: values)
    }
}

extension PoolingMode {
    /// The tokens of a span that count.
    func tokens(of span: Range<Int>) -> Range<Int> {
        switch self {
        case .cls: span.lowerBound..<span.lowerBound + 1
        case .lastToken: span.upperBound - 1..<span.upperBound
        case .max, .mean, .meanSquareRootLength, .weightedMean: span
        }
    }

    /// What the pooled sum is divided by.
    func divisor(_ span: Span) -> Float {
        let count = span.tokens.count
        return switch self {
        case .cls, .lastToken, .max: 1
        case .mean: Float(count)
        case .meanSquareRootLength: Float(count).squareRoot()
        case .weightedMean: Float(count * (count + 1) / 2 + count * span.skipped)
        }
    }
}

/// Divides a vector by its Euclidean norm (summed in double precision), or by 1e-12 where that is larger, as
/// sentence-transformers' Normalize does.
public func normalized(_ vector: [Float]) -> [Float] {
    var sum = 0.0
    for value in vector { sum += Double(value) * Double(value) }
    let norm = Swift.max(Float(sum.squareRoot()), 1e-12)
    return vector.map { $0 / norm }
}
