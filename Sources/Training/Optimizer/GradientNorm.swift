// The norm of all gradients, by which they are clipped.

import Matrices
import RingAttention
import Tiles

/// The Euclidean norm of the gradients of all parameters.
public enum GradientNorm {
    /// The norm, on every rank. Collective; control traffic of 8 bytes a block.
    ///
    /// Squares sum in double precision within a block, and blocks in their order, so no bit depends on who owns them.
    /// - Parameters:
    ///   - gradient: of this rank's blocks.
    ///   - blocks: the parameters.
    /// - Throws: what the transport throws.
    public static func norm(
        _ gradient: AlignedBuffer, _ blocks: ParameterBlocks, over transport: any Transport, threads: ThreadPool
    ) throws -> Double {
        let mine = blocks.blocks(of: transport.rank, of: transport.size)
        let start = blocks.floats(of: mine).lowerBound
        var sums = [Double](repeating: 0, count: mine.count)
        sums.withUnsafeMutableBufferPointer { sums in
            threads.forEach(sums.count) { index, _ in
                let block = blocks.floats(of: mine.lowerBound + index..<mine.lowerBound + index + 1)
                // Disjoint: each index has its own sum.
                sums[index] = lanedSumOfSquares(gradient.pointer + (block.lowerBound - start), block.count)
            }
        }
        let all = try transport.allGather(sums.withUnsafeBytes { Array($0) })
        var total = 0.0
        for bytes in all {
            bytes.withUnsafeBytes { raw in
                for index in 0..<raw.count / 8 {
                    total += raw.loadUnaligned(fromByteOffset: 8 * index, as: Double.self)
                }
            }
        }
        return total.squareRoot()
    }

    /// What gradients are multiplied by so that their norm is at most `most`, as `torch.nn.utils.clip_grad_norm_` has it;
    /// 1 where `most` is 0, which clips nothing.
    public static func factor(norm: Double, most: Double) -> Float {
        most > 0 ? Float(min(1, most / (norm + 1e-6))) : 1
    }
}
