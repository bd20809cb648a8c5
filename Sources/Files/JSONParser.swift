// A recursive-descent JSON parser over bytes, safe on hostile input.

/// Parses one document (RFC 8259); see ``JSON/parse(_:path:)`` for what it refuses.
package struct JSONParser {
    /// What a repeated key in one object means.
    package enum DuplicateKeys: Sendable { case lastWins, refused }

    private let bytes: [UInt8]
    private let path: String
    private let duplicateKeys: DuplicateKeys
    /// Whether NaN, Infinity and -Infinity are numbers: no JSON, and yet what Python writes and reads.
    private let hasNonFinite: Bool
    private var position = 0
    private var depth = 0
    /// Deep enough for any configuration, shallow enough for the smallest thread stack.
    private static let depthLimit = 128

    package init(bytes: [UInt8], path: String, duplicateKeys: DuplicateKeys, hasNonFinite: Bool = false) {
        self.hasNonFinite = hasNonFinite
        self.bytes = bytes
        self.path = path
        self.duplicateKeys = duplicateKeys
    }

    private func failure(_ what: String, at offset: Int? = nil) -> FileError {
        FileError(
            .malformed, path: path,
            "byte \(offset ?? position): \(what); the file is not valid JSON, fetch or write it again")
    }

    package mutating func parseDocument() throws(FileError) -> JSON {
        let value = try parseValue()
        skipSpace()
        guard position == bytes.count else { throw failure("something follows the end of the value") }
        return value
    }

    private mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func parseValue() throws(FileError) -> JSON {
        skipSpace()
        guard position < bytes.count else { throw failure("the text ends where a value is needed") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try parseObject()
        case UInt8(ascii: "["): return try parseArray()
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        case UInt8(ascii: "-") where hasNonFinite && bytes[position...].starts(with: "-Infinity".utf8):
            return try parseWord("-Infinity", .number(-.infinity))
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        case UInt8(ascii: "N") where hasNonFinite: return try parseWord("NaN", .number(.nan))
        case UInt8(ascii: "I") where hasNonFinite: return try parseWord("Infinity", .number(.infinity))
        default: throw failure("a value cannot begin here")
        }
    }

    private mutating func parseWord(_ word: StaticString, _ value: JSON) throws(FileError) -> JSON {
        for offset in 0..<word.utf8CodeUnitCount {
            guard position + offset < bytes.count, bytes[position + offset] == word.utf8Start[offset] else {
                throw failure("a value cannot begin here")
            }
        }
        position += word.utf8CodeUnitCount
        return value
    }

    private mutating func enter() throws(FileError) {
        depth += 1
        guard depth <= Self.depthLimit else { throw failure("values are nested more than \(Self.depthLimit) deep") }
        position += 1
    }

    /// After a member or element: true where another follows, false at the closing byte.
    private mutating func another(closing: UInt8, in container: String) throws(FileError) -> Bool {
        skipSpace()
        guard position < bytes.count else { throw failure("the text ends inside \(container)") }
        let byte = bytes[position]
        guard byte == closing || byte == UInt8(ascii: ",") else {
            throw failure("a comma or the end of \(container) is needed here")
        }
        position += 1
        return byte != closing
    }

    private mutating func parseArray() throws(FileError) -> JSON {
        try enter()
        defer { depth -= 1 }
        var elements: [JSON] = []
        skipSpace()
        if position < bytes.count, bytes[position] == UInt8(ascii: "]") {
            position += 1
            return .array(elements)
        }
        repeat { elements.append(try parseValue()) } while try another(closing: UInt8(ascii: "]"), in: "an array")
        return .array(elements)
    }

    private mutating func parseObject() throws(FileError) -> JSON {
        try enter()
        defer { depth -= 1 }
        var object = JSONObject()
        skipSpace()
        if position < bytes.count, bytes[position] == UInt8(ascii: "}") {
            position += 1
            return .object(object)
        }
        repeat {
            skipSpace()
            let keyOffset = position
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
                throw failure("a key in quotation marks is needed here")
            }
            let key = try parseString()
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: ":") else {
                throw failure("a colon is needed after a key")
            }
            position += 1
            let value = try parseValue()
            if !object.set(key, value), duplicateKeys == .refused {
                throw failure("the key \"\(key)\" stands twice in one object", at: keyOffset)
            }
        } while try another(closing: UInt8(ascii: "}"), in: "an object")
        return .object(object)
    }

    private mutating func parseNumber() throws(FileError) -> JSON {
        let start = position
        if bytes[position] == UInt8(ascii: "-") { position += 1 }
        let whole = skipDigits()
        guard whole > 0, whole == 1 || bytes[position - whole] != UInt8(ascii: "0") else {
            throw failure("this is not a number", at: start)
        }
        var isInteger = true
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            guard skipDigits() > 0 else { throw failure("digits are needed after the decimal point") }
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            position += 1
            if position < bytes.count, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") {
                position += 1
            }
            guard skipDigits() > 0 else { throw failure("digits are needed in the exponent") }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw failure("this number is out of range", at: start) }
        return .number(value)
    }

    private mutating func skipDigits() -> Int {
        let start = position
        while position < bytes.count, UInt8(ascii: "0")...UInt8(ascii: "9") ~= bytes[position] { position += 1 }
        return position - start
    }

    /// A string from its opening quotation mark on.
    private mutating func parseString() throws(FileError) -> String {
        let opening = position
        position += 1
        var runStart = position
        var unescaped: [UInt8] = []
        var hasEscape = false
        while true {
            guard position < bytes.count else { throw failure("a string begins here and never ends", at: opening) }
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") { break }
            guard byte >= 0x20 else { throw failure("a control character in a string must be escaped") }
            if byte == UInt8(ascii: "\\") {
                hasEscape = true
                unescaped.append(contentsOf: bytes[runStart..<position])
                try parseEscape(into: &unescaped)
                runStart = position
            } else {
                position += 1
            }
        }
        let end = position
        position += 1
        // Escapes produce whole scalars only, so the raw bytes alone decide whether the string is UTF-8.
        if hasEscape {
            unescaped.append(contentsOf: bytes[runStart..<end])
            if let string = String(validating: unescaped, as: UTF8.self) { return string }
        } else if let string = String(validating: bytes[runStart..<end], as: UTF8.self) {
            return string
        }
        let invalid = UTF8Validation.firstInvalidByte(in: bytes[(opening + 1)..<end]) ?? 0
        throw failure("this byte is not UTF-8", at: opening + 1 + invalid)
    }

    private mutating func parseEscape(into output: inout [UInt8]) throws(FileError) {
        let start = position
        guard position + 1 < bytes.count else { throw failure("the text ends inside an escape") }
        position += 2
        switch bytes[start + 1] {
        case UInt8(ascii: "\""): output.append(UInt8(ascii: "\""))
        case UInt8(ascii: "\\"): output.append(UInt8(ascii: "\\"))
        case UInt8(ascii: "/"): output.append(UInt8(ascii: "/"))
        case UInt8(ascii: "b"): output.append(0x08)
        case UInt8(ascii: "f"): output.append(0x0C)
        case UInt8(ascii: "n"): output.append(0x0A)
        case UInt8(ascii: "r"): output.append(0x0D)
        case UInt8(ascii: "t"): output.append(0x09)
        case UInt8(ascii: "u"):
            var value = try parseHexadecimal(escape: start)
            if 0xD800...0xDBFF ~= value, position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"),
                bytes[position + 1] == UInt8(ascii: "u")
            {
                position += 2
                let low = try parseHexadecimal(escape: start)
                guard 0xDC00...0xDFFF ~= low else { throw failure("half a surrogate pair stands alone", at: start) }
                value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(value) else {
                throw failure("half a surrogate pair stands alone", at: start)
            }
            output.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
        default: throw failure("no such escape", at: start)
        }
    }

    private mutating func parseHexadecimal(escape: Int) throws(FileError) -> UInt32 {
        guard position + 4 <= bytes.count else { throw failure("the text ends inside an escape", at: escape) }
        var value: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt8
            switch bytes[position] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = bytes[position] - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = bytes[position] - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = bytes[position] - UInt8(ascii: "A") + 10
            default: throw failure("four hexadecimal digits are needed after \\u", at: escape)
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}
