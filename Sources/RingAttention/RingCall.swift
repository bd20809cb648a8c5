// One call of an executor under way: what is resident, what arrives and leaves in a step, and the reductions.

import Attention
import Matrices
import Plans
import Tiles

/// What arrives in a step: its messages, and what they become.
struct Arrivals {
    var messages: [Incoming] = []
    var columns: [TileStore] = []
    /// What travels for keys and values where it is not they themselves, and their memory.
    var narrowed: [(buffer: AlignedBuffer, pieces: [UnsafeMutableRawBufferPointer])] = []
    var rows: [TileStore] = []
    var rowResults: [Arrived] = []
    var columnResults: [Arrived] = []

    typealias Arrived = (reduction: Reduction, parts: [(node: TreeNode, value: PartialResult)])
}

/// What leaves in a step: its messages, this rank's own rows gathered for them, and narrowed keys and values.
struct Departures {
    var messages: [Outgoing] = []
    var gathered: [TileStore] = []
    var narrowed: [AlignedBuffer] = []
}

/// One call under way: what is resident, and the reductions.
final class RingCall {
    let executor: RingExecutor
    let problem: AttentionProblem
    let call: TileCall
    let keyValues: KeyValueTiles
    var columns = ResidentTiles()
    var foreignRows = ResidentTiles()
    let rowResults: SideResults?
    let columnResults: SideResults?
    /// The first floats of a packed tile that travel; nil: all.
    let sentFloats: ((_ tile: Int) -> Int)?

    init(_ executor: RingExecutor, _ call: TileCall, _ keyValues: KeyValueTiles) {
        let problem = executor.plan.problem
        self.executor = executor
        self.problem = problem
        self.call = call
        self.keyValues = keyValues
        rowResults = executor.rowPool.map {
            SideResults(tiles: executor.queryTiles, heads: problem.heads.queryHeads, pool: $0)
        }
        columnResults = executor.columnPool.map {
            SideResults(tiles: executor.keyTiles, heads: problem.heads.queryHeads, pool: $0)
        }
        let packed = PackedTile(problem.heads, problem.element)
        sentFloats =
            problem.operation.columns == .keysAndValues
            ? nil
            : { packed.floats(of: problem.operation.columns, capacity: problem.keys.numbering.capacity(of: $0)) }
        columns.add(keyValues.own)
    }

    /// Mates' tiles, for a step.
    func borrow(_ readings: [NodeArrivals.Reading]) -> [TileStore] {
        let stores = readings.map { reading in
            switch reading {
            case .own(let mate): keyValues.tiles(of: mate)
            case .arrived(let store, _, _): store
            }
        }
        stores.forEach { columns.add($0) }
        return stores
    }

    func giveBack(_ stores: [TileStore]) { stores.forEach { columns.remove($0) } }

    /// Memory for what arrives, as its messages name it.
    func room(for step: Step, _ number: Int) -> Arrivals {
        var arrivals = Arrivals()
        arrivals.columns =
            executor.node?.arriving(number)
            ?? step.arrivingColumns.map {
                TileStore(
                    packed: $0.tiles, problem.operation.columns, heads: $0.heads, of: problem,
                    memory: executor.memory)
            }
        arrivals.rows = rowStores(step.receives.flatMap(\.payloads))
        for transfer in step.receives {
            var message = MessagePieces()
            for payload in transfer.payloads {
                switch payload {
                case .columns(let tiles, let heads):
                    var here = MessagePieces()
                    Self.append(tiles, heads, of: arrivals.columns, to: &here)
                    if executor.wire != nil {
                        let buffer = executor.memory(Wire.floats(for: here.pieces))
                        arrivals.narrowed.append((buffer, here.pieces))
                        message.append(buffer, floats: Wire.floats(for: here.pieces))
                    } else {
                        message.append(here)
                    }
                case .rows(let tiles, let heads): Self.append(tiles, heads, of: arrivals.rows, to: &message)
                case .rowResults(let units):
                    arrivals.rowResults += results(
                        units.queries, units.heads, meeting: units.keys, of: rowResults, into: &message)
                case .columnResults(let units):
                    let heads = problem.columnResultHeads(of: units.heads)
                    arrivals.columnResults += results(
                        units.keys, heads, meeting: units.queries, of: columnResults, into: &message)
                }
            }
            arrivals.messages.append(message.incoming(from: transfer.peer))
        }
        return arrivals
    }

    /// One store for all arriving rows of the same heads.
    private func rowStores(_ payloads: [Payload]) -> [TileStore] {
        var byHeads: [Range<Int>: [Range<Int>]] = [:]
        for case .rows(let tiles, let heads) in payloads { byHeads[heads, default: []] += tiles.ranges }
        return byHeads.map { heads, ranges in rowStore(Runs(ranges), heads) }
    }

    private func rowStore(_ tiles: Runs, _ heads: Range<Int>) -> TileStore {
        let floats = problem.operation.rowOperandFloats
        return TileStore(
            tiles: tiles, heads: heads, tileFloats: { problem.queries.numbering.tokens(of: $0).count * floats },
            memory: executor.memory)
    }

    /// Memory for arriving results of one side.
    private func results(
        _ tiles: Runs, _ heads: Range<Int>, meeting others: Runs, of side: SideResults?,
        into message: inout MessagePieces
    ) -> [Arrivals.Arrived] {
        guard let side else { preconditionFailure("the operation has such results") }
        var arrived: [Arrivals.Arrived] = []
        side.forEach(tiles, heads, meeting: others) { tile, head in
            let parts = tile.subtrees(in: others).map {
                (node: $0, value: PartialResult(rows: tile.count, from: side.pool))
            }
            for part in parts { part.value.append(to: &message) }
            arrived.append((side.reduction(of: tile, head: head), parts))
        }
        return arrived
    }

    private static func append(
        _ tiles: Runs, _ heads: Range<Int>, of stores: [TileStore], to message: inout MessagePieces
    ) {
        guard let store = stores.first(where: { $0.heads == heads }) else { return }
        for head in heads {
            for run in tiles.ranges { store.append(run, head: head, to: &message) }
        }
    }

    /// The messages that leave.
    func messages(for sends: [Transfer]) -> Departures {
        var departures = Departures()
        for transfer in sends {
            var message = MessagePieces()
            for payload in transfer.payloads {
                switch payload {
                case .columns(let tiles, let heads):
                    var here = MessagePieces()
                    columns.append(tiles, heads: heads, floats: sentFloats, to: &here)
                    if let wire = executor.wire {
                        let buffer = executor.memory(Wire.floats(for: here.pieces))
                        wire.narrow(here.pieces, into: buffer)
                        departures.narrowed.append(buffer)
                        message.append(buffer, floats: Wire.floats(for: here.pieces))
                    } else {
                        message.append(here)
                    }
                case .rows(let tiles, let heads):
                    var sources = foreignRows
                    let mine = tiles.intersection(problem.queries.tiles(of: executor.plan.rank))
                    if !mine.isEmpty {
                        departures.gathered.append(gather(mine, heads))
                        sources.add(departures.gathered[departures.gathered.count - 1])
                    }
                    sources.append(tiles, heads: heads, to: &message)
                case .rowResults(let units):
                    rowResults?.take(units.queries, units.heads, meeting: units.keys, into: &message)
                case .columnResults(let units):
                    columnResults?.take(
                        units.keys, problem.columnResultHeads(of: units.heads), meeting: units.queries,
                        into: &message)
                }
            }
            departures.messages.append(message.outgoing(to: transfer.peer))
        }
        return departures
    }

    /// A copy of what some of this rank's rows bring, in the order in which it travels: plane by plane.
    private func gather(_ tiles: Runs, _ heads: Range<Int>) -> TileStore {
        let store = rowStore(tiles, heads)
        let numbers = Array(tiles)
        executor.threads.forEach(numbers.count * heads.count) { index, _ in
            let (head, tile) = (heads.lowerBound + index / numbers.count, queryTile(numbers[index % numbers.count]))
            let rows = rows(of: tile, head: head)
            // Disjoint: each index writes its own tile and head.
            var target = store.tile(tile.number, head: head)
            for (plane, width) in zip(rows.planes, problem.operation.rowOperands) {
                for row in 0..<tile.count {
                    (target + row * width).update(from: plane.rows + row * plane.stride, count: width)
                }
                target += tile.count * width
            }
        }
        return store
    }

    /// What the rows of a query tile bring, wherever it lies.
    func rows(of tile: SideTile, head: Int) -> TileRows {
        if let own = tile.own {
            return TileRows(
                count: tile.count, head: head,
                planes: call.rowOperands.map { rows in
                    (
                        UnsafePointer(rows.base + own.lowerBound * rows.tokenStride + head * rows.headStride),
                        rows.tokenStride
                    )
                })
        }
        var next = foreignRows.tile(tile.number, head: head)
        return TileRows(
            count: tile.count, head: head,
            planes: problem.operation.rowOperands.map { width in
                defer { next += tile.count * width }
                return (next, width)
            })
    }

    func queryTile(_ number: Int) -> SideTile {
        guard let tile = executor.queryTiles[number] else {
            preconditionFailure("query tile \(number) is not in the plan")
        }
        return tile
    }

    /// Lets go of what no later step needs.
    func release(_ payloads: [Payload], and departures: Departures) {
        for payload in payloads {
            switch payload {
            case .columns(let tiles, let heads):
                executor.spare += columns.release(tiles, heads: heads).filter { !$0.isBorrowed }
            case .rows(let tiles, let heads): executor.spare += foreignRows.release(tiles, heads: heads)
            case .rowResults, .columnResults: break
            }
        }
        executor.spare += departures.gathered.map(\.storage) + departures.narrowed
    }

    /// Takes in what has arrived: operands become resident, results merge.
    func take(_ arrivals: Arrivals) {
        for (buffer, pieces) in arrivals.narrowed {
            executor.wire?.widen(buffer, into: pieces)
            executor.spare.append(buffer)
        }
        arrivals.columns.forEach { columns.add($0) }
        arrivals.rows.forEach { foreignRows.add($0) }
        merge(arrivals.rowResults) { reduction, whole, worker in finishRows(whole, of: reduction, worker) }
        merge(arrivals.columnResults) { [call] reduction, whole, worker in
            worker.finishColumns(whole, first: reduction.tile.own?.lowerBound ?? 0, head: reduction.head, of: call)
        }
    }

    private func merge(_ arrived: [Arrivals.Arrived], finish: (Reduction, PartialResult, any TileWorker) -> Void) {
        let byReduction = Array(Dictionary(grouping: arrived, by: { ObjectIdentifier($0.reduction) }).values)
        withoutActuallyEscaping(finish) { finish in
            executor.threads.forEach(byReduction.count) { index, worker in
                // Disjoint: each index has one reduction to itself, and its tile and head of the results.
                for (reduction, parts) in byReduction[index] {
                    for part in parts {
                        reduction.insert(part.value, at: part.node) {
                            finish(reduction, $0, executor.workers[worker])
                        }
                    }
                }
                executor.progressed()
            }
        }
    }
}
