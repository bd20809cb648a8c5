// A safetensors file written anew with other values, and everything else as it was.

extension TensorFile {
    /// Writes the file again, byte for byte but for the values of some of its tensors: the text of its header, and the
    /// order and types of all tensors stay.
    ///
    /// - Parameters:
    ///   - values: gives new values for elements of a tensor, in row-major order, in memory for as many; they are rounded
    ///     to the tensor's type, to the nearest, ties to even. Returns false for a tensor that stays as it is.
    ///   - write: takes bytes and where they belong in the new file; called from its start to its end.
    /// - Throws: `FileError` where the file cannot be read, or new values are given for a tensor whose type is not F32,
    ///   F16, BF16 or F64; what `values` and `write` throw.
    public func rewrite(
        values: (_ name: String, _ range: Range<Int>, _ into: UnsafeMutableBufferPointer<Float>) throws(FileError) ->
            Bool,
        write: (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws(FileError) -> Void
    ) throws(FileError) {
        guard format == .safetensors else {
            throw FileError(
                .malformed, path: path, "is not safetensors, which alone is written; convert it (save_pretrained)")
        }
        var piece = Piece(elements: Self.rewrittenElements)
        // The header, and the spaces that some writers put behind it.
        let dataStart = names.lazy.compactMap { tensors[$0]?.byteRange.lowerBound }.min() ?? byteCount
        try copy(0..<dataStart, &piece, write)
        for name in names {
            guard let tensor = tensors[name] else { continue }
            guard tensor.elementCount > 0 else { continue }
            var done = 0
            while done < tensor.elementCount {
                let range = done..<min(done + Self.rewrittenElements, tensor.elementCount)
                let floats = UnsafeMutableBufferPointer(rebasing: piece.floats[..<range.count])
                guard try values(name, range, floats) else {
                    precondition(done == 0, "new values for a part of tensor \(name)")
                    break
                }
                guard let width = piece.encode(range.count, as: tensor.elementType) else {
                    throw FileError(
                        .malformed, path: path,
                        "tensor '\(name)': has dtype \(tensor.elementType.rawValue), which cannot take new values; convert the file"
                    )
                }
                try write(
                    tensor.byteRange.lowerBound + range.lowerBound * width,
                    UnsafeRawBufferPointer(rebasing: piece.bytes[..<(range.count * width)]))
                done = range.upperBound
            }
            if done == 0 { try copy(tensor.byteRange, &piece, write) }
        }
    }

    private static let rewrittenElements = 1 << 17

    private func copy(
        _ range: Range<Int>, _ piece: inout Piece, _ write: (Int, UnsafeRawBufferPointer) throws(FileError) -> Void
    ) throws(FileError) {
        var start = range.lowerBound
        while start < range.upperBound {
            let count = min(range.upperBound - start, piece.bytes.count)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: piece.bytes[..<count])
            try read(at: start, into: bytes)
            try write(start, UnsafeRawBufferPointer(bytes))
            start += count
        }
    }

    /// Memory for some elements as float32 and as they are stored.
    private struct Piece: ~Copyable {
        let floats: UnsafeMutableBufferPointer<Float>
        let bytes: UnsafeMutableRawBufferPointer

        init(elements: Int) {
            floats = .allocate(capacity: elements)
            floats.initialize(repeating: 0)
            bytes = .allocate(byteCount: elements * 8, alignment: 64)
        }

        deinit {
            floats.deallocate()
            bytes.deallocate()
        }

        /// Stores the first `count` floats as `type`, little-endian; returns the bytes of each, nil for a type that is no
        /// floating-point one or too narrow.
        mutating func encode(_ count: Int, as type: ElementType) -> Int? {
            switch type {
            case .float32: return store(count) { $0.bitPattern }
            case .float64: return store(count) { Double($0).bitPattern }
            case .bfloat16: return store(count, bfloat16(rounding:))
            case .float16: return store(count, float16(rounding:))
            default: return nil
            }
        }

        private func store<Bits: FixedWidthInteger>(_ count: Int, _ encode: (Float) -> Bits) -> Int {
            let width = MemoryLayout<Bits>.size
            for index in 0..<count {
                bytes.storeBytes(of: encode(floats[index]).littleEndian, toByteOffset: index * width, as: Bits.self)
            }
            return width
        }
    }
}

/// The bfloat16 pattern nearest to a value, ties to even; NaN stays NaN.
package func bfloat16(rounding value: Float) -> UInt16 {
    let bits = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
}

/// The IEEE 754 binary16 pattern nearest to a value, ties to even; what is too large becomes infinite, NaN stays NaN.
package func float16(rounding value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
    let magnitude = value.bitPattern & 0x7FFF_FFFF
    if magnitude > 0x7F80_0000 { return sign | 0x7E00 | UInt16(truncatingIfNeeded: magnitude >> 13) & 0x1FF }
    // From half of what follows the largest number on: 65520.
    if magnitude >= 0x477F_F000 { return sign | 0x7C00 }
    if magnitude < 0x3880_0000 {
        // Below 2⁻¹⁴ a unit is 2⁻²⁴: adding a number whose own unit is that rounds there.
        let sum = Float(bitPattern: magnitude) + 0.5
        return sign | UInt16(truncatingIfNeeded: sum.bitPattern &- 0x3F00_0000)
    }
    let rounded = magnitude &+ 0xFFF &+ (magnitude >> 13 & 1)
    return sign | UInt16(truncatingIfNeeded: (rounded >> 13) &- (112 << 10))
}
