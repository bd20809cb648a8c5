// Hidden states against transformers, by goldens that scripts/goldens/make.py makes.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

/// A folder of goldens beside this file.
func golden(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Goldens/\(name)").path
}

/// Runs documents through an encoder on virtual ranks and returns each document's hidden states.
func hiddenStates(
    _ encoder: Encoder, _ ids: [[Int32]], ranks: Int = 1, threads: Int = 1, layout: Layout = .contiguous,
    typeIds: [[Int32]]? = nil
) throws -> [[Float]] {
    let width = encoder.configuration.hiddenSize
    let sharding = Sharding(lengths: ids.map(\.count), layout: layout, rankCount: ranks)
    let parts = try VirtualRanks.run(count: ranks, seed: UInt64(ranks)) { transport in
        let run = try EncoderRun(
            encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: threads))
        try run.run(ids: ids, typeIds: typeIds)
        return withExtendedLifetime(run) {
            run.tiles.map { tile in
                (
                    tile.sequence, tile.tokens,
                    Array(
                        UnsafeBufferPointer(
                            start: run.hidden.pointer + tile.firstRow * width, count: tile.tokens.count * width))
                )
            }
        }
    }
    var states = ids.map { Array(repeating: Float.nan, count: $0.count * width) }
    for (sequence, tokens, rows) in parts.joined() {
        states[sequence].replaceSubrange(tokens.lowerBound * width..<tokens.upperBound * width, with: rows)
    }
    return states
}

@Suite struct GoldenTests {
    @Test(arguments: ["tiny-bert", "tiny-bert-prefixed", "tiny-bert-sentence"])
    func hiddenStatesEqualTransformers(name: String) throws {
        let file = try TensorFile(path: golden(name) + "/goldens.safetensors")
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        // The largest error of transformers in float32 against float64 on the same inputs, as the script saw it.
        let float32Error = Float(try #require(file.metadata["float32_error"]))!
        let lengths = file.names.compactMap { $0.hasSuffix(".input_ids") ? Int($0.dropLast(10)) : nil }.sorted()
        #expect(lengths.count >= 4)
        for length in lengths {
            let ids = try file.readIntegers("\(length).input_ids").map { Int32($0) }
            let expected = try file.readFloat32("\(length).last_hidden_state")
            let states = try hiddenStates(encoder, [ids])[0]
            #expect(states.count == expected.count)
            let error = zip(states, expected).map { abs($0 - $1) }.max() ?? .infinity
            #expect(error <= 2 * float32Error, "\(name), \(length) tokens: off by \(error)")
        }
    }

    @Test func documentsHaveTheSameBitsHoweverTheyAreSpread() throws {
        let encoder = try Encoder(Checkpoint(folder: golden("tiny-bert")), kernels: .best)
        let vocabulary = Int32(encoder.configuration.vocabularySize)
        let lengths = [1, 2, 255, 256, 257, 1000, 70]
        let ids = lengths.map { length in (0..<length).map { Int32($0 * 7 + length) % vocabulary } }
        let alone = try ids.map { try hiddenStates(encoder, [$0])[0] }
        for layout in Layout.allCases {
            for ranks in [1, 2, 3, 5, 8] {
                let states = try hiddenStates(encoder, ids, ranks: ranks, threads: 1 + ranks % 2, layout: layout)
                for (document, pair) in zip(states, alone).enumerated() {
                    #expect(
                        pair.0.map(\.bitPattern) == pair.1.map(\.bitPattern),
                        "document of \(lengths[document]) tokens, \(layout), \(ranks) ranks")
                }
            }
        }
    }
}
