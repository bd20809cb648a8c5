// Buffers that are used again once nobody holds them.

/// Memory for work of the same kind that comes batch after batch: clearing pages anew for each costs as much as its
/// norms.
///
/// A buffer is free when the pool alone refers to it; nobody gives anything back. Not `Sendable`: it is one rank's own.
public final class BufferPool {
    private var buffers: [AlignedBuffer] = []

    /// A buffer is lent for this part of its size at least: a bias's gradient that is kept for a while must not hold the
    /// memory of all rows, whose next user would take as much again.
    private static let leastShare = 8

    /// A pool without buffers: memory is taken when it is first asked for.
    public init() {}

    /// A buffer of at least so many floats, whose contents are left from earlier use.
    public func buffer(count: Int) -> AlignedBuffer {
        let free = buffers.indices.filter { isKnownUniquelyReferenced(&buffers[$0]) }.sorted {
            buffers[$0].count < buffers[$1].count
        }
        if let smallest = free.first(where: { buffers[$0].count >= count }) {
            if buffers[smallest].count / Self.leastShare <= max(count, 1) { return buffers[smallest] }
            // All that suffice are far larger: beside them this one is small.
        }
        // A smaller one makes way, so that there are hardly more than were in use at a time.
        if let largest = free.last(where: { buffers[$0].count < count }) { buffers.remove(at: largest) }
        // Batches differ a little, and pages that are never touched cost nothing.
        let made = AlignedBuffer(count: count + count / 8)
        buffers.append(made)
        return made
    }
}
