// The gradients of attention over one sequence that is spread over ranks.
import Attention
import Matrices
import Plans
import RingAttention

let heads = HeadShape(heads: 1, headDimension: 16)

/// One rank's part; returns the first channels of dQ and dV of its tokens.
@Sendable func differentiate(on transport: any Transport) throws -> [(query: Float, value: Float)] {
    let problem = AttentionProblem(
        shapes: [SequenceShape(length: 512)], mask: .full, heads: heads, layout: .contiguous, rankCount: transport.size)
    let attention = try DifferentiableAttention(
        problem, .passKeyValue, transport: transport, threads: ThreadPool(threads: 1), kernels: .best)

    // Of this rank's tokens, (tokens, headDimension) each: Q, K, V, O, dO, dQ, dK and dV; zero at first.
    let tokens = problem.queries.tiles(of: transport.rank).flatMap { problem.queries.numbering.tokens(of: $0) }
    let arrays = (0..<8).map { _ in AlignedBuffer(count: tokens.count * 16) }
    func rows(_ array: Int, from row: Int = 0) -> HeadRows {
        HeadRows(arrays[array], offset: row * 16, tokenStride: 16, headStride: 16)
    }

    // With queries of zeros, every token attends to all alike. What is asked of it is more of the first channel, which the second
    // half of the tokens has: queries should move towards the keys of that half.
    for (row, token) in tokens.enumerated() {
        arrays[1][row * 16] = token < 256 ? -1 : 1
        arrays[2][row * 16] = token < 256 ? 0 : 1
        arrays[4][row * 16] = 1
    }
    for (place, tile) in problem.keys.tiles(of: transport.rank).enumerated() {
        attention.keyValues.pack(
            tile: tile, rows: 0..<256, keys: rows(1, from: 256 * place), values: rows(2, from: 256 * place))
    }
    try attention.attend(queries: rows(0), scale: 0.25, output: rows(3))
    _ = try attention.differentiate(
        queries: rows(0), scale: 0.25, output: rows(3), outputGradient: rows(4),
        into: .init(queries: rows(5), keys: rows(6), values: rows(7)))
    return tokens.indices.map { (arrays[5][$0 * 16], arrays[7][$0 * 16]) }
}

// Two ranks in this process; under mpirun the same function takes an MPITransport.
let results = try VirtualRanks.run(count: 2) { try differentiate(on: $0) }
for (rank, gradients) in results.enumerated() {
    print("rank \(rank): dQ \(gradients[0].query), dV \(gradients[0].value)")
}
