// How long the way back takes beside the way forward, printed on request: it depends on the machine and asserts nothing.
//
//     ANNULUS_GRADIENT_BENCHMARK=1 swift test -c release --filter GradientBenchmark

import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment["ANNULUS_GRADIENT_BENCHMARK"] != nil))
struct GradientBenchmark {
    @Test(arguments: [[8192], Array(repeating: 100, count: 80)]) func wayBack(lengths: [Int]) throws {
        var configuration = EncoderConfiguration(
            family: .bert, hiddenSize: 384, layerCount: 6, headCount: 12, intermediateSize: 1536,
            vocabularySize: 30_522, positionCount: 8192)
        configuration.tokenTypeCount = 2
        configuration.positions = .fromZero
        let encoder = try Encoder(configuration, parameters: RandomParameters(seed: 1), trains: true, kernels: .best)
        let ids = lengths.map { length in (0..<length).map { Int32($0 * 7919 % 30_522) } }
        let tiles = lengths.reduce(0) { $0 + TileGrid.count(length: $1) }
        for threads in [1, 2] {
            for _ in 0..<2 {
                let seconds = try VirtualRanks.run(count: 1, seed: 1) { transport in
                    let run = try EncoderRun(
                        encoder: encoder, sharding: Sharding(lengths: lengths, layout: .contiguous, rankCount: 1),
                        transport: transport, threads: ThreadPool(threads: threads), training: TrainingPass())
                    let start = ContinuousClock.now
                    try run.run(ids: ids)
                    let middle = ContinuousClock.now
                    for row in 0..<run.hidden.count where row % 17 == 0 { run.hiddenGradient[row] = 1e-3 }
                    try run.backward(
                        into: Gradients(encoder.gradientSlots), step: StepTiles(first: 0, count: tiles))
                    return (middle - start, .now - middle)
                }[0]
                print(
                    "\(lengths.count) documents of \(lengths[0]) tokens, \(threads) threads: forward \(seconds.0), back \(seconds.1)"
                )
            }
        }
    }
}
