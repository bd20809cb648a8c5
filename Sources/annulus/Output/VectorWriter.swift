// Pooled vectors into a file that all ranks write, or as JSON lines.

import Checkpoints
import Foundation
import RingAttention

/// Writes the vectors of a corpus's spans as they are finished.
final class VectorWriter {
    private let session: Session
    private let corpus: Corpus
    private let width: Int
    /// Whether rows tell where in their document they come from.
    private let located: Bool
    private let places: [(document: Int, start: Int, end: Int)]
    private let file: ParallelFile?
    private let format: OutputFormat
    /// Where the vectors start in a binary file.
    private var base = 0
    /// Where the next JSON line goes, on rank 0.
    private var nextByte = 0

    /// Opens the output. Collective.
    init(_ session: Session, corpus: Corpus, output: OutputOptions, width: Int, located: Bool) throws {
        self.session = session
        self.corpus = corpus
        self.width = width
        self.located = located
        places = corpus.items.flatMap { item in item.spans.map { (item.document, $0.start, $0.end) } }
        format = output.format
        file = try output.output.map { try ParallelFile.create($0, force: output.force, transport: session.transport) }
        switch format {
        case .numpy: try writeHeader(NumpyHeader.float32(shape: [places.count, width]))
        case .safetensors:
            var tensors: [(name: String, elementType: ElementType, shape: [Int])] = [("embeddings", .float32, [places.count, width])]
            if located { tensors += ["document", "start", "end"].map { ($0, .int64, [places.count]) } }
            let layout = SafetensorsLayout(tensors: tensors)
            try writeHeader(layout.headerBytes)
            base = layout.offset(of: "embeddings")
            if located {
                try writePlaces(at: layout.offset(of: "document"), places.map(\.document))
                try writePlaces(at: layout.offset(of: "start"), places.map(\.start))
                try writePlaces(at: layout.offset(of: "end"), places.map(\.end))
            }
        case .jsonLines: break
        }
    }

    /// Writes some spans' vectors, each rank its own. Collective.
    func write(_ vectors: [(span: Int, vector: [Float])]) throws {
        session.watchdog.progress(.writing)
        guard let file, format != .jsonLines else {
            let lines = try session.gather(vectors).map { line($0.span, $0.vector) }.joined()
            return try write(lines: lines)
        }
        // One buffer for all rows, so that the pieces point to memory that stays.
        let rows = vectors.flatMap(\.vector)
        try rows.withUnsafeBytes { bytes in
            let rowBytes = width * MemoryLayout<Float>.stride
            try file.write(vectors.enumerated().map { place, entry in
                (base + entry.span * rowBytes, UnsafeRawBufferPointer(rebasing: bytes[place * rowBytes..<(place + 1) * rowBytes]))
            })
        }
    }

    /// Gives the file its name. Collective.
    func finish() throws { try file?.commit() }

    private func line(_ span: Int, _ vector: [Float]) -> String {
        let place = places[span]
        let location = located ? "\"document\": \(place.document), \"start\": \(place.start), \"end\": \(place.end), " : ""
        return "{\(location)\"embedding\": \(JSONText.floats(vector))}\n"
    }

    private func write(lines: String) throws {
        guard let file else { return try session.agree { try session.printLines(lines) } }
        try Array(lines.utf8).withUnsafeBytes { bytes in
            try file.write(session.isRoot && !bytes.isEmpty ? [(nextByte, bytes)] : [])
        }
        nextByte += lines.utf8.count
    }

    private func writeHeader(_ header: [UInt8]) throws {
        base = header.count
        try header.withUnsafeBytes { try file?.write(session.isRoot ? [(0, $0)] : []) }
    }

    private func writePlaces(at offset: Int, _ values: [Int]) throws {
        try values.map { Int64($0).littleEndian }.withUnsafeBytes { try file?.write(session.isRoot ? [(offset, $0)] : []) }
    }
}
