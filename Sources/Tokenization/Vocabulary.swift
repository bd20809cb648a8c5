// Tokens and their ids, found by scalars without making strings.

/// A vocabulary: a hash table from scalars to ids.
///
/// The hash can be carried on scalar by scalar, so all beginnings of a word are hashed in one pass over it.
struct Vocabulary: Sendable {
    /// Scalars of all tokens, one after the other.
    private var scalars: [UInt32] = []
    /// Where each token's scalars start; one more entry than tokens.
    private var starts: [Int] = [0]
    private var ids: [Int32] = []
    /// Position of a token by hash, −1 where empty; a power of two long.
    private var slots: [Int32]
    private var tokensById: [Int32: Int32] = [:]
    /// Scalars of the longest token.
    private(set) var longest = 0
    private(set) var largestId: Int32 = -1

    /// A hash under way; start with ``Hash()``.
    struct Hash: Equatable {
        private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

        mutating func add(_ scalar: UInt32) {
            state = (state ^ UInt64(scalar)) &* 0xD6E8_FEB8_6659_FD93
            state ^= state >> 32
        }

        fileprivate var value: Int { Int(truncatingIfNeeded: (state &* 0xD6E8_FEB8_6659_FD93) >> 33) }
    }

    /// - Parameter capacity: how many tokens will be added, at most 2³⁰.
    init(capacity: Int) {
        var size = 16
        while size < 2 * capacity { size *= 2 }
        slots = [Int32](repeating: -1, count: size)
        ids.reserveCapacity(capacity)
        starts.reserveCapacity(capacity + 1)
    }

    var count: Int { ids.count }

    /// Adds a token that is not there yet.
    mutating func add(_ token: String, id: Int32) {
        var hash = Hash()
        for scalar in token.unicodeScalars {
            scalars.append(scalar.value)
            hash.add(scalar.value)
        }
        let position = Int32(ids.count)
        ids.append(id)
        starts.append(scalars.count)
        longest = max(longest, scalars.count - starts[Int(position)])
        largestId = max(largestId, id)
        tokensById[id] = position
        var slot = hash.value & (slots.count - 1)
        while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = position
    }

    /// The id of the token made of `prefix` and then `scalars[range]`, whose hash is `hash`.
    func id(hash: Hash, prefix: [UInt32], _ word: UnsafeBufferPointer<UInt32>, _ range: Range<Int>) -> Int32? {
        var slot = hash.value & (slots.count - 1)
        while slots[slot] >= 0 {
            let position = Int(slots[slot])
            if matches(position, prefix, word, range) { return ids[position] }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    private func matches(_ position: Int, _ prefix: [UInt32], _ word: UnsafeBufferPointer<UInt32>, _ range: Range<Int>) -> Bool {
        let start = starts[position]
        guard starts[position + 1] - start == prefix.count + range.count else { return false }
        for offset in 0 ..< prefix.count where scalars[start + offset] != prefix[offset] { return false }
        let shift = start + prefix.count - range.lowerBound
        for index in range where scalars[shift + index] != word[index] { return false }
        return true
    }

    func id(of token: String) -> Int32? {
        let scalars = token.unicodeScalars.map(\.value)
        var hash = Hash()
        for scalar in scalars { hash.add(scalar) }
        return scalars.withUnsafeBufferPointer { id(hash: hash, prefix: [], $0, 0 ..< $0.count) }
    }

    func token(of id: Int32) -> String? {
        guard let position = tokensById[id] else { return nil }
        return NormalizedText.string(scalars[starts[Int(position)] ..< starts[Int(position) + 1]])
    }
}
