// Where each tensor of a safetensors file to be written goes, so that many writers can fill one file.

/// The exact bytes of a safetensors header, and the place of every tensor behind it.
///
/// A pure function of the tensors, in the order given: each rank computes the same layout and writes its own
/// rows at their offsets, without a word to the others. Like the reference implementation, the header is padded
/// with spaces to a multiple of 8 bytes.
public struct SafetensorsLayout: Sendable {
    /// Eight bytes of length and the padded JSON: what stands before the first tensor.
    public let headerBytes: [UInt8]
    /// Size of the finished file.
    public let totalBytes: Int
    private let ranges: [String: Range<Int>]

    /// - Precondition: names are distinct and not `__metadata__`; every shape's bytes are whole and within `Int`.
    public init(tensors: [(name: String, elementType: ElementType, shape: [Int])], metadata: [String: String] = [:]) {
        var entries: [String] = []
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { JSON.quoted($0.key) + ":" + JSON.quoted($0.value) }
            entries.append("\"__metadata__\":{" + pairs.joined(separator: ",") + "}")
        }
        var ends: [(name: String, range: Range<Int>)] = []
        var end = 0
        for (name, elementType, shape) in tensors {
            guard let count = elementCount(of: shape), let bytes = elementType.byteCount(elements: count) else {
                preconditionFailure("tensor \(name) of shape \(shape) has no whole number of bytes")
            }
            let range = end..<end + bytes
            end = range.upperBound
            ends.append((name, range))
            let dimensions = shape.map(String.init).joined(separator: ",")
            entries.append(
                JSON.quoted(name)
                    + ":{\"dtype\":\"\(elementType.rawValue)\",\"shape\":[\(dimensions)],\"data_offsets\":[\(range.lowerBound),\(range.upperBound)]}"
            )
        }
        var header = Array(("{" + entries.joined(separator: ",") + "}").utf8)
        header.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - header.count % 8) % 8))
        let dataStart = 8 + header.count
        headerBytes = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header
        totalBytes = dataStart + end
        var ranges: [String: Range<Int>] = [:]
        for (name, range) in ends {
            let shifted = dataStart + range.lowerBound..<dataStart + range.upperBound
            precondition(
                name != "__metadata__" && ranges.updateValue(shifted, forKey: name) == nil,
                "tensor \(name) stands twice")
        }
        self.ranges = ranges
    }

    /// The bytes of a tensor, counted from the start of the file.
    ///
    /// - Precondition: the layout was made with a tensor of that name.
    public func byteRange(of name: String) -> Range<Int> {
        guard let range = ranges[name] else { preconditionFailure("no tensor \(name) in this layout") }
        return range
    }

    /// The first byte of a tensor, counted from the start of the file.
    public func offset(of name: String) -> Int { byteRange(of: name).lowerBound }
}

extension JSON {
    /// `text` as a JSON string literal in quotation marks, with only what must be escaped escaped.
    public static func quoted(_ text: String) -> String {
        var literal = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": literal += "\\\""
            case "\\": literal += "\\\\"
            case "\n": literal += "\\n"
            case "\r": literal += "\\r"
            case "\t": literal += "\\t"
            case "\u{8}": literal += "\\b"
            case "\u{C}": literal += "\\f"
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                literal += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: literal.unicodeScalars.append(scalar)
            }
        }
        return literal + "\""
    }
}
