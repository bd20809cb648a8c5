// Masks and modifiers from the command line and from files, checked against the arrays they apply to.

import ArgumentParser
import Attention
import Checkpoints
import Foundation
import Plans

enum MaskInput {
    static let help = """
        Which keys a query sees: full, causal, window(left,right) (-1: unlimited), documents(n1,n2,…) or documents(q…;k…), \
        prefix(n), global(i,j,…), blocks(FILE.npy,SIZE); combined with !, & and | in that precedence, or not, and, or, and parentheses. \
        Aligned at the bottom right: query row r stands at r + Lk − Lq.
        """

    /// The mask of an expression.
    /// - Throws: `MaskSyntaxError`; `FileError` where the file of a `blocks` mask is no matrix of booleans.
    static func mask(_ expression: String) throws -> Mask { try Mask(parsing: expression, blocks: readBlocks) }

    /// The mask, if it fits the sequence.
    /// - Throws: as `mask`, and `JobError` where it does not fit.
    static func mask(_ expression: String, for shape: SequenceShape) throws -> Mask {
        let mask = try mask(expression)
        if let misfit = mask.misfit(shape) { throw JobError(.usage, "--mask '\(expression)': \(misfit)") }
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
        if let softcap, !(softcap.isFinite && softcap > 0) { throw ValidationError("--softcap takes a positive number, not \(softcap)") }
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

/// The bytes of a small NumPy array of one-byte elements.
struct NumpyArray {
    let shape: [Int]
    let bytes: [UInt8]

    /// Reads a `.npy` file (NEP 1) of type bool, uint8 or int8 in C order.
    init(path: String) throws(FileError) {
        let file = try FileBytes.read(path: path)
        func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }
        guard file.count >= 10, Array(file[0..<6]) == [0x93] + Array("NUMPY".utf8) else {
            throw refuse("is no .npy file; save the array with numpy.save")
        }
        let wide = file[6] >= 2
        guard !wide || file.count >= 12 else { throw refuse("ends inside its header") }
        let length = wide
            ? (0..<4).reduce(0) { $0 | Int(file[8 + $1]) << (8 * $1) } : Int(file[8]) | Int(file[9]) << 8
        let start = wide ? 12 : 10
        guard start + length <= file.count else { throw refuse("ends inside its header") }
        let header = String(decoding: file[start..<start + length], as: UTF8.self)
        func field(_ name: String) -> Substring? {
            guard let range = header.range(of: "'\(name)':") else { return nil }
            return header[range.upperBound...].drop { $0 == " " }
        }
        guard let type = field("descr"), ["'|b1'", "'|u1'", "'|i1'"].contains(where: { type.hasPrefix($0) }) else {
            throw refuse("holds other elements than bool, uint8 or int8; convert it with astype(bool)")
        }
        guard field("fortran_order")?.hasPrefix("False") == true else { throw refuse("is in Fortran order; save numpy.ascontiguousarray of it") }
        guard let dimensions = field("shape"), dimensions.hasPrefix("("), let end = dimensions.firstIndex(of: ")") else {
            throw refuse("has no shape in its header")
        }
        let words = dimensions[..<end].dropFirst().split(separator: ",").map { $0.filter { $0 != " " } }.filter { !$0.isEmpty }
        let sizes = words.compactMap { Int($0) }
        var count = 1
        for size in sizes {
            let (product, overflows) = count.multipliedReportingOverflow(by: size)
            guard size >= 0, !overflows else { throw refuse("has an impossible shape") }
            count = product
        }
        guard sizes.count == words.count, file.count - start - length == count else {
            throw refuse("holds \(file.count - start - length) elements, and its shape \(sizes) says \(count)")
        }
        shape = sizes
        bytes = Array(file[(start + length)...])
    }
}
