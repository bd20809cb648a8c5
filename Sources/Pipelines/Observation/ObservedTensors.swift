// The tensors of an observation, where each lies, and how they leave: into a safetensors file that all ranks fill, or
// through rank 0's memory as lines of JSON.

import Files
import Foundation
import RingAttention
import Tiles

/// The tensors of some documents, in the order in which they are written.
struct ObservedTensors {
    /// One of them.
    struct Tensor {
        let name: String
        let type: ElementType
        let shape: [Int]
    }

    let layout: SafetensorsLayout
    let tensors: [Tensor]

    init(_ tensors: [Tensor]) {
        self.tensors = tensors
        layout = SafetensorsLayout(tensors: tensors.map { ($0.name, $0.type, $0.shape) })
    }
}

/// A part of a tensor in memory, and its place in the file that the tensors would make.
typealias ObservedPiece = (offset: Int, bytes: UnsafeRawBufferPointer)

/// What takes the pieces of all ranks.
protocol ObservationSink {
    /// Takes this rank's pieces. Collective.
    func put(_ pieces: [ObservedPiece]) throws
    /// A batch's pieces of a layer are all there. Collective.
    func finish(layer: Int) throws
    /// Ends a job that was told to, and can be continued. Collective.
    func stopIfAsked() throws
}

/// A file that all ranks fill, and the job that it is of, where that is saved as it goes on.
final class ObservedFile: ObservationSink {
    private let file: ParallelFile
    private let job: ResumableJob?
    /// What this rank's pieces add up to that no finished documents are of yet.
    private var digest: UInt64 = 0

    init(_ file: ParallelFile, _ job: ResumableJob?) { (self.file, self.job) = (file, job) }

    func put(_ pieces: [ObservedPiece]) throws {
        try file.write(pieces)
        guard job != nil else { return }
        for piece in pieces { digest &+= FileBytes.digest(piece.bytes, firstWord: piece.offset / 4) }
    }

    func finish(layer: Int) throws { try stopIfAsked() }

    func stopIfAsked() throws { try job?.stopIfAsked() }

    /// The documents before this one are done. Collective.
    func finish(documents: Int) throws {
        job?.note(digest: digest)
        digest = 0
        try job?.finish(documents: documents)
    }
}

/// Rank 0's memory: a tensor has some from its first piece on, until it is forgotten.
final class ObservationImage: ObservationSink {
    private let session: Session
    private let tensors: [ObservedTensors.Tensor]
    /// Where each tensor starts in the file; one more than tensors.
    private let starts: [Int]
    private var found: [Int: [Float]] = [:]
    private let places: [String: Int]
    /// Told of a layer once it is all there, of which nothing need be kept then; on rank 0.
    private let layerDone: ((ObservationImage, Int) -> Void)?
    /// Whether each layer leaves by itself.
    var goesByLayer: Bool { layerDone != nil }
    private let job: ResumableJob?

    init(
        _ tensors: ObservedTensors, _ session: Session, _ job: ResumableJob? = nil,
        layerDone: ((ObservationImage, Int) -> Void)? = nil
    ) {
        self.job = job
        self.tensors = tensors.tensors
        self.session = session
        self.layerDone = layerDone
        starts = tensors.tensors.map { tensors.layout.offset(of: $0.name) } + [tensors.layout.totalBytes]
        places = Dictionary(uniqueKeysWithValues: tensors.tensors.enumerated().map { ($1.name, $0) })
    }

    func put(_ pieces: [ObservedPiece]) throws {
        // Every piece is whole words of four bytes, which travel as they are.
        if session.transport.size == 1 {
            for piece in pieces { place(piece.bytes, at: piece.offset) }
            return
        }
        let mine = pieces.map { piece in
            (span: piece.offset, vector: Array(piece.bytes.bindMemory(to: Float.self)))
        }
        for (offset, words) in try session.gather(mine) { words.withUnsafeBytes { place($0, at: offset) } }
    }

    func finish(layer: Int) throws {
        if session.isRoot { layerDone?(self, layer) }
        try stopIfAsked()
    }

    func stopIfAsked() throws { try job?.stopIfAsked() }

    private func place(_ piece: UnsafeRawBufferPointer, at offset: Int) {
        if piece.isEmpty { return }
        // The last tensor that starts there or before; those without elements start where the next one does.
        var (low, high) = (0, starts.count - 1)
        while low + 1 < high {
            let middle = (low + high) / 2
            if starts[middle] <= offset { low = middle } else { high = middle }
        }
        let count = (starts[low + 1] - starts[low]) / 4
        found[low, default: [Float](repeating: 0, count: count)].withUnsafeMutableBytes {
            UnsafeMutableRawBufferPointer(rebasing: $0[(offset - starts[low])...]).copyMemory(from: piece)
        }
    }

    /// The words of a tensor. For rank 0.
    func floats(_ name: String) -> [Float] {
        guard let place = places[name] else { return [] }
        return found[place] ?? [Float](repeating: 0, count: (starts[place + 1] - starts[place]) / 4)
    }

    /// The words of a tensor as whole numbers. For rank 0.
    func integers(_ name: String) -> [Int32] { floats(name).map { Int32(bitPattern: $0.bitPattern) } }

    /// Lets go of all that has come.
    func forget() { found = [:] }

    /// A tensor as nested lists of JSON. For rank 0.
    func json(_ tensor: ObservedTensors.Tensor) -> String {
        let words = floats(tensor.name)
        func list(_ depth: Int, _ range: Range<Int>) -> String {
            if depth == tensor.shape.count - 1 {
                let numbers = words[range].map {
                    tensor.type == .int32
                        ? String(Int32(bitPattern: $0.bitPattern)) : JSONText.number($0)
                }
                return "[" + numbers.joined(separator: ", ") + "]"
            }
            let (count, size) = (tensor.shape[depth], tensor.shape[(depth + 1)...].reduce(1, *))
            return "["
                + (0..<count).map {
                    list(depth + 1, range.lowerBound + $0 * size..<range.lowerBound + ($0 + 1) * size)
                }.joined(separator: ", ") + "]"
        }
        return list(0, 0..<words.count)
    }
}
