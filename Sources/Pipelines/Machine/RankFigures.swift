// Figures of all ranks: their speeds, sums and maxima, and the digest of what they hold together.

import Crypto
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles

extension Session {
    /// The ranks' relative speeds for a balanced layout, nil for the others: each measures what it gets of its cores,
    /// which others may use too, over many time slices; that is rounded to eighths of the fastest, so that noise does
    /// not shape the layout. Collective.
    package func relativeSpeeds() throws -> [Double]? {
        guard settings.layout == .balanced, transport.size > 1 else { return nil }
        try transport.barrier()
        let rates = try everyone(peak(kernels: kernels, seconds: 0.1, pool: threads, statistic: .mean).reduce(0, +))
        let fastest = rates.max() ?? 1
        return rates.map { max(1, ($0 / fastest * 8).rounded()) / 8 }
    }

    func everyone(_ value: Double) throws -> [Double] {
        try transport.allGather(withUnsafeBytes(of: value) { Array($0) }).map { bytes in
            bytes.withUnsafeBytes { $0.loadUnaligned(as: Double.self) }
        }
    }

    package func maximum(_ value: Double) throws -> Double { try everyone(value).max() ?? value }
    package func sum(_ value: Double) throws -> Double { try everyone(value).reduce(0, +) }

    /// SHA-256 over the rows of all tiles in order, whoever holds them; empty but on rank 0. Collective.
    /// - Parameter rows: the bytes of one of this rank's tiles.
    package func digest(
        _ sharding: Sharding, rowBytes: Int, rows: (_ firstRow: Int, _ count: Int) -> UnsafeRawBufferPointer
    )
        throws -> String
    {
        var hash = SHA256()
        var row = 0
        // A few tiles a round bound what rank 0 holds.
        let tilesPerRound = 64
        for first in stride(from: 0, to: sharding.numbering.tileCount, by: tilesPerRound) {
            let round = first..<min(first + tilesPerRound, sharding.numbering.tileCount)
            var mine: [(tile: Int, bytes: UnsafeRawBufferPointer)] = []
            for tile in sharding.tiles(of: transport.rank).intersection(round) {
                let count = sharding.numbering.tokens(of: tile).count
                mine.append((tile, rows(row, count)))
                row += count
            }
            guard isRoot else {
                try transport.exchange(
                    receive: [], send: mine.isEmpty ? [] : [Outgoing(to: Rank(0), pieces: mine.map(\.bytes))])
                continue
            }
            var arriving: [Incoming] = []
            var all = mine
            var held: [UnsafeMutableRawBufferPointer] = []
            defer { held.forEach { $0.deallocate() } }
            for rank in (1..<transport.size).map({ Rank($0) }) {
                var pieces: [UnsafeMutableRawBufferPointer] = []
                for tile in sharding.tiles(of: rank).intersection(round) {
                    let buffer = UnsafeMutableRawBufferPointer.allocate(
                        byteCount: sharding.numbering.tokens(of: tile).count * rowBytes, alignment: 64)
                    held.append(buffer)
                    pieces.append(buffer)
                    all.append((tile, UnsafeRawBufferPointer(buffer)))
                }
                if !pieces.isEmpty { arriving.append(Incoming(from: rank, pieces: pieces)) }
            }
            try transport.exchange(receive: arriving, send: [])
            for entry in all.sorted(by: { $0.tile < $1.tile }) { hash.update(bufferPointer: entry.bytes) }
        }
        return isRoot ? hash.finalize().map { String(format: "%02x", $0) }.joined() : ""
    }
}

/// The middle one of some values; of an even number the mean of both middle ones.
package func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
