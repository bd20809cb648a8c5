// Every token's hidden state, written by the rank that computed it.

import Checkpoints
import Foundation
import RingAttention
import Tiles
import Transformers

/// Encodes a corpus and writes the states of all tokens: `embed --pooling none`.
struct StatesWriter {
    private let session: Session
    private let corpus: Corpus
    private let encoder: Encoder
    private let output: OutputOptions

    /// - Throws: `AgreedFailure` where the output cannot hold what was asked for.
    init(_ session: Session, corpus: Corpus, encoder: Encoder, output: OutputOptions) throws {
        self.session = session
        self.corpus = corpus
        self.encoder = encoder
        self.output = output
        let count = corpus.items.count
        try session.agree {
            if output.format == .numpy && count != 1 {
                throw JobError(
                    .usage, "a .npy holds the states of one document, and there are \(count): write .safetensors")
            }
        }
    }

    /// Encodes and writes. Collective.
    func run() throws {
        guard let path = output.output else { return }
        let width = encoder.configuration.hiddenSize
        let header: [UInt8]
        let offsets: [Int]
        let size: Int
        if output.format == .numpy {
            header = NumpyHeader.float32(shape: [corpus.items[0].ids.count, width])
            offsets = [header.count]
            size = header.count + corpus.items[0].ids.count * width * 4
        } else {
            let layout = SafetensorsLayout(
                tensors: corpus.items.enumerated().map { ("\($0)", .float32, [$1.ids.count, width]) })
            header = layout.headerBytes
            offsets = corpus.items.indices.map { layout.offset(of: "\($0)") }
            size = layout.totalBytes
        }
        let file = try ParallelFile.create(path, force: output.force, transport: session.transport, size: size)
        try header.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        try session.encode(corpus, with: encoder) { run, items in
            session.watchdog.progress(.writing)
            try file.write(
                run.tiles.map { tile in
                    let bytes = UnsafeRawBufferPointer(
                        start: run.hidden.pointer + tile.firstRow * width, count: tile.tokens.count * width * 4)
                    return (offsets[items.lowerBound + tile.sequence] + tile.tokens.lowerBound * width * 4, bytes)
                })
        }
        try file.commit()
    }

    /// Encodes and writes a line a document: {"embeddings": [[…], …]}. Collective.
    func write(to output: LineOutput) throws {
        let width = encoder.configuration.hiddenSize
        try session.encode(corpus, with: encoder) { run, items in
            let tiles = run.tiles.map { tile in
                (
                    span: tile.number,
                    vector: Array(
                        UnsafeBufferPointer(
                            start: run.hidden.pointer + tile.firstRow * width, count: tile.tokens.count * width))
                )
            }
            var lines = ""
            var sequence = -1
            for (number, rows) in try session.gather(tiles) {
                let owner = run.sharding.numbering.sequence(of: number)
                lines += owner == sequence ? ", " : (sequence < 0 ? "" : "]}\n") + "{\"embeddings\": ["
                sequence = owner
                lines += stride(from: 0, to: rows.count, by: width)
                    .map { JSONText.floats(rows[$0..<$0 + width]) }.joined(separator: ", ")
            }
            if sequence >= 0 { lines += "]}\n" }
            try output.write(lines)
        }
    }
}
