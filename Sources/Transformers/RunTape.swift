// What a run keeps of its way forward for the way back.

import Attention
import Matrices
import Plans
import Tiles

/// A forward pass whose gradients are wanted.
public struct TrainingPass: Sendable, Hashable {
    /// What is dropped, if anything.
    public let dropout: Dropout?

    /// - Parameter dropout: what is dropped, if anything.
    public init(dropout: Dropout? = nil) { self.dropout = dropout }
}

/// What one rank's run keeps: of each layer its input, attention's result, and m and ℓ of its rows. All else is made
/// again on the way back.
final class RunTape {
    let pass: TrainingPass
    private let dropoutPlaces: DropoutPlaces
    /// (rows, hiddenSize): the input of each layer, and behind the last one that of the final norm, if there is one.
    let states: [AlignedBuffer]
    /// By layer: (rows, query heads, value width).
    let attended: [AlignedBuffer]
    /// By layer: (heads, rows), in steps and as they come.
    let rowMax: [AlignedBuffer]
    let rowSum: [AlignedBuffer]
    /// (rows, hiddenSize): the gradient of the run's hidden states, and on the way back that of a layer's result.
    let gradient: AlignedBuffer
    /// Whole tiles, which threads go back over.
    let blocks: [RowBlock]
    let memory: BackwardMemory
    /// What the embeddings were made of.
    var tokens: TokenBatch?
    private let rows: Int

    init(
        _ pass: TrainingPass, _ configuration: EncoderConfiguration, _ layout: RowLayout, threads: Int,
        memory: BufferPool
    ) {
        self.pass = pass
        dropoutPlaces = configuration.dropoutPlaces
        rows = layout.rowCount
        let rows = rows
        func each(_ width: Int) -> AlignedBuffer { memory.buffer(count: rows * width) }
        states = (0..<configuration.layerCount + (configuration.hasFinalNorm ? 1 : 0)).map { _ in
            each(configuration.hiddenSize)
        }
        attended = configuration.attention.map { each($0.heads.queryHeads * $0.heads.valueDimension) }
        rowMax = configuration.attention.map { each($0.heads.queryHeads) }
        rowSum = configuration.attention.map { each($0.heads.queryHeads) }
        gradient = each(configuration.hiddenSize)
        blocks = RowLayout.wholeTiles(layout.tiles)
        self.memory = BackwardMemory(
            configuration, rows: rows, tiles: layout.tiles.count, blockRows: blocks.map(\.count).max() ?? 0,
            threads: threads, memory: memory)
    }

    /// Begins a way forward, after which no state has a gradient yet.
    func begin(_ tokens: TokenBatch) {
        self.tokens = tokens
        withExtendedLifetime(gradient) { $0.pointer.update(repeating: 0, count: $0.count) }
    }

    /// Keeps the rows that a layer reads, or the final norm.
    func keep(_ hidden: AlignedBuffer, before layer: Int) {
        guard layer < states.count else { return }
        withExtendedLifetime(states[layer]) {
            $0.pointer.update(from: hidden.pointer, count: $0.count < hidden.count ? $0.count : hidden.count)
        }
    }

    /// (heads, rows): a float each.
    func perRow(_ buffer: AlignedBuffer, from first: Int = 0) -> HeadRows {
        HeadRows(buffer, offset: first, tokenStride: 1, headStride: rows)
    }

    /// What is dropped of a block's rows in a layer.
    func dropout(_ layer: Int, _ block: RowBlock) -> LayerDropout? {
        pass.dropout.map { LayerDropout(dropout: $0, places: dropoutPlaces, layer: layer, rows: block) }
    }
}

extension RowLayout {
    /// All tiles in blocks of whole ones, each of as many rows as a tile has room for at most: what sums over a tile is
    /// one thread's.
    static func wholeTiles(_ tiles: [LocalTile]) -> [RowBlock] {
        var blocks: [RowBlock] = []
        for tile in tiles {
            let part = (tile: tile, rows: 0..<tile.tokens.count)
            if let last = blocks.last, last.count + tile.tokens.count <= TileGrid.tileSize {
                blocks[blocks.count - 1].parts.append(part)
                blocks[blocks.count - 1].count += tile.tokens.count
            } else {
                blocks.append(RowBlock(parts: [part], firstRow: tile.firstRow, count: tile.tokens.count))
            }
        }
        return blocks
    }
}

extension EncoderConfiguration {
    /// Floats for each of a rank's rows that a training's run holds: what any run does but for the packed keys and values of the
    /// first layer's heads, what is kept of the way forward, and what the way back is written into. Gradients of weights,
    /// weights, and what each thread needs for a block of rows are counted apart, and so is what plans count: tiles and results
    /// of other ranks, and results that wait for them.
    public func trainingFloatsPerRow(longestDocument: Int) -> Int {
        let heads = attention.map(\.heads)
        func most(_ width: (HeadShape) -> Int) -> Int { heads.map(width).max() ?? 0 }
        let keyValues = Set(heads).subtracting(heads.prefix(1)).reduce(0) {
            $0 + $1.keyValueHeads * ($1.headDimension + $1.valueDimension)
        }
        let areAsWide = heads.allSatisfy { $0.headDimension == $0.valueDimension }
        let run =
            hiddenSize + widestQueries + (areAsWide ? 0 : widestAttended) + keyValues
            + rotaryDimension * Set(attention.compactMap(\.rotaryBase)).count
        let kept = heads.reduce(hiddenSize * (layerCount + (hasFinalNorm ? 1 : 0) + 1)) {
            $0 + $1.queryHeads * ($1.valueDimension + 2)
        }
        let back =
            (norms == .beforeSublayer ? 4 : 3) * hiddenSize + innerWidth + intermediateSize + widestAttended
            + widestQueries + most { $0.queryHeads }
            + most { $0.keyValueHeads * ($0.headDimension + $0.valueDimension) }
        // The operand of a weight's gradient in panels; of the embeddings what is read and its gradient, in its place.
        let panels = max(
            hiddenSize, intermediateSize, widestAttended, (hasEmbeddingProjection ? 2 : 1) * embeddingSize)
        // The rows of the large tables that the tokens of each tile have read, which merge, and what becomes of them.
        let tables = (3 + (positions == .none ? 1 : 2)) * embeddingSize
        // Results of one head at a time, on their way up the trees.
        let levels = Int.bitWidth - (longestDocument / TileGrid.tileSize).leadingZeroBitCount
        let results = most { $0.queryHeads / $0.keyValueHeads * $0.headDimension } * (levels + 1)
        return run + kept + back + panels + tables + results
    }
}
