// Tokens and their ids, found by scalars without making strings.

import Files

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

    /// The most tokens that can be addressed.
    static let limit = 1 << 28

    /// The object `vocab` of a model, token to id.
    init(_ component: Component) throws(FileError) {
        guard let entries = component.json["vocab"]?.object else { throw component.malformed("has no object 'vocab'") }
        guard entries.count <= Self.limit else {
            throw component.malformed("has \(entries.count) tokens, more than can be addressed")
        }
        self.init(capacity: entries.count)
        for entry in entries.members {
            guard let value = entry.value.int, let id = Int32(exactly: value), id >= 0 else {
                throw component.malformed("vocab: '\(entry.key)' has no token id")
            }
            add(entry.key, id: id)
        }
    }

    /// The id of the token for what is not in the vocabulary, which must be there: encoding never fails.
    func unknownId(_ token: String, _ component: Component) throws(FileError) -> Int32 {
        guard let id = id(of: token) else {
            throw component.malformed("the unknown token '\(token)' is not in the vocabulary")
        }
        return id
    }

    var count: Int { ids.count }

    /// Adds a token; of equal ones the last counts when one is looked for.
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
        while slots[slot] >= 0, !isEqual(Int(slots[slot]), Int(position)) { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = position
    }

    private func isEqual(_ first: Int, _ second: Int) -> Bool {
        scalars[starts[first]..<starts[first + 1]].elementsEqual(scalars[starts[second]..<starts[second + 1]])
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

    private func matches(_ position: Int, _ prefix: [UInt32], _ word: UnsafeBufferPointer<UInt32>, _ range: Range<Int>)
        -> Bool
    {
        let start = starts[position]
        guard starts[position + 1] - start == prefix.count + range.count else { return false }
        for offset in 0..<prefix.count where scalars[start + offset] != prefix[offset] { return false }
        let shift = start + prefix.count - range.lowerBound
        for index in range where scalars[shift + index] != word[index] { return false }
        return true
    }

    func id(of token: String) -> Int32? { id(of: token.unicodeScalars.map(\.value)) }

    func id(of token: [UInt32]) -> Int32? {
        token.withUnsafeBufferPointer { id(of: $0, 0..<$0.count) }
    }

    /// The id of the token made of `scalars[range]`.
    func id(of scalars: UnsafeBufferPointer<UInt32>, _ range: Range<Int>) -> Int32? {
        guard range.count <= longest else { return nil }
        var hash = Hash()
        for index in range { hash.add(scalars[index]) }
        return id(hash: hash, prefix: [], scalars, range)
    }

    /// How many whitespace scalars the token with that id begins and ends with.
    func margins(of id: Int32) -> (leading: Int32, trailing: Int32) {
        guard let position = tokensById[id] else { return (0, 0) }
        let token = scalars[starts[Int(position)]..<starts[Int(position) + 1]]
        return NormalizedText.margins(of: token)
    }

    /// Ids of the tokens `<0x00>` to `<0xFF>`; −1 where there is none.
    var byteIds: [Int32] {
        (0..<256).map { byte in
            let digits = String(byte, radix: 16, uppercase: true)
            return id(of: "<0x\(byte < 16 ? "0" : "")\(digits)>") ?? -1
        }
    }

    func token(of id: Int32) -> String? {
        guard let position = tokensById[id] else { return nil }
        return NormalizedText.string(scalars[starts[Int(position)]..<starts[Int(position) + 1]])
    }
}
