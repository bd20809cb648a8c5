// Tensors of a file, read by position and converted to float32 or integers.

/// One tensor of a file.
public struct StoredTensor: Sendable, Equatable {
    /// What its elements are stored in (`dtype`).
    public let elementType: ElementType
    /// Dimensions, outermost first; empty for a scalar.
    public let shape: [Int]
    /// Where its bytes lie, counted from the start of the file; from its first element to its last where others lie between.
    public let byteRange: Range<Int>
    /// Elements from one to the next in each dimension; nil where they lie one after the other in row-major order.
    let strides: [Int]?

    init(elementType: ElementType, shape: [Int], byteRange: Range<Int>, strides: [Int]? = nil) {
        self.elementType = elementType
        self.shape = shape
        self.byteRange = byteRange
        self.strides = strides
    }

    /// Product of the dimensions; the header's check has shown that it does not overflow.
    public var elementCount: Int { shape.reduce(1, *) }

    /// Where an element of the row-major order lies, in elements from the first one.
    fileprivate func place(of element: Int) -> Int {
        guard let strides else { return element }
        var (rest, place) = (element, 0)
        for (size, stride) in zip(shape, strides).reversed() {
            place += rest % size * stride
            rest /= size
        }
        return place
    }
}

/// An open file of tensors whose header has been validated: safetensors, or what PyTorch's `torch.save` writes.
///
/// Reads name their position, so ranks and threads may read different parts at the same time, and a part of a
/// tensor is read without the rest.
public struct TensorFile: Sendable {
    /// How files hold tensors.
    public enum Format: Sendable {
        case safetensors
        /// `pytorch_model.bin`.
        case torch
    }

    private let file: ReadableFile
    /// Whether readings are noted, as those of a checkpoint are, whose ranks compare what they have read.
    private let isNoted: Bool
    /// How this one does.
    public let format: Format
    /// All tensors by name.
    public let tensors: [String: StoredTensor]
    /// Names in the order of their bytes in the file.
    public let names: [String]
    /// The free-form `__metadata__` of a safetensors header.
    public let metadata: [String: String]

    /// The file, as the caller named it.
    public var path: String { file.path }
    /// Bytes of the whole file.
    public var byteCount: Int { file.byteCount }

    /// Opens the file at `path` and validates its header: each tensor's type and shape against its bytes, and of
    /// safetensors that the tensors cover the file without gap or overlap. Which format it has is told by its first bytes.
    public init(path: String) throws(FileError) { try self.init(path: path, isNoted: false) }

    package init(path: String, isNoted: Bool) throws(FileError) {
        let file = try ReadableFile(path: path)
        if isNoted, let notes = ReadNotes.current { notes.add(opened: try file.identity()) }
        self.file = file
        self.isNoted = isNoted
        if TorchHeader.begins(try file.bytes(0..<min(4, file.byteCount))) {
            let header = try TorchHeader(of: file)
            (format, tensors, names, metadata) = (.torch, header.tensors, header.names, [:])
        } else {
            let header = try SafetensorsHeader(of: file)
            (format, tensors, names, metadata) = (.safetensors, header.tensors, header.names, header.metadata)
        }
    }

    /// All elements of a tensor as float32, row-major; F64, F16 and BF16 are converted.
    ///
    /// - Parameters:
    ///   - name: the tensor's, as the file has it.
    ///   - shape: what the tensor's shape must be; nil accepts any.
    public func readFloat32(_ name: String, expecting shape: [Int]? = nil) throws(FileError) -> [Float] {
        let tensor = try tensor(name, expecting: shape)
        var values = [Float](repeating: 0, count: tensor.elementCount)
        var failure: FileError?
        values.withUnsafeMutableBufferPointer { buffer in
            do throws(FileError) { try readFloat32(name, range: 0..<buffer.count, into: buffer) } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return values
    }

    /// Elements `range` of a tensor's row-major order as float32, written to the start of `buffer`.
    ///
    /// - Precondition: `buffer` holds at least `range.count` elements and `range` lies inside the tensor.
    public func readFloat32(_ name: String, range: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>)
        throws(FileError)
    {
        let tensor = try tensor(name, expecting: nil)
        precondition(
            range.lowerBound >= 0 && range.upperBound <= tensor.elementCount,
            "elements \(range) of a tensor of \(tensor.elementCount)")
        precondition(buffer.count >= range.count, "a buffer of \(buffer.count) for \(range.count) elements")
        guard isNoted, let notes = ReadNotes.current else {
            return try readFloat32(tensor, name, range: range, into: buffer)
        }
        // In pieces that are still in the cache when their digest is taken.
        var digest = WordDigest()
        for first in stride(from: 0, to: range.count, by: Self.pieceElements) {
            let count = min(Self.pieceElements, range.count - first)
            let piece = UnsafeMutableBufferPointer(rebasing: buffer[first..<first + count])
            try readFloat32(
                tensor, name, range: range.lowerBound + first..<range.lowerBound + first + count, into: piece)
            digest.add(piece.baseAddress, words: count, first: range.lowerBound + first)
        }
        notes.add(tensor: name, digest)
    }

    /// 128 KiB.
    private static let pieceElements = 1 << 15

    private func readFloat32(
        _ tensor: StoredTensor, _ name: String, range: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>
    ) throws(FileError) {
        switch tensor.elementType {
        case .float32 where tensor.strides == nil:
            let bytes = UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[..<range.count]))
            try file.read(at: tensor.byteRange.lowerBound + 4 * range.lowerBound, into: bytes)
        case .float32:
            try convert(tensor, range) { (index: Int, bits: UInt32) in buffer[index] = Float(bitPattern: bits) }
        case .float16:
            try convert(tensor, range) { (index: Int, bits: UInt16) in buffer[index] = float32(fromFloat16: bits) }
        case .bfloat16:
            try convert(tensor, range) { (index: Int, bits: UInt16) in
                buffer[index] = Float(bitPattern: UInt32(bits) << 16)
            }
        case .float64:
            try convert(tensor, range) { (index: Int, bits: UInt64) in buffer[index] = Float(Double(bitPattern: bits)) }
        default:
            throw FileError(
                .malformed, path: path,
                "tensor '\(name)': has dtype \(tensor.elementType.rawValue) where F32, F16, BF16 or F64 is needed; convert the file"
            )
        }
    }

    /// Bytes of the file from `offset` on, to fill `buffer`.
    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        try file.read(at: offset, into: buffer)
    }

    /// All elements of an I32 or I64 tensor, row-major.
    public func readIntegers(_ name: String, expecting shape: [Int]? = nil) throws(FileError) -> [Int] {
        let tensor = try tensor(name, expecting: shape)
        var values = [Int](repeating: 0, count: tensor.elementCount)
        switch tensor.elementType {
        case .int32:
            try convert(tensor, 0..<values.count) { (index: Int, bits: UInt32) in
                values[index] = Int(Int32(bitPattern: bits))
            }
        case .int64:
            try convert(tensor, 0..<values.count) { (index: Int, bits: UInt64) in
                values[index] = Int(Int64(bitPattern: bits))
            }
        default:
            throw FileError(
                .malformed, path: path,
                "tensor '\(name)': has dtype \(tensor.elementType.rawValue) where I32 or I64 is needed; convert the file"
            )
        }
        return values
    }

    /// The bytes of all elements of a tensor in row-major order, as they are stored.
    public func bytes(of name: String) throws(FileError) -> [UInt8] {
        let tensor = try tensor(name, expecting: nil)
        let bytes = try file.bytes(tensor.byteRange)
        guard tensor.strides != nil else { return bytes }
        let width = tensor.elementType.bitWidth / 8
        return (0..<tensor.elementCount).flatMap { element in
            bytes[tensor.place(of: element) * width..<(tensor.place(of: element) + 1) * width]
        }
    }

    /// The description of a tensor that must exist and, where `shape` is given, have that shape.
    public func tensor(_ name: String, expecting shape: [Int]?) throws(FileError) -> StoredTensor {
        guard let tensor = tensors[name] else {
            let similar = similarNames(to: name, among: names)
            let hint = similar.isEmpty ? "the file holds no tensor" : "similar: " + similar.joined(separator: ", ")
            throw FileError(.malformed, path: path, "tensor '\(name)' is missing (\(hint)); use a file that holds it")
        }
        if let shape, shape != tensor.shape {
            throw FileError(
                .malformed, path: path,
                "tensor '\(name)': expected shape \(shape), found \(tensor.shape); the weights do not fit the model, use matching files"
            )
        }
        return tensor
    }

    /// Reads `range` of a tensor piece by piece and hands each element's little-endian bits to `store`.
    private func convert<Bits: FixedWidthInteger & UnsignedInteger>(
        _ tensor: StoredTensor, _ range: Range<Int>, _ store: (Int, Bits) -> Void
    ) throws(FileError) {
        let width = MemoryLayout<Bits>.size
        if tensor.strides != nil { return try convertScattered(tensor, range, store) }
        let pieceElements = (1 << 20) / width
        var piece = [UInt8](repeating: 0, count: min(pieceElements, range.count) * width)
        var done = 0
        while done < range.count {
            let count = min(pieceElements, range.count - done)
            let offset = tensor.byteRange.lowerBound + (range.lowerBound + done) * width
            var failure: FileError?
            piece.withUnsafeMutableBytes { bytes in
                do throws(FileError) {
                    try file.read(at: offset, into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<(count * width)]))
                } catch { failure = error }
                guard failure == nil else { return }
                for index in 0..<count {
                    store(
                        done + index,
                        Bits(littleEndian: bytes.loadUnaligned(fromByteOffset: index * width, as: Bits.self)))
                }
            }
            if let failure { throw failure }
            done += count
        }
    }
}

extension TensorFile {
    /// As ``convert``, of a tensor whose elements do not lie in order: all bytes that it lies in are read at once.
    private func convertScattered<Bits: FixedWidthInteger & UnsignedInteger>(
        _ tensor: StoredTensor, _ range: Range<Int>, _ store: (Int, Bits) -> Void
    ) throws(FileError) {
        let bytes = try file.bytes(tensor.byteRange)
        bytes.withUnsafeBytes { bytes in
            for (index, element) in range.enumerated() {
                let offset = tensor.place(of: element) * MemoryLayout<Bits>.size
                store(index, Bits(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Bits.self)))
            }
        }
    }
}

/// Up to three names that share most with `name`: dotted components from the end and from the start.
package func similarNames(to name: String, among names: some Sequence<String>) -> [String] {
    func components(_ text: String) -> [Substring] { text.split(separator: ".") }
    func common<S: Sequence<Substring>>(_ left: S, _ right: S) -> Int {
        zip(left, right).prefix { $0 == $1 }.underestimatedOrExactCount
    }
    let wanted = components(name)
    let scored = names.map { candidate -> (score: Int, name: String) in
        let parts = components(candidate)
        let ends = common(Array(wanted.reversed()), Array(parts.reversed()))
        let starts = common(wanted, parts)
        return (2 * ends + 2 * starts - abs(wanted.count - parts.count), candidate)
    }
    return scored.sorted { ($1.score, $0.name) < ($0.score, $1.name) }.prefix(3).map(\.name)
}

extension Sequence {
    fileprivate var underestimatedOrExactCount: Int { reduce(0) { count, _ in count + 1 } }
}
