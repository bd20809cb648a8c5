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
}

extension ParallelFile: ObservationSink {
    func put(_ pieces: [ObservedPiece]) throws { try write(pieces) }
}

/// Rank 0's memory.
final class ObservationImage: ObservationSink {
    private let session: Session
    private var bytes: [UInt8]
    private let tensors: ObservedTensors

    /// - Throws: what agreement throws where the ranks differ in it.
    init(_ tensors: ObservedTensors, _ session: Session) {
        self.tensors = tensors
        self.session = session
        bytes = session.isRoot ? [UInt8](repeating: 0, count: tensors.layout.totalBytes) : []
    }

    func put(_ pieces: [ObservedPiece]) throws {
        if session.transport.size == 1 {
            for piece in pieces { place(piece.bytes, at: piece.offset) }
            return
        }
        // Every piece is whole words of four bytes, which travel as they are.
        let mine = pieces.map { piece in
            (span: piece.offset, vector: Array(piece.bytes.bindMemory(to: Float.self)))
        }
        for (offset, words) in try session.gather(mine) { words.withUnsafeBytes { place($0, at: offset) } }
    }

    private func place(_ piece: UnsafeRawBufferPointer, at offset: Int) {
        if piece.isEmpty { return }
        bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[offset...]).copyMemory(from: piece) }
    }

    /// The words of a tensor. For rank 0.
    func floats(_ name: String) -> [Float] {
        bytes.withUnsafeBytes { raw in
            let range = tensors.layout.byteRange(of: name)
            return stride(from: range.lowerBound, to: range.upperBound, by: 4).map {
                raw.loadUnaligned(fromByteOffset: $0, as: Float.self)
            }
        }
    }

    /// A tensor as nested lists of JSON. For rank 0.
    func json(_ tensor: ObservedTensors.Tensor) -> String {
        let words = floats(tensor.name)
        func list(_ depth: Int, _ range: Range<Int>) -> String {
            if depth == tensor.shape.count - 1 {
                let numbers = words[range].lazy.map {
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
