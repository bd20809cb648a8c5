// Causal attention over one sequence that is spread over ranks.
import Attention
import MPI
import Matrices
import Plans
import RingAttention

let length = 1_000
let heads = HeadShape(heads: 4, headDimension: 32)
let width = 4 * 32

/// One rank's part: it brings the tiles that the sharding gives it, and returns the first channel of their rows.
@Sendable func attend(on transport: any Transport) throws -> [Int: Float] {
    let problem = AttentionProblem(
        shapes: [SequenceShape(length: length)], mask: .causal, heads: heads, layout: .zigzag, rankCount: transport.size
    )
    let sharding = problem.queries
    let keyValues = KeyValueTiles(of: problem, rank: transport.rank, kernels: .best)
    let executor = try RingExecutor(
        plan: Strategy.passKeyValue.plan(problem, rank: transport.rank), transport: transport,
        threads: ThreadPool(threads: 1), kernels: .best)

    // (tokens of this rank, heads, headDimension), tile after tile; zero at first.
    let tokens = sharding.tiles(of: transport.rank).ranges.joined().flatMap { sharding.numbering.tokens(of: $0) }
    let queries = AlignedBuffer(count: tokens.count * width)
    let keys = AlignedBuffer(count: tokens.count * width)
    let values = AlignedBuffer(count: tokens.count * width)
    let output = AlignedBuffer(count: tokens.count * width)

    // Queries and keys are all alike, so token t averages the values 0 … t that it may see: t / 2.
    for (row, token) in tokens.enumerated() {
        for column in 0..<width { values[row * width + column] = Float(token) }
    }

    func rows(_ buffer: AlignedBuffer, from row: Int = 0) -> HeadRows {
        HeadRows(buffer, offset: row * width, tokenStride: width, headStride: 32)
    }
    var row = 0
    for tile in sharding.tiles(of: transport.rank).ranges.joined() {
        let count = sharding.numbering.tokens(of: tile).count
        keyValues.pack(tile: tile, rows: 0..<count, keys: rows(keys, from: row), values: rows(values, from: row))
        row += count
    }
    try executor.attend(queries: rows(queries), to: keyValues, scale: 1 / Float(32).squareRoot(), output: rows(output))
    return Dictionary(uniqueKeysWithValues: tokens.enumerated().map { ($1, output[$0 * width]) })
}

func report(_ result: [Int: Float], rank: Int) {
    for token in [1, 500, 999] {
        if let value = result[token] { print("token \(token) attends to \(value), on rank \(rank)") }
    }
}

if CommandLine.arguments.contains("--mpi") {
    // One rank a process: mpirun -np 3 attention-example --mpi
    try MPIEnvironment.run { world in
        report(try attend(on: MPITransport(world)), rank: world.rank)
    }
} else {
    // Three ranks in this process.
    let results = try VirtualRanks.run(count: 3) { try attend(on: $0) }
    for (rank, result) in results.enumerated() { report(result, rank: rank) }
}
