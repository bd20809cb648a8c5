// The character map of sentencepiece models, compiled into a double-array trie.

import Files

/// The normalizer Precompiled: replacements of byte sequences, as sentencepiece stores them (`precompiled_charsmap`).
///
/// The map is the size of a trie in bytes (32 bits, little-endian), the trie's units of 32 bits, and the replacements,
/// each ended by a zero byte. A unit holds a label, whether a key ends there, and where its children are (the layout of
/// the library Darts-clone, with exclusive or instead of addition).
struct PrecompiledNormalizer: Sendable {
    private let units: [UInt32]
    private let replacements: [UInt8]
    /// How many scalars may come of one.
    let growth: Double

    init(_ component: Component) throws(FileError) {
        let text = try component.string("precompiled_charsmap")
        guard let bytes = Base64.decode(text) else { throw component.malformed("precompiled_charsmap is not base64") }
        guard bytes.count >= 4 else { throw component.malformed("precompiled_charsmap is cut off") }
        func unit(_ position: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[position + $1]) << UInt32(8 * $1) }
        }
        let count = Int(unit(0)) / 4
        guard count > 0, 4 + 4 * count <= bytes.count else {
            throw component.malformed("precompiled_charsmap is cut off")
        }
        units = (0..<count).map { unit(4 + 4 * $0) }
        replacements = Array(bytes[(4 + 4 * count)...])
        guard String(validating: replacements, as: UTF8.self) != nil else {
            throw component.malformed("precompiled_charsmap has replacements that are not UTF-8")
        }
        growth = Double(replacements.split(separator: 0).map(\.count).max() ?? 1)
    }

    /// Where the replacement for the shortest key that `bytes` begin with starts.
    private func lookUp(_ bytes: some Sequence<UInt8>) -> Int? {
        func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 1 << 9) >> 6) }
        var node = offset(units[0])
        for byte in bytes {
            if byte == 0 { return nil }
            node ^= Int(byte)
            guard node < units.count, units[node] & (1 << 31 | 0xFF) == UInt32(byte) else { return nil }
            let unit = units[node]
            node ^= offset(unit)
            if unit >> 8 & 1 != 0 { return node < units.count ? Int(units[node] & 0x7FFF_FFFF) : nil }
        }
        return nil
    }

    private func replacement(for bytes: some Sequence<UInt8>) -> [UInt32]? {
        guard let start = lookUp(bytes), start < replacements.count, replacements[start] & 0xC0 != 0x80 else {
            return nil
        }
        let text = replacements[start...].prefix { $0 != 0 }
        return String(decoding: text, as: UTF8.self).unicodeScalars.map(\.value)
    }

    /// Replaces grapheme clusters of fewer than 6 bytes, and otherwise single scalars.
    ///
    /// As in the reference implementation a cluster is replaced as a whole when a key is only its beginning, and a
    /// replacement by nothing counts for the scalar before it, which shifts offsets where there is none.
    func apply(to text: inout NormalizedText) {
        var scalars: [UInt32] = []
        var taken: [Int32] = []
        scalars.reserveCapacity(text.count)
        taken.reserveCapacity(text.count)
        var isChanged = false
        func put(_ replacement: [UInt32], for count: Int) {
            isChanged = true
            scalars += replacement
            // One takes the place of one; the last ones of none, where there are more; the last of the rest, where
            // fewer.
            let excess = max(replacement.count - count, 0)
            taken += repeatElement(1, count: replacement.count - excess)
            taken += repeatElement(0, count: excess)
            if replacement.count < count, !taken.isEmpty { taken[taken.count - 1] += Int32(count - replacement.count) }
        }
        for cluster in GraphemeClusters(text.scalars) {
            let length = cluster.count > 1 ? text.scalars[cluster].reduce(0) { $0 + UTF8Length.of($1) } : .max
            if length < 6, let replacement = replacement(for: text.scalars[cluster].flatMap { Self.bytes(of: $0) }) {
                put(replacement, for: cluster.count)
                continue
            }
            for scalar in text.scalars[cluster] {
                if let replacement = replacement(for: Self.bytes(of: scalar)) {
                    put(replacement, for: 1)
                } else {
                    scalars.append(scalar)
                    taken.append(1)
                }
            }
        }
        if isChanged { text.adopt(scalars, taken: taken) }
    }

    private static func bytes(of scalar: UInt32) -> UTF8.EncodedScalar {
        Unicode.Scalar(scalar).flatMap { UTF8.encode($0) } ?? UTF8.encodedReplacementCharacter
    }
}
