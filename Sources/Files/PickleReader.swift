// Pickles of PyTorch read as data: a closed list of opcodes, of which none runs code.

/// A value that a pickle builds. Tuples, lists and dictionaries are numbers of those that the reader keeps, so that one
/// inside another, however deep, is neither copied nor freed by recursion.
enum PickleValue: Equatable {
    case none
    case bool(Bool)
    case integer(Int)
    case float(Double)
    case text(String)
    /// A name that the pickle would import: `torch._utils _rebuild_tensor_v2`. It is looked at and never called.
    case name(String)
    case tuple(Int)
    case list(Int)
    case dictionary(Int)
    /// Numbers in a file's storage.
    case storage(Storage)
    case tensor(Tensor)

    /// Numbers of one type that lie one after the other.
    struct Storage: Equatable {
        let key: String
        let elementType: ElementType
        let count: Int
    }

    /// A view of a storage.
    struct Tensor: Equatable {
        let storage: Storage
        let offset: Int
        let shape: [Int]
        let strides: [Int]
    }
}

/// Runs one pickle: Python's stack machine without its calls. Opcodes, in the words of Python's `pickletools`: PROTO, MARK,
/// STOP, NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1 (of at most eight bytes), BINFLOAT, BINUNICODE,
/// SHORT_BINSTRING, EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3, EMPTY_LIST, APPEND, APPENDS, EMPTY_DICT, SETITEM, SETITEMS,
/// BINPUT, LONG_BINPUT, BINGET, LONG_BINGET, GLOBAL, BINPERSID of storages, REDUCE of `collections.OrderedDict`,
/// `torch._utils._rebuild_tensor_v2` and `torch._utils._rebuild_parameter`, and BUILD of an ordered dictionary, whose
/// attributes are left out. Anything else is refused.
struct PickleReader {
    private let bytes: [UInt8]
    private let path: String
    /// Where the bytes begin in the file, for messages.
    private let start: Int
    /// Behind the last pickle that was read.
    private(set) var position: Int
    private var stack: [PickleValue] = []
    /// The stacks below the marks.
    private var marked: [[PickleValue]] = []
    private var memo: [Int: PickleValue] = [:]
    private var tuples: [[PickleValue]] = []
    private var lists: [[PickleValue]] = []
    private var dictionaries: [(isOrdered: Bool, members: [(key: Key, value: PickleValue)])] = []
    /// Storages that were named, by their keys.
    private(set) var storages: [String: PickleValue.Storage] = [:]
    /// How many parts the name of a storage has: five, or before PyTorch 1.6 six, of which the last is none.
    private let storageParts: Int

    /// What a member of a dictionary is found by.
    enum Key: Hashable {
        case text(ExactString)
        case integer(Int)
    }

    init(_ bytes: [UInt8], path: String, start: Int, storageParts: Int) {
        self.bytes = bytes
        self.path = path
        self.start = start
        self.storageParts = storageParts
        position = 0
    }

    func failure(_ text: String, at place: Int? = nil) -> FileError {
        FileError(
            .malformed, path: path,
            "byte \(start + (place ?? position)): \(text); save the model again, best as safetensors (save_pretrained)")
    }

    /// The elements of a tuple or list.
    func elements(_ value: PickleValue) -> [PickleValue]? {
        switch value {
        case .tuple(let number): tuples[number]
        case .list(let number): lists[number]
        default: nil
        }
    }

    /// The members of a dictionary in the order in which they were first set; of equal keys the last counts.
    func members(_ value: PickleValue) -> [(key: Key, value: PickleValue)]? {
        guard case .dictionary(let number) = value else { return nil }
        var places: [Key: Int] = [:]
        var members: [(key: Key, value: PickleValue)] = []
        for member in dictionaries[number].members {
            if let place = places[member.key] {
                members[place].value = member.value
            } else {
                places[member.key] = members.count
                members.append(member)
            }
        }
        return members
    }

    /// The value of the next pickle.
    mutating func read() throws(FileError) -> PickleValue {
        (stack, marked, memo) = ([], [], [:])
        while true {
            let place = position
            let code = try byte()
            switch code {
            case 0x80: guard try byte() == 2 else { throw failure("a pickle of another protocol than 2", at: place) }
            case UInt8(ascii: "."):
                let value = try pop()
                return value
            case UInt8(ascii: "("):
                marked.append(stack)
                stack = []
            case UInt8(ascii: "N"): stack.append(.none)
            case 0x88: stack.append(.bool(true))
            case 0x89: stack.append(.bool(false))
            case UInt8(ascii: "J"): stack.append(.integer(Int(Int32(truncatingIfNeeded: try number(4)))))
            case UInt8(ascii: "K"): stack.append(.integer(try number(1)))
            case UInt8(ascii: "M"): stack.append(.integer(try number(2)))
            case 0x8A: stack.append(.integer(try long(place)))
            case UInt8(ascii: "G"):
                let bits = try take(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                stack.append(.float(Double(bitPattern: bits)))
            case UInt8(ascii: "X"): stack.append(.text(try text(try number(4), place)))
            case UInt8(ascii: "U"): stack.append(.text(try text(try number(1), place)))
            case UInt8(ascii: ")"): pushTuple([])
            case UInt8(ascii: "t"): pushTuple(try popMark())
            case 0x85, 0x86, 0x87:
                let count = Int(code - 0x84)
                guard stack.count >= count else { throw underflow(place) }
                let values = Array(stack.suffix(count))
                stack.removeLast(count)
                pushTuple(values)
            case UInt8(ascii: "]"):
                stack.append(.list(lists.count))
                lists.append([])
            case UInt8(ascii: "a"):
                let value = try pop()
                lists[try topList(place)].append(value)
            case UInt8(ascii: "e"):
                let values = try popMark()
                lists[try topList(place)] += values
            case UInt8(ascii: "}"): pushDictionary(isOrdered: false)
            case UInt8(ascii: "s"):
                let value = try pop()
                let key = try pop()
                dictionaries[try topDictionary(place)].members.append((try hashable(key, place), value))
            case UInt8(ascii: "u"):
                let values = try popMark()
                guard values.count % 2 == 0 else { throw failure("a key without a value", at: place) }
                let number = try topDictionary(place)
                for index in stride(from: 0, to: values.count, by: 2) {
                    dictionaries[number].members.append((try hashable(values[index], place), values[index + 1]))
                }
            case UInt8(ascii: "q"): memo[try number(1)] = try top(place)
            case UInt8(ascii: "r"): memo[try number(4)] = try top(place)
            case UInt8(ascii: "h"): stack.append(try recalled(try number(1), place))
            case UInt8(ascii: "j"): stack.append(try recalled(try number(4), place))
            case UInt8(ascii: "c"):
                let module = try line(place)
                let name = try line(place)
                stack.append(.name(module + " " + name))
            case UInt8(ascii: "Q"):
                let identifier = try pop()
                stack.append(.storage(try storage(identifier, place)))
            case UInt8(ascii: "R"):
                let arguments = try pop()
                let function = try pop()
                try reduce(function, arguments, place)
            case UInt8(ascii: "b"):
                // Attributes of an ordered dictionary, as transformers' modules leave their versions there.
                let state = try pop()
                guard case .dictionary = state, dictionaries[try topDictionary(place)].isOrdered else {
                    throw failure("attributes of what is no ordered dictionary", at: place)
                }
            default:
                throw failure(
                    "the opcode 0x\(String(code, radix: 16)), which pickles of tensors do not need and which is not read",
                    at: place)
            }
        }
    }

    // MARK: Bytes

    private mutating func take(_ count: Int) throws(FileError) -> ArraySlice<UInt8> {
        guard count <= bytes.count - position else { throw failure("the pickle ends in the middle of a value") }
        position += count
        return bytes[position - count..<position]
    }

    private mutating func byte() throws(FileError) -> UInt8 {
        guard position < bytes.count else { throw failure("the pickle does not end") }
        position += 1
        return bytes[position - 1]
    }

    /// A number of so many bytes, the lowest first.
    private mutating func number(_ count: Int) throws(FileError) -> Int {
        try take(count).reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    /// A number of any length, the lowest byte first, in two's complement.
    private mutating func long(_ place: Int) throws(FileError) -> Int {
        let bytes = try take(try number(1))
        // Ten bytes are needed for a magic number, which is compared and not computed with.
        guard bytes.count <= 8 || bytes.elementsEqual(Self.magic) else {
            throw failure("an integer of \(bytes.count) bytes", at: place)
        }
        if bytes.count > 8 { return Self.magicNumber }
        let value = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let shift = UInt64(64 - 8 * bytes.count)
        return bytes.isEmpty ? 0 : Int(Int64(bitPattern: value << shift) >> Int64(shift))
    }

    /// What files of PyTorch before 1.6 begin with.
    private static let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
    /// What stands for it here.
    static let magicNumber = Int.min + 0x1950

    private mutating func text(_ count: Int, _ place: Int) throws(FileError) -> String {
        let bytes = try take(count)
        guard UTF8Validation.firstInvalidByte(in: bytes) == nil else {
            throw failure("a text that is not UTF-8", at: place)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The bytes up to the end of the line, which are ASCII.
    private mutating func line(_ place: Int) throws(FileError) -> String {
        guard let end = bytes[position...].firstIndex(of: 0x0A), end - position <= 256,
            bytes[position..<end].allSatisfy({ (0x21...0x7E).contains($0) })
        else { throw failure("a name that does not end, or is no name", at: place) }
        defer { position = end + 1 }
        return String(decoding: bytes[position..<end], as: UTF8.self)
    }

    // MARK: The stack

    private func underflow(_ place: Int) -> FileError { failure("a value is taken where there is none", at: place) }

    private mutating func pop() throws(FileError) -> PickleValue {
        guard let value = stack.popLast() else { throw underflow(position - 1) }
        return value
    }

    private func top(_ place: Int) throws(FileError) -> PickleValue {
        guard let value = stack.last else { throw underflow(place) }
        return value
    }

    private mutating func popMark() throws(FileError) -> [PickleValue] {
        guard let below = marked.popLast() else { throw failure("there is no mark", at: position - 1) }
        defer { stack = below }
        return stack
    }

    private mutating func pushTuple(_ values: [PickleValue]) {
        stack.append(.tuple(tuples.count))
        tuples.append(values)
    }

    private mutating func pushDictionary(isOrdered: Bool) {
        stack.append(.dictionary(dictionaries.count))
        dictionaries.append((isOrdered, []))
    }

    private func topList(_ place: Int) throws(FileError) -> Int {
        guard case .list(let number) = try top(place) else { throw failure("what is added to is no list", at: place) }
        return number
    }

    private func topDictionary(_ place: Int) throws(FileError) -> Int {
        guard case .dictionary(let number) = try top(place) else {
            throw failure("what is set in is no dictionary", at: place)
        }
        return number
    }

    private func recalled(_ index: Int, _ place: Int) throws(FileError) -> PickleValue {
        guard let value = memo[index] else { throw failure("value \(index) is used before it is kept", at: place) }
        return value
    }

    /// A key: a text or a number.
    private func hashable(_ key: PickleValue, _ place: Int) throws(FileError) -> Key {
        switch key {
        case .text(let text): return .text(ExactString(text))
        case .integer(let number): return .integer(number)
        default: throw failure("a key that is no text", at: place)
        }
    }

    // MARK: Tensors

    private mutating func storage(_ identifier: PickleValue, _ place: Int) throws(FileError) -> PickleValue.Storage {
        guard case .tuple(let number) = identifier else { throw failure("a reference that is no storage", at: place) }
        let parts = tuples[number]
        guard parts.count == storageParts, parts.count == 5 || parts[5] == .none, parts[0] == .text("storage"),
            case .name(let type) = parts[1], case .text(let key) = parts[2], case .text(let device) = parts[3],
            device == "cpu" || device.hasPrefix("cuda"), case .integer(let count) = parts[4], count >= 0
        else { throw failure("a reference that is no storage of its own", at: place) }
        guard let elementType = Self.storageTypes[type] else {
            throw failure("a storage of the type '\(type)', which is not supported", at: place)
        }
        let storage = PickleValue.Storage(key: key, elementType: elementType, count: count)
        guard storages.updateValue(storage, forKey: key) ?? storage == storage else {
            throw failure("the storage '\(key)' a second time and otherwise", at: place)
        }
        return storage
    }

    private static let storageTypes: [String: ElementType] = [
        "torch FloatStorage": .float32, "torch DoubleStorage": .float64, "torch HalfStorage": .float16,
        "torch BFloat16Storage": .bfloat16, "torch LongStorage": .int64, "torch IntStorage": .int32,
        "torch ShortStorage": .int16, "torch CharStorage": .int8, "torch ByteStorage": .uint8,
        "torch BoolStorage": .bool,
    ]

    private mutating func reduce(_ function: PickleValue, _ arguments: PickleValue, _ place: Int) throws(FileError) {
        guard case .tuple(let number) = arguments else { throw failure("arguments that are no tuple", at: place) }
        let values = tuples[number]
        switch function {
        case .name("collections OrderedDict"):
            guard values.isEmpty else { throw failure("an ordered dictionary made of arguments", at: place) }
            pushDictionary(isOrdered: true)
        case .name("torch._utils _rebuild_tensor_v2"):
            // Storage, offset, shape, strides, whether it is trained, hooks; and what later versions add.
            guard values.count == 6 || values.count == 7 && values[6] == .none, case .storage(let storage) = values[0],
                case .integer(let offset) = values[1], let shape = integers(values[2]),
                let strides = integers(values[3]), case .bool(let isTrained) = values[4],
                !isTrained || storage.elementType.isFloatingPoint, isEmptyDictionary(values[5])
            else { throw failure("a tensor that is not described as tensors are", at: place) }
            try check(storage, offset, shape, strides, place)
            stack.append(.tensor(.init(storage: storage, offset: offset, shape: shape, strides: strides)))
        case .name("torch._utils _rebuild_parameter"):
            guard values.count == 3, case .tensor(let tensor) = values[0], case .bool(let isTrained) = values[1],
                !isTrained || tensor.storage.elementType.isFloatingPoint, isEmptyDictionary(values[2])
            else {
                throw failure("a parameter that is not described as parameters are", at: place)
            }
            stack.append(values[0])
        case .name(let name):
            throw failure("a call of '\(name)', which is not a tensor's and is never run", at: place)
        default: throw failure("a call of what is no function", at: place)
        }
    }

    private func isEmptyDictionary(_ value: PickleValue) -> Bool {
        if case .dictionary(let number) = value { dictionaries[number].members.isEmpty } else { false }
    }

    private func integers(_ value: PickleValue) -> [Int]? {
        guard case .tuple(let number) = value, tuples[number].count <= 64 else { return nil }
        var integers: [Int] = []
        for element in tuples[number] {
            guard case .integer(let integer) = element, integer >= 0 else { return nil }
            integers.append(integer)
        }
        return integers
    }

    /// Throws unless every element of the view lies in its storage, and no two of them are one.
    private func check(_ storage: PickleValue.Storage, _ offset: Int, _ shape: [Int], _ strides: [Int], _ place: Int)
        throws(FileError)
    {
        func refusal() -> FileError { failure("a tensor of shape \(shape) that does not fit its storage", at: place) }
        guard shape.count == strides.count, offset >= 0, let count = elementCount(of: shape), count <= storage.count
        else {
            throw refusal()
        }
        var last = offset
        for (size, stride) in zip(shape, strides) where count > 0 && size > 1 {
            guard stride > 0 else { throw failure("a tensor that repeats its elements", at: place) }
            let (span, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
            let (sum, overflowToo) = last.addingReportingOverflow(span)
            guard !overflow, !overflowToo else { throw refusal() }
            last = sum
        }
        guard count == 0 ? offset <= storage.count : last < storage.count else { throw refusal() }
    }
}
