// The merges of byte-pair encoding: pairs of ids, their ranks, and what they become.

import Files

/// A hash table from pairs of token ids to ranks.
struct MergeTable: Sendable {
    /// Pairs as left · 2³² + right; all ones where empty. A power of two long.
    private var keys: [UInt64]
    private var ranks: [Int32]
    private var mergedIds: [Int32] = []

    private static let empty = UInt64.max

    /// The list `merges` of a model: strings of two tokens with a space between, or lists of two tokens.
    init(_ component: Component, _ vocabulary: Vocabulary, continuationPrefix: [UInt32]) throws(FileError) {
        guard let list = component.json["merges"]?.array else { throw component.malformed("has no list 'merges'") }
        guard list.count <= Vocabulary.limit else {
            throw component.malformed("has \(list.count) merges, more than can be addressed")
        }
        var size = 16
        while size < 2 * list.count { size *= 2 }
        keys = Array(repeating: Self.empty, count: size)
        ranks = Array(repeating: 0, count: size)
        mergedIds.reserveCapacity(list.count)
        for (number, merge) in list.enumerated() {
            // A line that files of merges begin with.
            if let text = merge.string, text.hasPrefix("#version") { continue }
            guard let (left, right) = Self.pair(merge) else {
                throw component.malformed("merges.\(number) is not two tokens")
            }
            let leftScalars = left.unicodeScalars.map(\.value)
            let rightScalars = right.unicodeScalars.map(\.value)
            guard rightScalars.starts(with: continuationPrefix) else {
                throw component.malformed(
                    "merges.\(number): '\(right)' does not begin with the continuing_subword_prefix")
            }
            func id(_ token: [UInt32]) throws(FileError) -> Int32 {
                guard let id = vocabulary.id(of: token) else {
                    throw component.malformed(
                        "merges.\(number): '\(NormalizedText.string(token))' is not in the vocabulary")
                }
                return id
            }
            let pair = (try id(leftScalars), try id(rightScalars))
            let merged = try id(leftScalars + rightScalars.dropFirst(continuationPrefix.count))
            set(pair.0, pair.1, rank: Int32(mergedIds.count))
            mergedIds.append(merged)
        }
    }

    private static func pair(_ merge: JSON) -> (String, String)? {
        if let text = merge.string {
            let parts = text.unicodeScalars.split(separator: " ", omittingEmptySubsequences: false)
            return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
        }
        guard let parts = merge.array, parts.count == 2, let left = parts[0].string, let right = parts[1].string else {
            return nil
        }
        return (left, right)
    }

    private func slot(_ key: UInt64) -> Int {
        let hash = (key ^ key >> 29) &* 0xD6E8_FEB8_6659_FD93
        var slot = Int(truncatingIfNeeded: hash >> 33) & (keys.count - 1)
        while keys[slot] != key, keys[slot] != Self.empty { slot = (slot + 1) & (keys.count - 1) }
        return slot
    }

    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// Of equal pairs the last counts.
    private mutating func set(_ left: Int32, _ right: Int32, rank: Int32) {
        let slot = slot(Self.key(left, right))
        keys[slot] = Self.key(left, right)
        ranks[slot] = rank
    }

    /// The place of the pair in the order of merges, nil where the two do not merge.
    func rank(_ left: Int32, _ right: Int32) -> Int32? {
        let slot = slot(Self.key(left, right))
        return keys[slot] == Self.empty ? nil : ranks[slot]
    }

    /// The id of what the merge of that rank gives.
    func mergedId(_ rank: Int32) -> Int32 { mergedIds[Int(rank)] }
}

/// A binary heap whose least element comes out first.
struct MinimumHeap {
    private var elements: [UInt64] = []

    mutating func removeAll() { elements.removeAll(keepingCapacity: true) }

    mutating func push(_ element: UInt64) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard element < elements[parent] else { break }
            elements[child] = elements[parent]
            child = parent
        }
        elements[child] = element
    }

    mutating func pop() -> UInt64? {
        guard let least = elements.first, let last = elements.popLast() else { return nil }
        guard !elements.isEmpty else { return least }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < elements.count else { break }
            if child + 1 < elements.count, elements[child + 1] < elements[child] { child += 1 }
            guard elements[child] < last else { break }
            elements[parent] = elements[child]
            parent = child
        }
        elements[parent] = last
        return least
    }
}
