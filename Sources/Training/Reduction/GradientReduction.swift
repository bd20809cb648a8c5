// The gradients of a step, brought together on the ranks that own the blocks of parameters.

import Matrices
import RingAttention
import Tiles
import Transformers

/// The sum of a step's gradients over the tiles of all ranks, each block of parameters on the rank that owns it.
///
/// What a rank has are sums over the maximal subtrees of its tiles (`GradientPart`). They go to the owners, who merge
/// them on the fixed tree over the step's tiles, left before right, whatever order they come in: so the bits depend
/// neither on the ranks nor on how a step is divided into micro-batches, whose parts wait in the owners' forests.
///
/// Bytes that a rank sends to another for a micro-batch: for every piece, which is what one of the other's blocks holds of
/// a slot, and every maximal subtree of the sender's tiles 4, and for a part that is there 4 for each of its floats inside
/// the piece and 4 for each row that has some. Control traffic: 8 bytes for each rank and round.
public final class GradientReduction {
    private let blocks: ParameterBlocks
    private let slots: [GradientSlot]
    private let transport: any Transport
    private let threads: ThreadPool
    /// Of every block of all ranks.
    private let pieces: [[Piece]]
    private let mine: Range<Int>
    /// Of every block of this rank, by its pieces.
    private let sums: [BlockSums]

    /// What a block holds of a slot.
    struct Piece {
        let slot: Int
        /// Floats of the parameter.
        let range: Range<Int>
        /// The columns of a row where only some rows have a gradient; 0 where all have.
        let columns: Int
        /// Where the range begins in the vector of parameters.
        let start: Int
        /// Whether no slot before it is of the same floats.
        let isFirst: Bool
    }

    /// The forests of a block's pieces: one thread's at a time.
    private final class BlockSums {
        var forests: [MergeForest<SegmentSum>]

        init(_ forests: [MergeForest<SegmentSum>]) { self.forests = forests }
    }

    /// Blocks of each owner that go over the wire together: 4 MiB of floats of each part.
    private static let blocksOfRound = 16

    /// - Parameters:
    ///   - slots: what gradients consist of, in one order on every rank and in every micro-batch; those of parameters
    ///     that are not trained have no place in `blocks` and are passed over.
    ///   - blocks: the parameters.
    ///   - tiles: how many tiles the step has.
    public init(
        slots: [GradientSlot], _ blocks: ParameterBlocks, tiles: Int, over transport: any Transport, threads: ThreadPool
    ) {
        self.blocks = blocks
        self.slots = slots
        self.transport = transport
        self.threads = threads
        var ofName: [String: [Int]] = [:]
        for (place, slot) in slots.enumerated() { ofName[slot.parameter.name, default: []].append(place) }
        var pieces: [[Piece]] = []
        for block in 0..<blocks.blockCount {
            let floats = blocks.floats(of: block..<block + 1)
            var ofBlock: [Piece] = []
            for place in blocks.entries(in: floats) {
                let entry = blocks.entries[place]
                let part = entry.range.clamped(to: floats)
                let inside = part.lowerBound - entry.range.lowerBound..<part.upperBound - entry.range.lowerBound
                let candidates = ofName[entry.parameter.name] ?? []
                for slot in candidates {
                    let range = slots[slot].floats.clamped(to: inside)
                    if range.isEmpty { continue }
                    let isFirst = !candidates.contains { $0 < slot && slots[$0].floats.overlaps(range) }
                    ofBlock.append(
                        Piece(
                            slot: slot, range: range, columns: slots[slot].rowWidth ?? 0,
                            start: entry.range.lowerBound + range.lowerBound, isFirst: isFirst))
                }
            }
            pieces.append(ofBlock)
        }
        self.pieces = pieces
        mine = blocks.blocks(of: transport.rank, of: transport.size)
        let all = Runs(0..<tiles)
        sums = pieces[mine].map { pieces in BlockSums(pieces.map { _ in MergeForest<SegmentSum>(tiles: all) }) }
    }

    /// Brings the parts of a micro-batch to their owners. Collective.
    /// - Parameters:
    ///   - parts: of each slot; a part stands at one of this rank's `nodes`, and one to which no tile adds is left out.
    ///   - nodes: the maximal subtrees that the tiles of each rank fill in this micro-batch, by ascending tiles.
    /// - Throws: what the transport throws.
    public func add(_ parts: [[GradientPart]], nodes: [[TreeNode]]) throws {
        let me = transport.rank.index
        precondition(parts.count == slots.count, "parts of every slot")
        // One for every subtree of this rank.
        let mineByNode = parts.map { parts in nodes[me].map { node in parts.first { $0.node == node } } }
        precondition(
            zip(parts, mineByNode).allSatisfy { $0.count == $1.count { $0 != nil } },
            "a part of no subtree of this rank")
        let owned = (0..<transport.size).map { blocks.blocks(of: Rank($0), of: transport.size) }
        let rounds = ((owned.map { $0.count }.max() ?? 0) + Self.blocksOfRound - 1) / Self.blocksOfRound
        func turn(of rank: Int, in round: Int) -> Range<Int> {
            let first = owned[rank].lowerBound + round * Self.blocksOfRound
            return (first..<first + Self.blocksOfRound).clamped(to: owned[rank])
        }
        var messages: [ReductionMessage] = []
        for round in 0..<rounds {
            for rank in 0..<transport.size {
                messages.append(
                    rank == me ? ReductionMessage() : message(mineByNode, to: turn(of: rank, in: round)))
            }
        }
        let counts = messages.map { Int64($0.byteCount) }
        let everyones = try transport.allGather(counts.withUnsafeBytes { Array($0) })
        for round in 0..<rounds {
            let inboxes = (0..<transport.size).map { rank in
                let bytes = everyones[rank].withUnsafeBytes {
                    $0.loadUnaligned(fromByteOffset: 8 * (round * transport.size + me), as: Int64.self)
                }
                return AlignedBuffer(count: Int(bytes) / 4)
            }
            var receives: [Incoming] = []
            var sends: [Outgoing] = []
            for rank in 0..<transport.size {
                if inboxes[rank].count > 0 {
                    receives.append(
                        Incoming(from: Rank(rank), pieces: [inboxes[rank].bytes], keeping: [inboxes[rank]]))
                }
                let place = round * transport.size + rank
                guard messages[place].byteCount > 0 else { continue }
                let pieces = messages[place].pieces()
                sends.append(Outgoing(to: Rank(rank), pieces: pieces, keeping: messages[place].owners))
            }
            try transport.exchange(receive: receives, send: sends)
            merge(mineByNode, inboxes, nodes, blocks: turn(of: me, in: round))
        }
        // Messages point into them.
        withExtendedLifetime(parts) {}
    }

    /// What another rank's blocks get of this rank's parts.
    private func message(_ parts: [[GradientPart?]], to blocks: Range<Int>) -> ReductionMessage {
        var message = ReductionMessage()
        for block in blocks {
            for piece in pieces[block] {
                for part in parts[piece.slot] {
                    guard let part else {
                        message.appendNothing()
                        continue
                    }
                    message.append(
                        PartSlice(part, piece.range, columns: piece.columns, start: slots[piece.slot].floats.lowerBound)
                    )
                }
            }
        }
        return message
    }

    /// A slice that has arrived for a piece.
    private struct Arrival {
        let node: TreeNode
        let rows: [Int32]
        /// Where its floats are in the inbox.
        let floats: Range<Int>
    }

    /// Merges what has come for some of this rank's blocks, and what it has itself.
    private func merge(
        _ parts: [[GradientPart?]], _ inboxes: [AlignedBuffer], _ nodes: [[TreeNode]], blocks: Range<Int>
    ) {
        // By rank, block and piece.
        let arrived = inboxes.indices.map { rank in
            inboxes[rank].count == 0 ? [] : arrivals(inboxes[rank], nodes[rank], blocks: blocks)
        }
        threads.forEach(blocks.count) { index, _ in
            let block = blocks.lowerBound + index
            // Disjoint: each index has its own forests.
            let sums = sums[block - mine.lowerBound]
            for (place, piece) in pieces[block].enumerated() {
                for (rank, nodes) in nodes.enumerated() {
                    for (number, node) in nodes.enumerated() {
                        var sum = SegmentSum(range: piece.range, columns: piece.columns)
                        if rank == transport.rank.index {
                            if let part = parts[piece.slot][number] {
                                sum = PartSlice(
                                    part, piece.range, columns: piece.columns,
                                    start: slots[piece.slot].floats.lowerBound
                                ).sum(range: piece.range, columns: piece.columns)
                            }
                        } else if let slice = arrived[rank][index][place][number] {
                            sum = PartSlice(
                                rows: slice.rows[...],
                                values: UnsafeBufferPointer(
                                    start: inboxes[rank].pointer + slice.floats.lowerBound, count: slice.floats.count)
                            ).sum(range: piece.range, columns: piece.columns)
                        }
                        sums.forests[place].insert(sum, at: node)
                    }
                }
            }
        }
    }

    /// What a message holds: by block, piece and subtree; nil where nothing came of it.
    private func arrivals(_ inbox: AlignedBuffer, _ nodes: [TreeNode], blocks: Range<Int>) -> [[[Arrival?]]] {
        var reader = ReductionReader(inbox)
        var rows: [[Int32]?] = []
        for block in blocks {
            for _ in pieces[block].indices { for _ in nodes { rows.append(reader.rows()) } }
        }
        var next = reader.end
        var place = 0
        return blocks.map { block in
            pieces[block].map { piece in
                nodes.map { node in
                    defer { place += 1 }
                    guard let rows = rows[place] else { return nil }
                    let columns = piece.columns
                    let count =
                        columns == 0
                        ? piece.range.count
                        : rows.reduce(0) {
                            $0 + (Int($1) * columns..<(Int($1) + 1) * columns).clamped(to: piece.range).count
                        }
                    defer { next += count }
                    return Arrival(node: node, rows: rows, floats: next..<next + count)
                }
            }
        }
    }

    /// The gradient of this rank's blocks, once the parts of all the step's tiles are in: zero where no tile adds
    /// anything.
    /// - Parameter target: takes the floats of the blocks.
    public func finish(into target: AlignedBuffer) {
        let first = blocks.floats(of: mine).lowerBound
        threads.forEach(mine.count) { index, _ in
            let floats = blocks.floats(of: mine.lowerBound + index..<mine.lowerBound + index + 1)
            // Disjoint: each index has its own block.
            (target.pointer + (floats.lowerBound - first)).update(repeating: 0, count: floats.count)
            for (place, piece) in pieces[mine.lowerBound + index].enumerated() {
                guard let sum = sums[index].forests[place].root else { continue }
                sum.write(to: target.pointer + (piece.start - first), isFirst: piece.isFirst)
            }
        }
    }
}
