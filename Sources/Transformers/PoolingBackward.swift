// The backward of pooling: from the gradients of vectors to those of the states they were pooled from.

import Checkpoints
import Matrices
import Plans
import RingAttention
import Tiles

extension EncoderRun {
    /// Takes the gradients of pooled vectors back to the states of their tokens: adds them to `hiddenGradient`.
    /// Collective.
    ///
    /// A token's share is the vector's gradient, times the token's weight, by what the sum was divided by. Of a maximum
    /// the whole gradient of a channel goes to the first token that has it.
    /// - Parameters:
    ///   - spans: as they were pooled.
    ///   - mode: how.
    ///   - gradients: for each vector that is at home on this rank its gradient.
    ///   - transport: connects this rank to the others.
    /// - Throws: what the transport throws.
    public func backward(
        throughPooling spans: [Span], mode: PoolingMode, gradients: [(span: Int, gradient: [Float])],
        transport: any Transport
    ) throws {
        let width = encoder.configuration.hiddenSize
        let mine = transport.rank
        let localTiles = Dictionary(uniqueKeysWithValues: tiles.map { ($0.number, $0) })
        let ofSpans = Dictionary(uniqueKeysWithValues: gradients.map { ($0.span, $0.gradient) })
        let maxima = mode == .max ? try pooledParts(spans, mode: mode, transport: transport) : []
        let partsOfSpans = Dictionary(uniqueKeysWithValues: maxima.map { ($0.span, $0.parts) })

        // What each tile's tokens share, from a vector's home, in the order in which both sides list it.
        var leaving: [Rank: [Float]] = [:]
        var arriving: [Rank: Int] = [:]
        var shares: [(span: Int, tile: LocalTile, from: Rank, place: Int)] = []
        for (index, span) in spans.enumerated() {
            let first = sharding.numbering.firstTile[span.sequence]
            let home = home(of: span)
            for tile in TileGrid.tiles(covering: mode.tokens(of: span.tokens)) {
                let owner = sharding.owner(of: first + tile)
                if home == mine {
                    guard let gradient = ofSpans[index] else { preconditionFailure("a gradient for each vector") }
                    leaving[owner, default: []] += share(
                        gradient, of: span, mode, tile: tile, parts: partsOfSpans[index] ?? [])
                }
                if let local = localTiles[first + tile] {
                    shares.append((index, local, home, arriving[home, default: 0]))
                    arriving[home, default: 0] += width
                }
            }
        }
        let own = leaving.removeValue(forKey: mine) ?? []
        arriving.removeValue(forKey: mine)
        var arrived = try exchange(leaving, arriving: arriving, transport: transport)
        arrived[mine] = own
        for (span, tile, from, place) in shares {
            let gradient = Array((arrived[from] ?? [])[place..<place + width])
            addShare(gradient, of: spans[span], mode, to: tile)
        }
    }

    /// What the tokens of a tile share.
    /// - Parameter parts: those of the span's tiles, where it is a maximum.
    private func share(
        _ gradient: [Float], of span: Span, _ mode: PoolingMode, tile: Int, parts: [(tile: Int, part: PooledPart)]
    ) -> [Float] {
        guard mode == .max else {
            let divisor = mode.divisor(span)
            return divisor == 1 ? gradient : gradient.map { $0 / divisor }
        }
        return gradient.indices.map { column in
            var (largest, winner) = (-Float.infinity, parts.first?.tile)
            for (tile, part) in parts where part.values[column] > largest {
                (largest, winner) = (part.values[column], tile)
            }
            return winner == tile ? gradient[column] : 0
        }
    }

    /// Adds what the tokens of a tile share to their states' gradients.
    private func addShare(_ gradient: [Float], of span: Span, _ mode: PoolingMode, to tile: LocalTile) {
        let width = gradient.count
        let tokens = mode.tokens(of: span.tokens).clamped(to: tile.tokens)
        func row(_ position: Int, of buffer: AlignedBuffer) -> UnsafeMutablePointer<Float> {
            buffer.pointer + (tile.firstRow + position - tile.tokens.lowerBound) * width
        }
        if mode == .max {
            for column in 0..<width where gradient[column] != 0 {
                var winner = tokens.lowerBound
                for position in tokens where row(position, of: hidden)[column] > row(winner, of: hidden)[column] {
                    winner = position
                }
                row(winner, of: hiddenGradient)[column] += gradient[column]
            }
            return
        }
        for position in tokens {
            let target = row(position, of: hiddenGradient)
            let weight = mode == .weightedMean ? Float(position - span.tokens.lowerBound + span.skipped + 1) : 1
            for column in 0..<width { target[column] += weight * gradient[column] }
        }
    }
}

/// The gradient of a vector from that of `normalized(vector)`: (g − n·(n·g))/‖v‖, n being the normalised vector; dot
/// products in double precision, ascending. Where the norm is below 1e-12 the division is by that number, whatever the
/// vector.
public func normalizedBackward(_ vector: [Float], _ gradient: [Float]) -> [Float] {
    var (sum, dot) = (0.0, 0.0)
    for (value, slope) in zip(vector, gradient) {
        sum += Double(value) * Double(value)
        dot += Double(value) * Double(slope)
    }
    let norm = sum.squareRoot()
    if norm < 1e-12 { return gradient.map { $0 / 1e-12 } }
    return zip(vector, gradient).map { Float((Double($1) - Double($0) * dot / sum) / norm) }
}
