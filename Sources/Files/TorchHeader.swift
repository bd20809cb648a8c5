// What a file of PyTorch's `torch.save` holds: tensors, read as data.

/// The tensors of a `pytorch_model.bin` and where their elements lie: of an archive with a pickle (since PyTorch 1.6), or
/// of a row of pickles with storages behind them.
///
/// Nothing that a file says is run; see ``PickleReader`` for what is read. What lies beside tensors in the outermost
/// dictionary is left out.
struct TorchHeader {
    let tensors: [String: StoredTensor]
    /// Tensor names in the order of their bytes.
    let names: [String]

    /// Whether bytes are the beginning of such a file.
    static func begins(_ bytes: [UInt8]) -> Bool {
        bytes.starts(with: ZipDirectory.magic) || bytes.starts(with: [0x80, 0x02, 0x8A, 0x0A])
    }

    /// Larger ones are no list of tensors.
    private static let mostPickleBytes = 1 << 28

    init(of file: ReadableFile) throws(FileError) {
        let isArchive = try file.bytes(0..<min(4, file.byteCount)) == ZipDirectory.magic
        let (reader, root, places) = isArchive ? try Self.archive(file) : try Self.pickles(file)
        guard let members = reader.members(root) else {
            throw FileError(
                .malformed, path: file.path,
                "holds no dictionary of tensors; save the model's state_dict, best as safetensors (save_pretrained)")
        }
        var tensors: [String: StoredTensor] = [:]
        var others: [String] = []
        for (key, value) in members {
            guard case .text(let name) = key else { continue }
            guard case .tensor(let tensor) = value else {
                others.append(name.string)
                continue
            }
            guard let bytes = places[tensor.storage.key] else {
                throw reader.failure("the storage '\(tensor.storage.key)' of tensor '\(name.string)' is missing")
            }
            tensors[name.string] = StoredTensor(tensor, bytes)
        }
        guard !tensors.isEmpty || others.isEmpty else {
            throw FileError(
                .malformed, path: file.path,
                "holds no tensors by name, but \(others.prefix(5).map { "'\($0)'" }.joined(separator: ", ")); save the model's state_dict alone, best as safetensors (save_pretrained)"
            )
        }
        self.tensors = tensors
        names = tensors.keys.sorted {
            (tensors[$0]!.byteRange.lowerBound, $0) < (tensors[$1]!.byteRange.lowerBound, $1)
        }
    }

    private typealias Parts = (reader: PickleReader, root: PickleValue, places: [String: Range<Int>])

    private static func archive(_ file: ReadableFile) throws(FileError) -> Parts {
        let directory = try ZipDirectory(of: file)
        // All lie in one folder, of whatever name.
        let folder = directory.names.first.map { $0.prefix { $0 != "/" } + "/" } ?? ""
        guard let pickle = directory.members[folder + "data.pkl"], pickle.count <= mostPickleBytes else {
            throw FileError(
                .malformed, path: file.path,
                "is an archive without a data.pkl, and not what torch.save writes; fetch it again, or save the model as safetensors"
            )
        }
        if let order = directory.members[folder + "byteorder"], try file.bytes(order) != Array("little".utf8) {
            throw FileError(
                .malformed, path: file.path, "has numbers in another byte order than little; save it again")
        }
        let version = directory.members[folder + ".data/version"] ?? directory.members[folder + "version"]
        guard let version, version.count <= 4,
            let number = Int(String(decoding: try file.bytes(version), as: UTF8.self).prefix { $0 != "\n" }),
            (1...10).contains(number)
        else {
            throw FileError(
                .malformed, path: file.path,
                "is an archive of no version from 1 to 10 of torch.save's format; fetch it again, or save the model as safetensors"
            )
        }
        if let name = directory.members[folder + ".data/serialization_id"], name.count <= 4096,
            let offset = UTF8Validation.firstInvalidByte(in: try file.bytes(name)[...])
        {
            throw ZipDirectory.damaged(file, name.lowerBound + offset, "the archive's own name is no text")
        }
        var reader = PickleReader(try file.bytes(pickle), path: file.path, start: pickle.lowerBound, storageParts: 5)
        let root = try reader.read()
        var places: [String: Range<Int>] = [:]
        for (key, storage) in reader.storages {
            guard let place = directory.members[folder + "data/" + key],
                storage.elementType.byteCount(elements: storage.count) == place.count
            else { throw reader.failure("the storage '\(key)' is missing, or not of \(storage.count) elements") }
            places[key] = place
        }
        return (reader, root, places)
    }

    private static func pickles(_ file: ReadableFile) throws(FileError) -> Parts {
        let bytes = try file.bytes(0..<min(file.byteCount, mostPickleBytes))
        var reader = PickleReader(bytes, path: file.path, start: 0, storageParts: 6)
        let (magic, version, system) = (try reader.read(), try reader.read(), try reader.read())
        guard magic == .integer(PickleReader.magicNumber), version == .integer(1001),
            let facts = reader.members(system),
            facts.contains(where: { $0.key == .text(ExactString("little_endian")) && $0.value == .bool(true) })
        else {
            throw FileError(
                .malformed, path: file.path,
                "is not what torch.save writes on a machine of little byte order; save it again, best as safetensors")
        }
        let root = try reader.read()
        let list = try reader.read()
        var places: [String: Range<Int>] = [:]
        var start = reader.position
        for element in reader.elements(list) ?? [] {
            guard case .text(let key) = element, let storage = reader.storages[key], places[key] == nil,
                let size = storage.elementType.byteCount(elements: storage.count), file.byteCount - start >= 8,
                size <= file.byteCount - start - 8,
                try file.bytes(start..<start + 8).reversed().reduce(UInt64(0), { $0 << 8 | UInt64($1) })
                    == UInt64(storage.count)
            else { throw reader.failure("the storages behind the pickles are not those that these name", at: start) }
            places[key] = start + 8..<start + 8 + size
            start += 8 + size
        }
        return (reader, root, places)
    }
}

extension StoredTensor {
    /// A view of a storage whose bytes lie there.
    fileprivate init(_ tensor: PickleValue.Tensor, _ storage: Range<Int>) {
        let width = tensor.storage.elementType.bitWidth / 8
        let start = storage.lowerBound + tensor.offset * width
        var last = 0
        var dense = 1
        var isDense = true
        for (size, stride) in zip(tensor.shape, tensor.strides).reversed() where size != 1 {
            isDense = isDense && stride == dense
            dense *= size
            last += (size - 1) * stride
        }
        let count = dense
        self.init(
            elementType: tensor.storage.elementType, shape: tensor.shape,
            byteRange: start..<start + (count == 0 ? 0 : (last + 1) * width),
            strides: isDense || count == 0 ? nil : tensor.strides)
    }
}
