// Masks and modifiers from the command line and from files, checked against the arrays they apply to.

import ArgumentParser
import Attention
import Files
import Pipelines
import Plans

enum MaskInput {
    static let help = """
        Which keys a query sees: \(Mask.names.joined(separator: ", ")); \
        combined with !, & and | in that precedence, or not, and, or, and parentheses. \
        Aligned at the bottom right: query row r stands at r + Lk − Lq.
        """

    /// The mask of an expression.
    /// - Throws: `MaskSyntaxError`; `FileError` where the file of a `blocks` mask is no matrix of booleans.
    static func mask(_ expression: String) throws -> Mask { try Mask(parsing: expression, blocks: readBlocks) }

    /// The mask, if it fits the sequence.
    /// - Throws: as `mask`, and `JobError` where it does not fit.
    static func mask(_ expression: String, for shape: SequenceShape) throws -> Mask {
        let mask = try mask(expression)
        if let fault = mask.incompatibility(with: shape) { throw JobError(.usage, "--mask '\(expression)': \(fault)") }
        return mask
    }

    /// Checks the syntax alone, without opening files: what the command line can be refused for at once.
    static func check(_ expression: String) throws {
        _ = try Mask(parsing: expression) { _, size in BlockMask(size: size, rows: 0, columns: 0, cells: []) }
    }

    /// A `.npy` of booleans or bytes [rows, columns], C order.
    private static func readBlocks(path: String, size: Int) throws -> BlockMask {
        let array = try NumpyArray(path: path)
        guard array.shape.count == 2 else {
            throw FileError(.malformed, path: path, "has the shape \(array.shape), and a block mask has two dimensions")
        }
        return BlockMask(size: size, rows: array.shape[0], columns: array.shape[1], cells: array.bytes.map { $0 != 0 })
    }
}

enum ScoreInput {
    /// - Throws: `ValidationError` where a cap could not be one.
    static func check(softcap: Float?) throws {
        if let softcap, !(softcap.isFinite && softcap > 0) {
            throw ValidationError("--softcap takes a positive number, not \(softcap)")
        }
    }
}

extension Sharding {
    /// Where a tile's tokens stand in arrays that hold pieces one after another.
    /// - Parameter first: where each piece starts.
    func tokens(of tile: Int, first: [Int]) -> Range<Int> {
        let start = first[numbering.sequence(of: tile)]
        let tokens = numbering.tokens(of: tile)
        return start + tokens.lowerBound..<start + tokens.upperBound
    }
}
