// All pieces that a text begins with, found in one walk.

/// A trie over scalars: its edges in one hash table.
struct PieceTrie: Sendable {
    static let root: Int32 = 0

    /// Edges as node · 2³² + scalar, all ones where empty; a power of two long.
    private var keys = [UInt64](repeating: .max, count: 16)
    private var children = [Int32](repeating: 0, count: 16)
    /// By node, −1 where no piece ends.
    private var ids: [Int32] = [-1]

    init() {}

    /// Adds a piece; of equal ones the last counts. False where there is no room.
    mutating func add(_ piece: [UInt32], id: Int32) -> Bool {
        var node = Self.root
        for scalar in piece {
            if let child = child(of: node, scalar) {
                node = child
                continue
            }
            guard ids.count < Int(Int32.max) else { return false }
            if 2 * ids.count >= keys.count { grow() }
            let child = Int32(ids.count)
            ids.append(-1)
            set(Self.key(node, scalar), child)
            node = child
        }
        ids[Int(node)] = id
        return true
    }

    /// The node one scalar further.
    @inline(__always)
    func child(of node: Int32, _ scalar: UInt32) -> Int32? {
        let slot = slot(Self.key(node, scalar))
        return keys[slot] == .max ? nil : children[slot]
    }

    /// The piece that ends at a node; the empty piece is none.
    @inline(__always)
    func id(at node: Int32) -> Int32? {
        ids[Int(node)] < 0 ? nil : ids[Int(node)]
    }

    private static func key(_ node: Int32, _ scalar: UInt32) -> UInt64 {
        UInt64(UInt32(bitPattern: node)) << 32 | UInt64(scalar)
    }

    @inline(__always)
    private func slot(_ key: UInt64) -> Int {
        let hash = (key ^ key >> 29) &* 0xD6E8_FEB8_6659_FD93
        var slot = Int(truncatingIfNeeded: hash >> 33) & (keys.count - 1)
        while keys[slot] != key, keys[slot] != .max { slot = (slot + 1) & (keys.count - 1) }
        return slot
    }

    private mutating func set(_ key: UInt64, _ child: Int32) {
        let slot = slot(key)
        keys[slot] = key
        children[slot] = child
    }

    private mutating func grow() {
        let (oldKeys, oldChildren) = (keys, children)
        keys = Array(repeating: .max, count: 2 * oldKeys.count)
        children = Array(repeating: 0, count: 2 * oldKeys.count)
        for (key, child) in zip(oldKeys, oldChildren) where key != .max { set(key, child) }
    }
}
