// Text under normalisation: its scalars, and for each the scalar of the original text that it stands for.

/// Scalars with their origins.
///
/// However a scalar came about, it points at one scalar of the original text; what is inserted points where the
/// scalar before it does. Origins never decrease, so the offsets of a run of scalars are the origin of its first
/// and one past the origin of its last.
struct NormalizedText: Sendable, Equatable {
    private(set) var scalars: [UInt32] = []
    private(set) var origins: [Int32] = []

    init() {}

    /// The text as it is. A text of more than 2³¹ − 1 scalars cannot be addressed.
    init(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            scalars.reserveCapacity(bytes.count)
            var index = 0
            while index < bytes.count {
                // A string's bytes are well-formed, so the first byte tells the length.
                let lead = UInt32(bytes[index])
                if lead < 0x80 {
                    scalars.append(lead)
                    index += 1
                    continue
                }
                let length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
                var scalar = lead & (0x7F >> UInt32(length))
                for offset in 1..<length { scalar = scalar << 6 | UInt32(bytes[index + offset] & 0x3F) }
                scalars.append(scalar)
                index += length
            }
        }
        origins = Array(0..<Int32(scalars.count))
    }

    private init(_ text: NormalizedText, _ range: Range<Int>) {
        scalars = Array(text.scalars[range])
        origins = Array(text.origins[range])
    }

    var count: Int { scalars.count }

    /// Scalars as a string.
    static func string(_ scalars: some Sequence<UInt32>) -> String {
        var view = String.UnicodeScalarView()
        for scalar in scalars { if let scalar = Unicode.Scalar(scalar) { view.append(scalar) } }
        return String(view)
    }

    func slice(_ range: Range<Int>) -> NormalizedText {
        range == 0..<count ? self : NormalizedText(self, range)
    }

    /// The offsets in the original text of a run of scalars that is not empty.
    @inline(__always)
    func offsets(of range: Range<Int>) -> Range<Int32> {
        origins[range.lowerBound]..<origins[range.upperBound - 1] + 1
    }

    /// How many scalars at either end of a token's string are whitespace, or Ġ, which stands for a space in byte-level
    /// vocabularies.
    static func margins(of token: ArraySlice<UInt32>) -> (leading: Int32, trailing: Int32) {
        func isMargin(_ scalar: UInt32) -> Bool {
            scalar == 0x120 || ScalarProperties.flags(of: scalar).hasAny(.whitespace)
        }
        return (Int32(token.prefix(while: isMargin).count), Int32(token.reversed().prefix(while: isMargin).count))
    }

    mutating func reserve(_ count: Int) {
        scalars.reserveCapacity(count)
        origins.reserveCapacity(count)
    }

    @inline(__always)
    mutating func append(_ scalar: UInt32, origin: Int32) {
        scalars.append(scalar)
        origins.append(origin)
    }

    /// Keeps the scalars that have none of `flags`.
    mutating func removeAll(_ flags: ScalarFlags) {
        let isAffected = ScalarProperties.withFlags { table in scalars.contains { table[Int($0)].hasAny(flags) } }
        guard isAffected else { return }
        var kept = 0
        ScalarProperties.withFlags { table in
            for index in scalars.indices where !table[Int(scalars[index])].hasAny(flags) {
                scalars[kept] = scalars[index]
                origins[kept] = origins[index]
                kept += 1
            }
        }
        scalars.removeLast(scalars.count - kept)
        origins.removeLast(origins.count - kept)
    }

    /// Turns the scalars that have any of `flags` into `replacement`.
    mutating func replaceAll(_ flags: ScalarFlags, with replacement: UInt32) {
        ScalarProperties.withFlags { table in
            for index in scalars.indices where table[Int(scalars[index])].hasAny(flags) { scalars[index] = replacement }
        }
    }

    /// Rebuilds the text where any scalar has one of `flags`: those go through `expand`, the others stay.
    ///
    /// What `expand` emits for a scalar shares its origin.
    mutating func expandAll(_ flags: ScalarFlags, _ expand: (_ scalar: UInt32, _ emit: (UInt32) -> Void) -> Void) {
        let first = ScalarProperties.withFlags { table in scalars.firstIndex { table[Int($0)].hasAny(flags) } }
        guard let first else { return }
        var result = NormalizedText(self, 0..<first)
        result.reserve(count + count / 8)
        ScalarProperties.withFlags { table in
            for index in first..<count {
                let scalar = scalars[index]
                let origin = origins[index]
                if !table[Int(scalar)].hasAny(flags) {
                    result.append(scalar, origin: origin)
                } else {
                    expand(scalar) { result.append($0, origin: origin) }
                }
            }
        }
        self = result
    }

    /// Puts scalars in front; they come from where the first scalar does. An empty text stays empty.
    mutating func prepend(_ prefix: [UInt32]) {
        guard let origin = origins.first else { return }
        scalars.insert(contentsOf: prefix, at: 0)
        origins.insert(contentsOf: repeatElement(origin, count: prefix.count), at: 0)
    }

    /// Appends a stretch of another text.
    mutating func append(_ range: Range<Int>, of other: NormalizedText) {
        scalars += other.scalars[range]
        origins += other.origins[range]
    }

    /// Drops whitespace at the start, the end, or both.
    mutating func strip(left: Bool, right: Bool) {
        func isSpace(_ scalar: UInt32) -> Bool { ScalarProperties.flags(of: scalar).contains(.whitespace) }
        let start = left ? scalars.firstIndex { !isSpace($0) } ?? count : 0
        let end = right ? (scalars.lastIndex { !isSpace($0) } ?? -1) + 1 : count
        self = slice(start..<max(start, end))
    }
}
