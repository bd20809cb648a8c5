// The keys and values that queries attend to: packed once by their owners, read by as many attentions as like.

import Attention
import Matrices
import Plans
import Tiles

/// One rank's keys and values of the sequences of a batch, packed tile by tile, and what it takes for the other ranks
/// of its node to read them where they are.
///
/// An attention's `AttentionProblem.keys` are those of the tiles that it reads. One value may serve many attentions: of
/// layers one after another, which pack it anew, of layers that see it through different masks, of queries of another
/// sequence; and there may be many, where each layer keeps its own.
public final class KeyValueTiles {
    /// Which tiles each rank holds, the keys that are there, and those that there is room for.
    public private(set) var keys: Sharding
    /// The heads of the attentions that read them; their `HeadShape.keyValueHeads` are packed.
    public let heads: HeadShape
    /// What keys and values are stored in.
    public let element: ElementKind
    /// What they travel in, if not in `element`: they are rounded to it where they are packed.
    public let wire: ElementKind?
    /// Whose they are.
    public let rank: Rank
    /// This rank's tiles.
    let own: TileStore
    private let packed: PackedTile
    private let kernels: KernelSet
    /// What the ranks of the node see of each other's tiles, where there are several.
    private var node: Node?

    /// The tiles of a node, each rank's in its own segment of shared memory, and whose turn it is.
    ///
    /// A rank's clock counts the calls that it has begun and ended. Tiles are read in a call that their owner has
    /// begun, and packed anew when all ranks have ended the calls before. Waiting for an earlier moment only, no rank
    /// can wait for one that waits for it.
    private struct Node {
        let memory: SharedMemory
        let mates: [Rank]
        let tiles: [Rank: TileStore]
        /// Calls that this rank has ended.
        var calls = 0
    }

    /// Keys and values of this rank alone.
    /// - Parameters:
    ///   - problem: whose keys they are: any attention to them.
    ///   - rank: the rank whose tiles they are.
    ///   - kernels: those that pack.
    ///   - memory: where they are put.
    public convenience init(
        of problem: AttentionProblem, rank: Rank, kernels: KernelSet, memory: BufferPool = BufferPool()
    ) {
        let own = TileStore(
            packed: problem.keys.tiles(of: rank), heads: 0..<problem.heads.keyValueHeads, of: problem,
            memory: memory.buffer)
        self.init(of: problem, rank: rank, kernels: kernels, own: own, node: nil)
    }

    /// Keys and values that the ranks of a node read in each other's memory, as the job's topology says. Collective.
    /// - Throws: ``SharedMemoryRefused`` where a node cannot have it; what the transport throws.
    public convenience init(
        of problem: AttentionProblem, sharedOver transport: any Transport, kernels: KernelSet,
        memory: BufferPool = BufferPool()
    ) throws {
        guard problem.topology.isShared else {
            self.init(of: problem, rank: transport.rank, kernels: kernels, memory: memory)
            return
        }
        let ranks = problem.topology.mates(of: transport.rank)
        let shared = try transport.shareMemory(floats: Self.floats(of: problem, rank: transport.rank), among: ranks)
        func store(_ owner: Rank) -> TileStore {
            TileStore(packed: problem.keys.tiles(of: owner), heads: 0..<problem.heads.keyValueHeads, of: problem) {
                AlignedBuffer(shared.floats(of: owner), count: $0, of: shared)
            }
        }
        let mates = ranks.map { Rank($0) }.filter { $0 != transport.rank }
        let tiles = Dictionary(uniqueKeysWithValues: mates.map { ($0, store($0)) })
        self.init(
            of: problem, rank: transport.rank, kernels: kernels, own: store(transport.rank),
            node: Node(memory: shared, mates: mates, tiles: tiles))
    }

    private init(of problem: AttentionProblem, rank: Rank, kernels: KernelSet, own: TileStore, node: Node?) {
        keys = problem.keys
        heads = problem.heads
        element = problem.element
        wire = problem.wire
        packed = PackedTile(problem.heads, problem.element)
        self.rank = rank
        self.kernels = kernels
        self.own = own
        self.node = node
    }

    /// The floats of a rank's tiles.
    static func floats(of problem: AttentionProblem, rank: Rank) -> Int {
        problem.packedBytes(of: problem.keys.tiles(of: rank)) / 4 * problem.heads.keyValueHeads
    }

    /// Whether an attention can read them.
    func serve(_ problem: AttentionProblem) -> Bool {
        problem.keys == keys && problem.heads == heads && problem.element == element && problem.wire == wire
    }

    // MARK: - Writing

    /// Packs some rows of one of this rank's key tiles, all heads. Different rows may be packed by different threads.
    /// - Parameters:
    ///   - tile: the tile's number in the batch.
    ///   - rows: which of its rows: from the start of a panel (`PackedTile.panelWidth`) on, to the start of another or
    ///     to the tile's end.
    ///   - keys: the keys of these rows; they begin with row `rows.lowerBound`, head 0.
    ///   - values: the values of these rows, likewise.
    public func pack(tile: Int, rows: Range<Int>, keys: HeadRows, values: HeadRows) {
        // Where a reader has failed nobody reads any more, and the next call will throw.
        try? waitForReaders()
        let capacity = self.keys.numbering.capacity(of: tile)
        for head in own.heads {
            func pack(
                _ keys: UnsafePointer<Float>, _ keyStride: Int, _ values: UnsafePointer<Float>, _ valueStride: Int
            ) {
                packed.pack(
                    rows: rows, capacity: capacity, keys: keys, keyStride: keyStride, values: values,
                    valueStride: valueStride,
                    into: own.tile(tile, head: head), kernels: kernels)
            }
            let (headKeys, headValues) = (keys.base + head * keys.headStride, values.base + head * values.headStride)
            let (width, valueWidth) = (packed.headDimension, packed.valueDimension)
            if element == .float32, wire == .bfloat16 {
                Wire.rounded(headKeys, stride: keys.tokenStride, rows: rows.count, width: width, kernels) { keys in
                    Wire.rounded(headValues, stride: values.tokenStride, rows: rows.count, width: valueWidth, kernels) {
                        pack(keys, width, $0, valueWidth)
                    }
                }
            } else {
                pack(headKeys, keys.tokenStride, headValues, values.tokenStride)
            }
        }
    }

    /// Appends keys and values to a sequence that has room for them; what is packed already stays as it is. Every rank
    /// calls it alike, and attends to them with a job of the new ``keys``.
    /// - Parameters:
    ///   - count: how many. Full panels go first: the sequence's length before is a multiple of
    ///     `PackedTile.panelWidth`.
    ///   - sequence: the sequence's place in the batch.
    ///   - rows: gives the first of some new rows of one of this rank's tiles, which are to be packed.
    public func append(
        _ count: Int, to sequence: Int,
        rows: (_ tile: Int, _ rows: Range<Int>) throws -> (keys: HeadRows, values: HeadRows)
    ) rethrows {
        var lengths = keys.numbering.lengths
        let old = lengths[sequence]
        precondition(
            count >= 0 && old + count <= keys.numbering.capacities[sequence],
            "the sequence has room for what is appended")
        precondition(count == 0 || old % PackedTile.panelWidth == 0, "what is appended begins a panel")
        lengths[sequence] = old + count
        keys = keys.holding(lengths: lengths)
        let first = keys.numbering.firstTile[sequence]
        for tile in TileGrid.tiles(covering: old..<old + count) where own.tiles.contains(first + tile) {
            let tokens = keys.numbering.tokens(of: first + tile)
            let new = max(old, tokens.lowerBound) - tokens.lowerBound..<tokens.count
            let (keys, values) = try rows(first + tile, new)
            pack(tile: first + tile, rows: new, keys: keys, values: values)
        }
    }

    // MARK: - Turns

    /// The tiles of a rank of this rank's node.
    func tiles(of mate: Rank) -> TileStore {
        guard let tiles = node?.tiles[mate] else { preconditionFailure("\(mate) is no rank of this node") }
        return tiles
    }

    /// Returns once no rank reads this rank's tiles for a call that this rank has ended.
    func waitForReaders() throws {
        guard let node else { return }
        for mate in node.mates { try node.memory.wait(for: mate, toReach: 2 * node.calls) }
    }

    /// This rank's tiles are packed, for the call that now begins.
    func begin() {
        if let node { node.memory.setClock(of: rank, to: 2 * node.calls + 1) }
    }

    /// Returns once a rank of the node has begun the call that this rank is in.
    func wait(for mate: Rank, poll: () -> Void) throws {
        if let node { try node.memory.wait(for: mate, toReach: 2 * node.calls + 1, poll: poll) }
    }

    /// This rank reads nothing more in the call.
    func end() {
        guard var turn = node else { return }
        turn.calls += 1
        turn.memory.setClock(of: rank, to: 2 * turn.calls)
        node = turn
    }
}
