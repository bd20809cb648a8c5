// How close texts are to the first of them: similarity-example MODEL-FOLDER TEXT TEXT…
import Checkpoints
import Matrices
import Plans
import RingAttention
import Tokenization
import Transformers

let folder = try Checkpoint.resolve(CommandLine.arguments[1])
let texts = Array(CommandLine.arguments[2...])
let encoder = try Encoder(Checkpoint(folder: folder), kernels: .best)
let tokenizer = try Tokenizer.load(folder: folder)
let ids = texts.map { tokenizer.encode($0).ids }

// Two ranks in this process share the batch; under mpirun the same closure takes an MPITransport.
let parts = try VirtualRanks.run(count: 2) { transport in
    let sharding = Sharding(lengths: ids.map(\.count), layout: .contiguous, rankCount: transport.size)
    let run = try EncoderRun(
        encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 1))
    try run.run(ids: ids)
    let whole = ids.indices.map { Span(sequence: $0, tokens: 0..<ids[$0].count) }
    return try run.pool(whole, mode: .mean, transport: transport).map { normalized($0.vector) }
}

let vectors = Array(parts.joined())  // each rank returns the texts whose first token it holds, in order
for (text, vector) in zip(texts, vectors) {
    let cosine = zip(vector, vectors[0]).reduce(0) { $0 + $1.0 * $1.1 }
    print("\(cosine)  \(text)")
}
