// A JSON document as a value, with objects that keep their order and are fast to look up.

/// A JSON value (RFC 8259).
///
/// Strings compare scalar by scalar, not by canonical equivalence as Swift's `String` does: a vocabulary
/// may hold both `é` and `e` followed by a combining acute, and they are different tokens.
public enum JSON: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number written without fraction or exponent that fits an `Int`.
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSON])
    case object(JSONObject)

    /// Whether both are of one kind and have the same contents: the integer 1 is not the number 1.0, and strings
    /// compare scalar by scalar.
    public static func == (left: JSON, right: JSON) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.integer(let a), .integer(let b)): a == b
        case (.number(let a), .number(let b)): a == b
        case (.string(let a), .string(let b)): ExactString(a) == ExactString(b)
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)): a == b
        default: false
        }
    }

    /// The member of that name, or nil where there is none or this is not an object.
    public subscript(_ key: String) -> JSON? {
        if case .object(let object) = self { object[key] } else { nil }
    }

    /// The element at that position, or nil where there is none or this is not an array.
    public subscript(_ position: Int) -> JSON? {
        if case .array(let elements) = self, elements.indices.contains(position) { elements[position] } else { nil }
    }

    /// Whether this is `null`.
    public var isNull: Bool { self == .null }

    /// The string, or nil where this is something else.
    public var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    /// A whole number: also `512.0`, as some writers put it.
    public var int: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }

    /// Any number, or nil where this is none; an integer beyond 2⁵³ is rounded.
    public var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// The truth value, or nil where this is something else.
    public var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    /// The elements, or nil where this is no array.
    public var array: [JSON]? {
        if case .array(let value) = self { value } else { nil }
    }

    /// The members, or nil where this is no object.
    public var object: JSONObject? {
        if case .object(let value) = self { value } else { nil }
    }

    /// What kind of value this is, for messages: "a string", "an object", …
    public var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "a truth value"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    /// Parses the JSON file at `path`, which may hold the numbers NaN, Infinity and -Infinity as Python's writer has them.
    public static func load(path: String) throws(FileError) -> JSON {
        var parser = JSONParser(
            bytes: try FileBytes.read(path: path), path: path, duplicateKeys: .lastWins, hasNonFinite: true)
        return try parser.parseDocument()
    }

    /// Parses a whole document; `path` names it in errors, which tell the offset of the offending byte.
    ///
    /// Time is linear in the bytes. Of equal keys the last wins, in the place of the first, as in Python.
    /// Refused: nesting deeper than 128, bytes that are not UTF-8, lone surrogates, numbers beyond the
    /// range of a double, anything after the value.
    public static func parse(_ bytes: [UInt8], path: String) throws(FileError) -> JSON {
        try parse(bytes, path: path, duplicateKeys: .lastWins)
    }

    package static func parse(_ bytes: [UInt8], path: String, duplicateKeys: JSONParser.DuplicateKeys) throws(FileError)
        -> JSON
    {
        var parser = JSONParser(bytes: bytes, path: path, duplicateKeys: duplicateKeys)
        return try parser.parseDocument()
    }
}

/// The members of a JSON object, in the order written.
public struct JSONObject: Sendable, Equatable {
    /// A name and its value.
    public struct Member: Sendable, Equatable {
        /// The name, without quotes and escapes.
        public let key: String
        /// What stands under that name.
        public var value: JSON

        /// Members are equal in name, scalar by scalar, and in value.
        public static func == (left: Member, right: Member) -> Bool {
            ExactString(left.key) == ExactString(right.key) && left.value == right.value
        }
    }

    /// All members in the order written, no two of one name.
    public private(set) var members: [Member] = []
    /// Positions by key, kept only once a scan of the members would be slower.
    private var positions: [ExactString: Int] = [:]
    private static let scanLimit = 8

    /// An object without members.
    public init() {}

    /// How many members there are.
    public var count: Int { members.count }

    /// The value of the member of that name, or nil where there is none.
    public subscript(_ key: String) -> JSON? {
        position(of: key).map { members[$0].value }
    }

    private func position(of key: String) -> Int? {
        let exact = ExactString(key)
        if members.count > Self.scanLimit { return positions[exact] }
        return members.firstIndex { ExactString($0.key) == exact }
    }

    /// Sets the value of `key`; false where the key was there already.
    @discardableResult
    package mutating func set(_ key: String, _ value: JSON) -> Bool {
        if let position = position(of: key) {
            members[position].value = value
            return false
        }
        members.append(Member(key: key, value: value))
        if members.count == Self.scanLimit + 1 {
            for (position, member) in members.enumerated() { positions[ExactString(member.key)] = position }
        } else if members.count > Self.scanLimit {
            positions[ExactString(key)] = members.count - 1
        }
        return true
    }

    /// Objects are equal when they have the same members, in whatever order.
    public static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
    }
}

/// A string that is equal only to a string of the same Unicode scalars.
public struct ExactString: Hashable, Sendable {
    /// The string itself.
    public let string: String

    /// Wraps a string, so that it compares scalar by scalar.
    public init(_ string: String) { self.string = string }

    /// Whether both have the same UTF-8 bytes, which is the same scalars.
    public static func == (left: ExactString, right: ExactString) -> Bool {
        left.string.utf8.count == right.string.utf8.count && left.string.utf8.elementsEqual(right.string.utf8)
    }

    /// Hashes the UTF-8 bytes.
    public func hash(into hasher: inout Hasher) {
        var copy = string
        copy.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
}
