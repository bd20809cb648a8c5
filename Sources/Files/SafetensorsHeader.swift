// The header of a safetensors file, validated completely before any of it is believed.

/// Names, types, shapes and places of the tensors of a file.
///
/// The format: eight bytes of little-endian header length, the header in JSON, then the tensors, which must
/// cover the rest of the file without gap or overlap.
struct SafetensorsHeader {
    /// The limit of the reference implementation.
    static let lengthLimit = 100_000_000

    let tensors: [String: StoredTensor]
    /// Tensor names in the order of their bytes.
    let names: [String]
    let metadata: [String: String]

    /// Validates the header of `file`.
    init(of file: ReadableFile) throws(FileError) {
        let path = file.path
        guard file.byteCount >= 8 else {
            throw FileError(
                .malformed, path: path, "has \(file.byteCount) bytes, too few for a safetensors header; fetch it again")
        }
        let lengthBytes = try file.bytes(0..<8)
        let length = lengthBytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        if lengthBytes.starts(with: Array("version ".utf8)) {
            throw FileError(
                .malformed, path: path,
                "is a Git LFS pointer, not the weights themselves; run `git lfs pull` in its folder")
        }
        guard length <= UInt64(Self.lengthLimit), Int(length) <= file.byteCount - 8 else {
            throw FileError(
                .malformed, path: path,
                "byte 0: a header of \(length) bytes does not fit a file of \(file.byteCount); the file is truncated or not safetensors, fetch it again"
            )
        }
        let dataStart = 8 + Int(length)
        let headerBytes = try file.bytes(8..<dataStart)
        guard headerBytes.first == UInt8(ascii: "{") else {
            throw FileError(
                .malformed, path: path,
                "byte 8: the header does not begin with {; the file is not safetensors, fetch it again")
        }
        let header = try JSON.parse(
            headerBytes, path: "\(path) (header, which starts at byte 8)", duplicateKeys: .refused)
        guard case .object(let object) = header else {
            throw FileError(.malformed, path: path, "byte 8: the header is not an object; fetch the file again")
        }

        var tensors: [String: StoredTensor] = [:]
        var metadata: [String: String] = [:]
        for member in object.members {
            if member.key == "__metadata__" {
                for entry in member.value.object?.members ?? [] { metadata[entry.key] = entry.value.string }
                continue
            }
            let tensor = try Self.tensor(named: member.key, member.value, dataStart: dataStart, path: path)
            guard tensors.updateValue(tensor, forKey: member.key) == nil else {
                throw FileError(
                    .malformed, path: path, "tensor '\(member.key)': the name stands twice; write the file again")
            }
        }
        let names = tensors.keys.sorted {
            let (left, right) = (tensors[$0]!.byteRange, tensors[$1]!.byteRange)
            return (left.lowerBound, left.upperBound, $0) < (right.lowerBound, right.upperBound, $1)
        }
        try Self.checkCoverage(
            names.map { ($0, tensors[$0]!.byteRange) }, dataStart: dataStart, fileBytes: file.byteCount, path: path)
        self.tensors = tensors
        self.names = names
        self.metadata = metadata
    }

    private static func tensor(named name: String, _ entry: JSON, dataStart: Int, path: String) throws(FileError)
        -> StoredTensor
    {
        func failure(_ what: String) -> FileError {
            FileError(.malformed, path: path, "tensor '\(name)': \(what); fetch or write the file again")
        }
        guard let typeName = entry["dtype"]?.string else { throw failure("has no dtype") }
        guard let elementType = ElementType(rawValue: typeName) else {
            throw failure("has the unknown dtype \(typeName)")
        }
        guard let dimensions = entry["shape"]?.array else { throw failure("has no shape") }
        var shape: [Int] = []
        for dimension in dimensions {
            guard case .integer(let value) = dimension, value >= 0 else {
                throw failure("has a dimension that is not a whole number")
            }
            shape.append(value)
        }
        guard case .integer(let begin)? = entry["data_offsets"]?[0],
            case .integer(let end)? = entry["data_offsets"]?[1],
            entry["data_offsets"]?.array?.count == 2
        else { throw failure("has no pair of data_offsets") }
        guard begin >= 0, begin <= end, end <= Int.max - dataStart else {
            throw failure("has impossible data_offsets [\(begin), \(end)]")
        }
        guard let count = Files.elementCount(of: shape), let byteCount = elementType.byteCount(elements: count)
        else {
            throw failure("has shape \(shape), too large or not whole bytes as \(typeName)")
        }
        guard byteCount == end - begin else {
            throw failure(
                "\(typeName) of shape \(shape) needs \(byteCount) bytes, yet its data_offsets [\(begin), \(end)] span \(end - begin)"
            )
        }
        return StoredTensor(elementType: elementType, shape: shape, byteRange: dataStart + begin..<dataStart + end)
    }

    /// The tensors, in the order of their bytes, must follow each other from `dataStart` to the end of the file.
    private static func checkCoverage(
        _ ranges: [(name: String, bytes: Range<Int>)], dataStart: Int, fileBytes: Int, path: String
    ) throws(FileError) {
        var end = dataStart
        for (name, bytes) in ranges {
            guard bytes.upperBound <= fileBytes else {
                throw FileError(
                    .malformed, path: path,
                    "tensor '\(name)': its bytes \(bytes.lowerBound)..<\(bytes.upperBound) go beyond the file's \(fileBytes); the file is truncated, fetch it again"
                )
            }
            guard bytes.lowerBound == end else {
                let what =
                    bytes.lowerBound < end
                    ? "overlap the tensor before, which ends" : "leave a gap after the tensor before, which ends"
                throw FileError(
                    .malformed, path: path,
                    "tensor '\(name)': its bytes \(bytes.lowerBound)..<\(bytes.upperBound) \(what) at byte \(end); fetch or write the file again"
                )
            }
            end = bytes.upperBound
        }
        guard end == fileBytes else {
            throw FileError(
                .malformed, path: path,
                "byte \(end): \(fileBytes - end) bytes belong to no tensor; the header and the data do not match, fetch or write the file again"
            )
        }
    }
}

extension ReadableFile {
    /// The bytes of a range that the caller has checked against ``byteCount``.
    func bytes(_ range: Range<Int>) throws(FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        var failure: FileError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(FileError) { try read(at: range.lowerBound, into: buffer) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }
}
