// What is observed of the attention of a run's layers, and where it is kept.

import Attention
import Matrices
import Plans
import RingAttention
import Tiles

/// What of a run's attention is observed.
public struct AttentionObservation: Sendable, Hashable {
    /// Which layers, counted from 0.
    public var layers: Set<Int>
    /// How many keys of most weight each row tells, at least 1.
    public var topKeys = 1
    /// Whether the mass that keys receive is found: a second pass over the keys, about half of an attention.
    public var receivesMass = true
    /// Whether the block sums of weights are found: another such pass.
    public var hasMaps = false
    /// Whether rollouts may be asked for, for which the states before every layer are kept.
    public var rollsOut = false

    /// Statistics of some layers' rows, and the mass that keys receive.
    public init(layers: Set<Int>) { self.layers = layers }

    /// Floats a token that observing takes beside the run's own.
    public func floatsPerToken(_ configuration: EncoderConfiguration) -> Int {
        let heads = configuration.attention.map(\.heads.queryHeads).max() ?? 0
        // The output, which no longer takes the place of the queries; statistics, of one layer at a time; and what is kept.
        return configuration.widestAttended + heads * (9 + 2 * topKeys)
            + (rollsOut ? configuration.layerCount * (configuration.hiddenSize + 2 * heads) : 0)
    }

    /// The layers of a model, by what is done in them.
    public func layers(_ configuration: EncoderConfiguration) -> [Footprint.Layers] {
        configuration.kinds.flatMap { kind -> [Footprint.Layers] in
            let all = configuration.attention.enumerated().filter { $0.element.kind == kind }
            let observed = all.count { layers.contains($0.offset) }
            let second: [OperationShape] = rollsOut ? [.receive(kind.heads)] : []
            let receive: [OperationShape] = receivesMass || rollsOut ? [.receive(kind.heads)] : []
            let parts = [
                (all.count - observed, [.attend(kind.heads)] + second),
                (
                    observed,
                    [.observe(kind.heads, topKeys: topKeys)] + receive + (hasMaps ? [.map(kind.heads)] : [])
                ),
            ]
            return parts.filter { $0.0 > 0 }.map {
                Footprint.Layers(mask: kind.mask, heads: kind.heads, count: $0.0, operations: $0.1)
            }
        }
    }

    /// Floating-point operations of a pair and query head that observing adds, all layers together.
    public func flopPerPair(_ heads: HeadShape) -> Int {
        4 + (receivesMass ? OperationShape.receive(heads).flopPerPair : 0)
            + (hasMaps ? OperationShape.map(heads).flopPerPair : 0)
    }
}

/// The attention of one layer as a rank's rows have it.
///
/// Every buffer is head after head, (heads, rows of this rank), unless it says otherwise.
public final class ObservedLayer {
    /// Which layer, counted from 0.
    public let layer: Int
    /// Its query heads.
    public let heads: Int
    /// This rank's rows.
    public let rows: Int
    /// Keys of most weight that each row tells.
    public let topKeys: Int
    /// L = m + ln ℓ, the sink included.
    public let logSumExp: AlignedBuffer
    /// −Σ p·ln p over keys, in nats.
    public let entropy: AlignedBuffer
    /// The largest score.
    public let maxLogit: AlignedBuffer
    /// Its key, an `Int32` by its bits; −1 where there is none.
    public let maxKey: AlignedBuffer
    /// Σ p·|i − j| / Σ p, in tokens.
    public let meanDistance: AlignedBuffer
    /// (heads, rows, topKeys): `Int32` by their bits, by descending score and ascending key.
    public let topKeyNumbers: AlignedBuffer
    /// (heads, rows, topKeys): their weights.
    public let topWeights: AlignedBuffer
    /// What each key receives of all rows; nil where it was not asked for.
    public let receivedMass: AlignedBuffer?
    /// The block sums of this rank's tiles; empty where they were not asked for.
    public let blockSums: [BlockSums.Part]

    private let ask: Ask

    /// What rectangles are made from.
    struct Ask {
        let attention: SelfAttention
        let problem: AttentionProblem
        let keyValues: KeyValueTiles
        let modifiers: ScoreModifiers
        let kernels: KernelSet
        let queries: HeadRows
        let rowMax: HeadRows
        let rowSum: HeadRows
        let tiles: [LocalTile]
        let sharding: Sharding
        let transport: any Transport
        let threads: ThreadPool
    }

    fileprivate init(_ memory: RunObservation.Memory, layer: Int, mass: Bool, sums: [BlockSums.Part], _ ask: Ask) {
        self.layer = layer
        heads = ask.attention.heads.queryHeads
        rows = memory.rows
        topKeys = memory.topKeys
        logSumExp = memory.logSumExp
        entropy = memory.entropy
        maxLogit = memory.maxLogit
        maxKey = memory.maxKey
        meanDistance = memory.meanDistance
        topKeyNumbers = memory.topKeyNumbers
        topWeights = memory.topWeights
        receivedMass = mass ? memory.receivedMass : nil
        blockSums = sums
        self.ask = ask
    }

    /// Scores and weights of some queries and keys of one document. Collective: queries are gathered on every rank.
    /// - Parameters:
    ///   - sequence: the document's place in the batch.
    ///   - queries: tokens of it.
    ///   - keys: tokens of it.
    ///   - heads: which query heads.
    /// - Returns: for each head what this rank's keys have of it, by query tile and key tile.
    public func rectangle(sequence: Int, queries: Range<Int>, keys: Range<Int>, heads: [Int]) throws
        -> [[RectanglePart]]
    {
        let asked = try gather(sequence, queries, heads)
        let rows = pieces(of: queries, tiles: 1)
        let tilesAtATime = tilesOfKeys(TileGrid.tiles(covering: keys).count, work: heads.count * rows.count)
        let columns = pieces(of: keys, tiles: tilesAtATime)
        let perHead = rows.count * columns.count
        var found = [[RectanglePart]](repeating: [], count: heads.count * perHead)
        found.withUnsafeMutableBufferPointer { found in
            ask.threads.forEach(heads.count * perHead) { index, _ in
                let (head, piece) = (index / perHead, index % perHead)
                // Disjoint: each index has its own head, rows and keys.
                found[index] = ask.keyValues.rectangle(
                    asked[head], rows: rows[piece / columns.count], sequence: sequence,
                    keys: columns[piece % columns.count], head: heads[head], of: ask.problem, modifiers: ask.modifiers,
                    scale: ask.attention.scale, contents: ask.attention.contents, kernels: ask.kernels)
            }
        }
        var parts = [[RectanglePart]](repeating: [], count: heads.count)
        for (index, some) in found.enumerated() { parts[index / perHead] += some }
        return parts
    }

    /// How many tiles of keys a thread takes at a time, so that all threads have some of the work.
    /// - Parameter work: how much there is beside the keys: heads times query tiles.
    private func tilesOfKeys(_ tiles: Int, work: Int) -> Int {
        let pieces = ask.threads.threads == 1 ? 1 : max(1, 4 * ask.threads.threads / max(1, work))
        return max(1, (tiles + pieces - 1) / pieces)
    }

    /// A range of tokens in pieces of so many tiles.
    private func pieces(of tokens: Range<Int>, tiles count: Int) -> [Range<Int>] {
        var pieces: [Range<Int>] = []
        var first = tokens.lowerBound / TileGrid.tileSize * TileGrid.tileSize
        while first < tokens.upperBound {
            pieces.append((first..<first + count * TileGrid.tileSize).clamped(to: tokens))
            first += count * TileGrid.tileSize
        }
        return pieces
    }

    /// The wanted queries of all ranks, head by head.
    private func gather(_ sequence: Int, _ wanted: Range<Int>, _ heads: [Int]) throws -> [RectangleQueries] {
        let width = ask.attention.heads.headDimension
        var mine: [Float] = []
        for tile in ask.tiles where tile.sequence == sequence {
            for token in wanted.clamped(to: tile.tokens) {
                let row = tile.firstRow + token - tile.tokens.lowerBound
                for head in heads {
                    let query = ask.queries.base + row * ask.queries.tokenStride + head * ask.queries.headStride
                    mine += UnsafeBufferPointer(start: query, count: width)
                    for values in [ask.rowMax, ask.rowSum] {
                        mine.append(values.base[row * values.tokenStride + head * values.headStride])
                    }
                }
            }
        }
        let all = try ask.transport.allGather(mine.withUnsafeBytes { Array($0) })
        var queries = heads.map { _ in [Float](repeating: 0, count: wanted.count * width) }
        var rowMax = heads.map { _ in [Float](repeating: -.infinity, count: wanted.count) }
        var rowSum = heads.map { _ in [Float](repeating: 0, count: wanted.count) }
        for (rank, bytes) in all.enumerated() {
            bytes.withUnsafeBytes { bytes in
                var next = 0
                func float() -> Float {
                    defer { next += 4 }
                    return bytes.loadUnaligned(fromByteOffset: next, as: Float.self)
                }
                for tile in ask.sharding.tiles(of: Rank(rank))
                where ask.sharding.numbering.sequence(of: tile) == sequence {
                    for token in wanted.clamped(to: ask.sharding.numbering.tokens(of: tile)) {
                        let row = token - wanted.lowerBound
                        for place in heads.indices {
                            for channel in 0..<width { queries[place][row * width + channel] = float() }
                            rowMax[place][row] = float()
                            rowSum[place][row] = float()
                        }
                    }
                }
            }
        }
        return heads.indices.map {
            RectangleQueries(rows: wanted, queries: queries[$0], rowMax: rowMax[$0], rowSum: rowSum[$0])
        }
    }
}

/// One rank's part in observing a run.
final class RunObservation {
    /// What one layer's statistics are written into, which the next layer takes again.
    struct Memory {
        let rows: Int
        let topKeys: Int
        let logSumExp, entropy, maxLogit, maxKey, meanDistance, topKeyNumbers, topWeights, receivedMass: AlignedBuffer

        init(rows: Int, heads: Int, topKeys: Int) {
            self.rows = rows
            self.topKeys = topKeys
            func each(_ count: Int = 1) -> AlignedBuffer { AlignedBuffer(count: rows * heads * count) }
            (logSumExp, entropy, maxLogit, maxKey) = (each(), each(), each(), each())
            (meanDistance, receivedMass) = (each(), each())
            (topKeyNumbers, topWeights) = (each(topKeys), each(topKeys))
        }
    }

    private let asked: AttentionObservation
    private let encoder: Encoder
    private let sharding: Sharding
    private let tiles: [LocalTile]
    private let memory: Memory
    private let sums: BlockSums
    /// m and ℓ of a layer's rows, (heads, rows): one for each layer where rollouts are asked for, else one for all.
    private let maxima: [AlignedBuffer]
    private let rowSums: [AlignedBuffer]
    /// The states before each layer, where rollouts are asked for.
    private let kept: [AlignedBuffer]
    /// What each row counts.
    private let rowWeights: AlignedBuffer

    init(_ asked: AttentionObservation, _ encoder: Encoder, _ sharding: Sharding, _ layout: RowLayout) {
        self.asked = asked
        self.encoder = encoder
        self.sharding = sharding
        tiles = layout.tiles
        let configuration = encoder.configuration
        let (rows, heads) = (layout.rowCount, configuration.attention.map(\.heads.queryHeads).max() ?? 0)
        memory = Memory(rows: rows, heads: heads, topKeys: asked.topKeys)
        sums = BlockSums(
            tiles: layout.tiles.map {
                ($0.firstRow, $0.tokens, sharding.numbering.lengths[$0.sequence])
            })
        let layers = asked.rollsOut ? configuration.layerCount : 1
        maxima = (0..<layers).map { _ in AlignedBuffer(count: rows * heads) }
        rowSums = (0..<layers).map { _ in AlignedBuffer(count: rows * heads) }
        kept = (0..<(asked.rollsOut ? layers : 0)).map { _ in AlignedBuffer(count: rows * configuration.hiddenSize) }
        rowWeights = AlignedBuffer(count: rows)
        withExtendedLifetime(rowWeights) { $0.pointer.update(repeating: 1, count: rows) }
    }

    /// What the layers of a kind are observed with.
    func operations(_ kind: AttentionKind) -> [TileOperation] {
        let pattern = encoder.configuration.attention.enumerated()
        let isObserved = pattern.contains { $1.kind == kind && asked.layers.contains($0) }
        var operations: [TileOperation] = []
        let (heads, mask, element, kernels) = (kind.heads, kind.mask, encoder.element, encoder.kernels)
        if isObserved {
            operations.append(
                .observe(
                    heads: heads, element: element, mask: mask, modifiers: encoder.modifiers, topKeys: asked.topKeys,
                    kernels: kernels))
        }
        if asked.rollsOut || isObserved && asked.receivesMass {
            operations.append(
                .receive(heads: heads, element: element, mask: mask, modifiers: encoder.modifiers, kernels: kernels))
        }
        if isObserved && asked.hasMaps {
            operations.append(
                .map(
                    heads: heads, element: element, mask: mask, modifiers: encoder.modifiers, sums: sums,
                    kernels: kernels))
        }
        return operations
    }

    /// Keeps the states that a layer reads.
    func keep(_ hidden: AlignedBuffer, before layer: Int) {
        guard asked.rollsOut else { return }
        withExtendedLifetime(kept[layer]) { $0.pointer.update(from: hidden.pointer, count: $0.count) }
    }

    /// The states that a layer read.
    func states(before layer: Int) -> AlignedBuffer { kept[layer] }

    /// (heads, rows): a float each.
    private func perRow(_ buffer: AlignedBuffer, width: Int = 1) -> HeadRows {
        HeadRows(buffer, tokenStride: width, headStride: memory.rows * width)
    }

    /// Attends, with statistics where the layer is observed. Collective.
    /// - Returns: what is observed of the layer; nil where it is not.
    func attend(
        layer: Int, _ block: SelfAttention, _ kind: AttentionKind, _ attention: LayerAttention, queries: HeadRows,
        output: HeadRows, transport: any Transport, threads: ThreadPool
    ) throws -> ObservedLayer? {
        let (executor, keyValues) = attention.layer(kind)
        // What takes turns leaves its memory to the others.
        func run(_ executor: RingExecutor, _ call: TileCall) throws {
            try executor.run(call, on: keyValues)
            executor.releaseMemory()
        }
        let place = asked.rollsOut ? layer : 0
        let (rowMax, rowSum) = (perRow(maxima[place]), perRow(rowSums[place]))
        guard asked.layers.contains(layer) else {
            try run(
                executor,
                .attend(
                    queries: queries, scale: block.scale, output: output, rowMax: rowMax, rowSum: rowSum,
                    contents: block.contents))
            return nil
        }
        var statistics = RowStatistics()
        statistics.entropy = perRow(memory.entropy)
        statistics.largestScore = perRow(memory.maxLogit)
        statistics.largestKey = perRow(memory.maxKey)
        statistics.meanDistance = perRow(memory.meanDistance)
        statistics.topKeys = perRow(memory.topKeyNumbers, width: asked.topKeys)
        statistics.topWeights = perRow(memory.topWeights, width: asked.topKeys)
        let observer = attention.observer(kind, .observe(kind.heads, topKeys: asked.topKeys))
        try run(
            observer,
            .observe(
                queries: queries, scale: block.scale, output: output, logSumExp: perRow(memory.logSumExp),
                rowMax: rowMax, rowSum: rowSum, statistics: statistics, contents: block.contents))
        if asked.receivesMass {
            // The same weight for every head.
            let ones = HeadRows(rowWeights, tokenStride: 1, headStride: 0)
            try run(
                attention.observer(kind, .receive(kind.heads)),
                .receive(
                    queries: queries, scale: block.scale, rowMax: rowMax, rowSum: rowSum, rowWeights: ones,
                    mass: perRow(memory.receivedMass), contents: block.contents))
        }
        if asked.hasMaps {
            try run(
                attention.observer(kind, .map(kind.heads)),
                .map(queries: queries, scale: block.scale, rowMax: rowMax, rowSum: rowSum, contents: block.contents))
        }
        return ObservedLayer(
            memory, layer: layer, mass: asked.receivesMass, sums: asked.hasMaps ? sums.take() : [],
            ObservedLayer.Ask(
                attention: block, problem: observer.plan.problem, keyValues: keyValues, modifiers: encoder.modifiers,
                kernels: encoder.kernels, queries: queries, rowMax: rowMax, rowSum: rowSum, tiles: tiles,
                sharding: sharding, transport: transport, threads: threads))
    }

    /// One layer of a rollout: r ← r·(I + A)/2. Collective.
    /// - Parameters:
    ///   - shares: r of this rank's rows.
    ///   - queries: those of the layer, whose keys are packed.
    func rollBack(
        _ shares: inout [Float], layer: Int, _ block: SelfAttention, _ kind: AttentionKind,
        _ attention: LayerAttention, queries: HeadRows
    ) throws {
        let weights = AlignedBuffer(count: memory.rows)
        for row in 0..<memory.rows { weights[row] = shares[row] }
        let heads = kind.heads.queryHeads
        try attention.observer(kind, .receive(kind.heads)).run(
            .receive(
                queries: queries, scale: block.scale, rowMax: perRow(maxima[layer]), rowSum: perRow(rowSums[layer]),
                rowWeights: HeadRows(weights, tokenStride: 1, headStride: 0), mass: perRow(memory.receivedMass),
                contents: block.contents), on: attention.layer(kind).keyValues)
        for row in 0..<memory.rows {
            var sum: Float = 0
            for head in 0..<heads { sum += memory.receivedMass[head * memory.rows + row] }
            shares[row] = (shares[row] + sum / Float(heads)) / 2
        }
    }
}
