// Encoders of every family over MPI: the states of transformers, and the bytes of one rank alone.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles
import Transformers

/// The tiny checkpoints of the encoder tests.
private let families = [
    "tiny-bert", "tiny-roberta", "tiny-xlm-roberta", "tiny-camembert", "tiny-distilbert", "tiny-albert", "tiny-electra",
    "tiny-mpnet",
    "tiny-modernbert", "tiny-deberta-v3", "tiny-deberta-v2", "tiny-nomic-bert", "tiny-esm", "tiny-esm-absolute",
    "tiny-jina-bert",
]

/// A tile's states: (tokens, hiddenSize).
private struct TileStates: Sendable {
    let sequence: Int
    let tokens: Range<Int>
    let rows: [Float]
}

func registerFamilyChecks(_ checks: inout Checks) {
    for (number, name) in families.enumerated() {
        checks.register("\(name): states of transformers, the bytes of one rank") { transport in
            let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
                .appendingPathComponent("TransformersTests/Goldens/\(name)").path
            let file = try TensorFile(path: folder + "/goldens.safetensors")
            // Every length at once, past tiles and local windows, and of no common multiple.
            let documents = file.names.filter { $0.hasSuffix(".input_ids") }.map { String($0.dropLast(10)) }
            let ids = try documents.map { try file.readIntegers("\($0).input_ids").map { Int32($0) } }
            let encoder = try Encoder(Checkpoint(folder: folder), kernels: .best)
            let alone = try VirtualRanks.run(count: 1) { try states(encoder, ids, .contiguous, .passKeyValue, $0) }[0]
            // A rank that finds a fault goes on with the others and tells in the end, so that none waits for it.
            var fault: (any Error)?
            for (place, layout) in Layout.allCases.enumerated() {
                // Other strategies for other families and layouts.
                let strategy = Strategy.allCases[(number + place) % Strategy.allCases.count]
                for found in try states(encoder, ids, layout, strategy, transport) {
                    let (document, whole) = (
                        documents[found.sequence],
                        alone.first { $0.sequence == found.sequence && $0.tokens == found.tokens }
                    )
                    do {
                        let place = "document \(document), tokens \(found.tokens), \(layout), \(strategy)"
                        try expect(
                            found.rows.map(\.bitPattern) == whole?.rows.map(\.bitPattern),
                            "other bytes than alone: \(place)")
                        try expectGolden(found, file, document, count: ids[found.sequence].count, place)
                    } catch {
                        fault = fault ?? error
                    }
                }
            }
            if let fault { throw fault }
        }
    }
}

/// Throws unless the rows that a golden keeps are near enough.
private func expectGolden(_ found: TileStates, _ file: TensorFile, _ document: String, count: Int, _ place: String)
    throws
{
    let expected = try file.readFloat32("\(document).last_hidden_state")
    // The largest error of transformers in float32 against float64, as the script saw it.
    let allowed = 2 * (file.metadata["float32_error"].flatMap { Float($0) } ?? 0)
    let width = found.rows.count / found.tokens.count
    let kept = expected.count == count * width ? Array(0..<count) : try file.readIntegers("\(document).rows")
    for (at, row) in kept.enumerated() where found.tokens.contains(row) {
        for column in 0..<width {
            let error = abs(
                found.rows[(row - found.tokens.lowerBound) * width + column] - expected[at * width + column])
            try expect(error <= allowed, "off by \(error), allowed are \(allowed): \(place)")
        }
    }
}

/// The states of this rank's tiles. Collective.
private func states(
    _ encoder: Encoder, _ ids: [[Int32]], _ layout: Layout, _ strategy: Strategy, _ transport: any Transport
) throws -> [TileStates] {
    let width = encoder.configuration.hiddenSize
    let sharding = EncoderRun.sharding(
        lengths: ids.map(\.count), encoder: encoder, layout: layout, rankCount: transport.size)
    let run = try EncoderRun(
        encoder: encoder, sharding: sharding, strategy: strategy, transport: transport, threads: ThreadPool(threads: 1))
    try run.run(ids: ids)
    return withExtendedLifetime(run) {
        run.tiles.map { tile in
            TileStates(
                sequence: tile.sequence, tokens: tile.tokens,
                rows: Array(
                    UnsafeBufferPointer(
                        start: run.hidden.pointer + tile.firstRow * width, count: tile.tokens.count * width)))
        }
    }
}
