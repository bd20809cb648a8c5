// Every token's hidden state, written by the rank that computed it.

import Files
import Foundation
import Matrices
import RingAttention
import Tiles
import Transformers

/// Encodes a corpus and writes the states of all tokens: `embed --pooling none`.
struct StatesWriter {
    private let session: Session
    private let corpus: Corpus
    private let encoder: Encoder
    private let head: VectorHead

    init(_ session: Session, corpus: Corpus, encoder: Encoder, head: VectorHead) {
        self.session = session
        self.corpus = corpus
        self.encoder = encoder
        self.head = head
    }

    /// What the model gives for the tokens of this rank, by its rows: (rows, tokenWidth).
    private func states(of run: EncoderRun) -> AlignedBuffer {
        if head.keepsStates { return run.hidden }
        let buffer = AlignedBuffer(count: run.tiles.reduce(0) { max($0, $1.rows.upperBound) } * head.tokenWidth)
        withExtendedLifetime(run) {
            for tile in run.tiles {
                let states = run.hidden.pointer + tile.firstRow * encoder.configuration.hiddenSize
                let found = head.states(rows: tile.tokens.count, states)
                (buffer.pointer + tile.firstRow * head.tokenWidth).update(from: found, count: found.count)
            }
        }
        return buffer
    }

    /// Encodes and writes into a file. Collective.
    /// - Throws: `AgreedFailure` where the file cannot hold what was asked for.
    /// - Parameter job: the job that the output is of, where it is saved as it goes on.
    package func write(to output: OutputFile, job: ResumableJob?) throws {
        let count = corpus.items.count
        try session.agree {
            if output.format == .numpy && count != 1 {
                throw JobError(
                    .usage, "a .npy holds the states of one document, and there are \(count): write .safetensors")
            }
        }
        let width = head.tokenWidth
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
        let file = try ParallelFile.open(output, job, size: size, transport: session.transport)
        try job?.check(
            rows: corpus.items.indices.prefix(corpus.finished).map {
                (offsets[$0], corpus.items[$0].ids.count * width * MemoryLayout<Float>.stride)
            })
        try header.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        try session.encode(corpus, with: encoder, job: job) { run, items in
            session.monitor.progress(.writing)
            let states = states(of: run)
            try withExtendedLifetime(states) {
                let pieces = run.tiles.map { tile in
                    (
                        offset: offsets[items.lowerBound + tile.sequence] + tile.tokens.lowerBound * width * 4,
                        bytes: UnsafeRawBufferPointer(
                            start: states.pointer + tile.firstRow * width, count: tile.tokens.count * width * 4)
                    )
                }
                try file.write(pieces)
                job?.note(rows: pieces)
            }
        }
        if let job { try job.finish() } else { try file.commit() }
    }

    /// Encodes and writes a line a document: {"embeddings": [[…], …]}. Collective.
    package func write(to lines: LineOutput) throws {
        let width = head.tokenWidth
        try session.encode(corpus, with: encoder, job: lines.job) { run, items in
            let states = states(of: run)
            let tiles = withExtendedLifetime(states) {
                run.tiles.map { tile in
                    (
                        span: tile.number,
                        vector: Array(
                            UnsafeBufferPointer(
                                start: states.pointer + tile.firstRow * width, count: tile.tokens.count * width))
                    )
                }
            }
            var text = ""
            var sequence = -1
            for (number, rows) in try session.gather(tiles) {
                let owner = run.sharding.numbering.sequence(of: number)
                text += owner == sequence ? ", " : (sequence < 0 ? "" : "]}\n") + "{\"embeddings\": ["
                sequence = owner
                text += stride(from: 0, to: rows.count, by: width)
                    .map { JSONText.floats(rows[$0..<$0 + width]) }.joined(separator: ", ")
            }
            if sequence >= 0 { text += "]}\n" }
            try lines.write(text)
        }
    }
}
