// Pooled vectors into a file that all ranks write.

import Files
import Foundation
import RingAttention

/// Writes the vectors of a corpus's spans as they are finished.
final class VectorWriter {
    private let session: Session
    private let width: Int
    private let file: ParallelFile
    private let job: ResumableJob?
    /// Where the vectors start in the file.
    private var base = 0

    /// Opens the output, a .npy or .safetensors. Collective.
    /// - Parameter job: the job that the output is of, where it is saved as it goes on.
    init(
        _ session: Session, corpus: Corpus, output: OutputFile, width: Int, located: Bool, job: ResumableJob?
    ) throws {
        self.session = session
        self.job = job
        self.width = width
        let places = corpus.items.flatMap { item in
            item.spans.map { (document: item.document, start: $0.start, end: $0.end) }
        }
        func create(_ header: [UInt8], size: Int) throws -> ParallelFile {
            let file = try ParallelFile.open(output, job, size: size, transport: session.transport)
            try header.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
            return file
        }
        if output.format == .numpy {
            let header = NumpyHeader.float32(shape: [places.count, width])
            base = header.count
            file = try create(header, size: header.count + places.count * width * 4)
        } else {
            var tensors: [(name: String, elementType: ElementType, shape: [Int])] = [
                ("embeddings", .float32, [places.count, width])
            ]
            if located { tensors += ["document", "start", "end"].map { ($0, .int64, [places.count]) } }
            let layout = SafetensorsLayout(tensors: tensors)
            file = try create(layout.headerBytes, size: layout.totalBytes)
            base = layout.offset(of: "embeddings")
            if located {
                try writePlaces(at: layout.offset(of: "document"), places.map(\.document))
                try writePlaces(at: layout.offset(of: "start"), places.map(\.start))
                try writePlaces(at: layout.offset(of: "end"), places.map(\.end))
            }
        }
        let done = corpus.items[..<corpus.finished].reduce(0) { $0 + $1.spans.count }
        try job?.check(rows: [(base, done * width * MemoryLayout<Float>.stride)])
    }

    /// Writes some spans' vectors, each rank its own. Collective.
    package func write(_ vectors: [(span: Int, vector: [Float])]) throws {
        session.monitor.progress(.writing)
        // One buffer for all rows, so that the pieces point to memory that stays.
        let rows = vectors.flatMap(\.vector)
        try rows.withUnsafeBytes { bytes in
            let rowBytes = width * MemoryLayout<Float>.stride
            let pieces = vectors.enumerated().map { place, entry in
                (
                    offset: base + entry.span * rowBytes,
                    bytes: UnsafeRawBufferPointer(rebasing: bytes[place * rowBytes..<(place + 1) * rowBytes])
                )
            }
            try file.write(pieces)
            job?.note(rows: pieces)
        }
    }

    /// Gives the file its name. Collective.
    package func finish() throws { if let job { try job.finish() } else { try file.commit() } }

    private func writePlaces(at offset: Int, _ values: [Int]) throws {
        try values.map { Int64($0).littleEndian }.withUnsafeBytes {
            try file.write(session.isRoot ? [(offset, $0)] : [])
        }
    }
}
