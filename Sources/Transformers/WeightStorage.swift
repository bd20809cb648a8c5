// Where the weights of a model are put: memory of its own, or memory that the ranks of a node share.

import Files
import Matrices
import Plans
import RingAttention
import Tiles

/// Hands out memory for weights, block after block, while a model is loaded.
///
/// The ranks of a node that share weights load in step: all go through the same blocks, and each fills those of the
/// parts that are its turn, and its share of every table, so that a node reads and packs every matrix once. How much
/// memory that takes is known from a loading that only counts: it reads no matrix, and throws where one is missing or
/// has another shape.
public final class WeightStorage {
    private enum Place {
        case own
        case nowhere
        case shared(SharedMemory, Rank)
    }

    private let place: Place
    /// The floats of the blocks so far.
    public private(set) var floats = 0
    private var part = 0

    private init(_ place: Place) { self.place = place }

    /// Memory of the model's own.
    public convenience init() { self.init(.own) }

    /// No memory: for loadings that only count and check. What they give cannot be run.
    public static var counting: WeightStorage { WeightStorage(.nowhere) }

    /// Memory that ranks of a node share, whose first rank has it in its segment. Collective.
    /// - Parameters:
    ///   - floats: as many as a loading has counted.
    ///   - transport: connects this rank to those that share memory with it.
    ///   - nodes: which ranks share a copy.
    /// - Throws: what the transport throws.
    public static func shared(floats: Int, over transport: any Transport, among nodes: Topology) throws -> WeightStorage
    {
        let ranks = nodes.mates(of: transport.rank)
        let memory = try transport.shareMemory(
            floats: transport.rank.index == ranks.lowerBound ? floats : 0, among: ranks)
        return WeightStorage(.shared(memory, transport.rank))
    }

    /// Returns once the weights of all ranks of the node can be read. To be called where all of them have loaded
    /// without error.
    public func publish() throws {
        guard case .shared(let memory, let rank) = place else { return }
        memory.setClock(of: rank, to: 1)
        for mate in memory.ranks { try memory.wait(for: Rank(mate), toReach: 1) }
    }

    /// The blocks that follow are filled together, by one rank: what fills one may read those before it.
    func beginPart() { part += 1 }

    /// Memory for so many floats, zero but for what `fill` writes.
    func block(_ count: Int, fill: (UnsafeMutablePointer<Float>) throws(FileError) -> Void) throws(FileError)
        -> WeightBlock
    {
        let part = part
        return try reserve(count, share: { rank, ranks in part % ranks == rank ? 0..<count : 0..<0 }) {
            target, _ throws(FileError) in
            try fill(target)
        }
    }

    /// Memory for a table of so many floats, every rank filling an equal run of them: a vocabulary may be most of a
    /// model.
    /// - Parameter fill: writes the floats of a range to memory for them. What fills a block cannot read the table.
    func table(
        _ count: Int, fill: (UnsafeMutablePointer<Float>, Range<Int>) throws(FileError) -> Void
    ) throws(FileError) -> WeightBlock {
        try reserve(count, share: { rank, ranks in rank * count / ranks..<(rank + 1) * count / ranks }, fill: fill)
    }

    /// - Parameter share: which of the floats a rank fills, by its place in the node and the number of ranks there.
    private func reserve(
        _ count: Int, share: (_ rank: Int, _ ranks: Int) -> Range<Int>,
        fill: (UnsafeMutablePointer<Float>, Range<Int>) throws(FileError) -> Void
    ) throws(FileError) -> WeightBlock {
        let first = floats
        // Each block on a cache line of its own.
        floats += (count + 15) & ~15
        switch place {
        case .own: return try WeightBlock(count: count) { target throws(FileError) in try fill(target, 0..<count) }
        case .nowhere: return WeightBlock(promised: count)
        case .shared(let memory, let rank):
            let target = memory.floats(of: Rank(memory.ranks.lowerBound)) + first
            let mine = share(rank.index - memory.ranks.lowerBound, memory.ranks.count)
            if !mine.isEmpty {
                ReadNotes.current?.setShared(true)
                defer { ReadNotes.current?.setShared(false) }
                (target + mine.lowerBound).update(repeating: 0, count: mine.count)
                try fill(target + mine.lowerBound, mine)
            }
            return WeightBlock(target, count: count, of: memory)
        }
    }
}
