// Keys and values of a float32 job that travel in bfloat16: half the bytes, and no bit less, since they are rounded
// where they are packed.

import Attention
import Matrices

/// Conversions between packed floats and what travels for them, two bfloat16 in the place of a float.
struct Wire {
    let kernels: KernelSet
    let threads: ThreadPool

    /// The floats that take what travels for some pieces of memory. Pieces are whole tiles, an even number of floats.
    static func floats(for pieces: [UnsafeMutableRawBufferPointer]) -> Int { pieces.reduce(0) { $0 + $1.count / 8 } }

    /// Writes what travels for some pieces, one after another. Exact for values that are bfloat16 already.
    func narrow(_ pieces: [UnsafeMutableRawBufferPointer], into buffer: AlignedBuffer) {
        forEach(pieces, in: buffer) { floats, count, halves in
            kernels.bfloat16Functions.round_rows(floats, count, 1, count, 1, halves, count / 2)
        }
    }

    /// Writes pieces from what has travelled for them.
    func widen(_ buffer: AlignedBuffer, into pieces: [UnsafeMutableRawBufferPointer]) {
        forEach(pieces, in: buffer) { floats, count, halves in Self.widen(halves, count: count, into: floats) }
    }

    /// Disjoint: every piece has its own part of the buffer.
    private func forEach(
        _ pieces: [UnsafeMutableRawBufferPointer], in buffer: AlignedBuffer,
        _ body: (_ floats: UnsafeMutablePointer<Float>, _ count: Int, _ halves: UnsafeMutablePointer<Float>) -> Void
    ) {
        let starts = pieces.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count / 8) }
        threads.forEach(pieces.count) { index, _ in
            guard let base = pieces[index].baseAddress else { return }
            body(base.assumingMemoryBound(to: Float.self), pieces[index].count / 4, buffer.pointer + starts[index])
        }
    }

    /// Rows of the width of a head, rounded to bfloat16 and dense.
    static func rounded(
        _ source: UnsafePointer<Float>, stride: Int, rows: Int, width: Int, _ kernels: KernelSet,
        _ body: (UnsafePointer<Float>) -> Void
    ) {
        let slots = ElementKind.bfloat16.slots(width)
        withUnsafeTemporaryAllocation(byteCount: 4 * rows * (width + slots), alignment: 64) { memory in
            let floats = memory.bindMemory(to: Float.self)
            guard let dense = floats.baseAddress else { return }
            let halves = dense + rows * width
            kernels.bfloat16Functions.round_rows(source, stride, rows, width, 1, halves, slots)
            for row in 0..<rows { widen(halves + row * slots, count: width, into: dense + row * width) }
            body(dense)
        }
    }

    /// A bfloat16 is the upper half of its float.
    private static func widen(_ halves: UnsafePointer<Float>, count: Int, into floats: UnsafeMutablePointer<Float>) {
        halves.withMemoryRebound(to: UInt16.self, capacity: count) { halves in
            floats.withMemoryRebound(to: UInt32.self, capacity: count) { bits in
                for index in 0..<count { bits[index] = UInt32(halves[index]) << 16 }
            }
        }
    }
}
