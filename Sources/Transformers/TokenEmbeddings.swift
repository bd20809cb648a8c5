// The sum of a token's embeddings, and the way its gradient goes back into the tables.

import Matrices
import Tiles

/// The tokens of a batch, as the tables of embeddings are read for them.
struct TokenBatch {
    let ids: [[Int32]]
    /// nil: all tokens are of the first type.
    let typeIds: [[Int32]]?
    private let positions: PositionRows
    /// What a document's word embeddings are multiplied by, where the model was trained with token dropout.
    private let scales: [Float]?
    private let maskId: Int32?

    /// - Parameter sequences: those whose tokens are asked for.
    init(_ configuration: EncoderConfiguration, ids: [[Int32]], typeIds: [[Int32]]?, sequences: Set<Int>) {
        self.ids = ids
        self.typeIds = configuration.distinguishesTypes ? typeIds : nil
        positions = PositionRows(configuration.positions, ids: ids, sequences: sequences)
        scales = configuration.maskedTokens.map { rule in ids.map { rule.scale(of: $0) } }
        maskId = configuration.maskedTokens.map { Int32($0.maskId) }
    }

    func word(_ sequence: Int, _ position: Int) -> Int { Int(ids[sequence][position]) }
    func type(_ sequence: Int, _ position: Int) -> Int { Int(typeIds?[sequence][position] ?? 0) }
    func positionRow(_ sequence: Int, _ position: Int) -> Int { positions.row(of: position, in: sequence) }

    /// What a token's word embedding is multiplied by; nil: nothing. 0 for mask tokens of a model that drops them.
    func wordScale(_ sequence: Int, _ position: Int) -> Float? {
        guard let scales else { return nil }
        return ids[sequence][position] == maskId ? 0 : scales[sequence]
    }
}

extension Encoder.Embeddings {
    /// The sums of the rows that the tokens of a block read.
    /// - Parameter sums: (rows of the block, width)
    func sum(_ block: RowBlock, of tokens: TokenBatch, width: Int, into sums: UnsafeMutablePointer<Float>) {
        for part in block.parts {
            let sequence = part.tile.sequence
            for row in part.rows {
                let position = part.tile.tokens.lowerBound + row
                let sum = sums + (part.tile.firstRow + row - block.firstRow) * width
                sum.update(from: words.pointer + tokens.word(sequence, position) * width, count: width)
                if let factor = tokens.wordScale(sequence, position) {
                    for column in 0..<width { sum[column] *= factor }
                }
                if let tokenTypes { Self.add(tokenTypes, row: tokens.type(sequence, position), width, to: sum) }
                if let positions { Self.add(positions, row: tokens.positionRow(sequence, position), width, to: sum) }
            }
        }
    }

    private static func add(_ table: WeightBlock, row: Int, _ width: Int, to sum: UnsafeMutablePointer<Float>) {
        let values = table.pointer + row * width
        for column in 0..<width { sum[column] += values[column] }
    }
}

/// The rows of a table that some tiles' tokens read, with the sums of their gradients.
struct TableRows: Mergeable {
    /// Ascending.
    private(set) var rows: [Int32] = []
    /// (rows, width)
    private(set) var values: [Float] = []
    let width: Int

    /// One tile's: gradients of tokens that read the same row are added by ascending position.
    /// - Parameters:
    ///   - reads: for each token of the tile that counts the row it reads, and what its gradient is multiplied by.
    ///   - gradients: (tokens of the tile, width)
    init(reads: [(token: Int, row: Int, factor: Float?)], gradients: UnsafePointer<Float>, width: Int) {
        self.width = width
        let ordered = reads.sorted { ($0.row, $0.token) < ($1.row, $1.token) }
        values.reserveCapacity(reads.count * width)
        for read in ordered {
            let gradient = gradients + read.token * width
            let factor = read.factor ?? 1
            if rows.last == Int32(read.row) {
                let first = values.count - width
                for column in 0..<width { values[first + column] += gradient[column] * factor }
            } else {
                rows.append(Int32(read.row))
                for column in 0..<width { values.append(gradient[column] * factor) }
            }
        }
    }

    /// Rows of both are added, the others taken as they are.
    mutating func merge(right: TableRows) {
        var merged: [Int32] = []
        var sums: [Float] = []
        merged.reserveCapacity(rows.count + right.rows.count)
        sums.reserveCapacity(values.count + right.values.count)
        var (mine, other) = (0, 0)
        while mine < rows.count || other < right.rows.count {
            let (a, b) = (mine < rows.count ? rows[mine] : .max, other < right.rows.count ? right.rows[other] : .max)
            let (first, second) = (mine * width, other * width)
            if a < b {
                sums += values[first..<first + width]
            } else if b < a {
                sums += right.values[second..<second + width]
            } else {
                for column in 0..<width { sums.append(values[first + column] + right.values[second + column]) }
            }
            merged.append(min(a, b))
            mine += a <= b ? 1 : 0
            other += b <= a ? 1 : 0
        }
        (rows, values) = (merged, sums)
    }

    /// Merges the leaves of a rank's tiles as far up as they reach.
    /// - Parameters:
    ///   - leaves: those of tiles, ascending; one without rows contributes nothing.
    ///   - owned: all tiles of the rank.
    static func parts(_ leaves: [(tile: Int, rows: TableRows)], owned: Runs, step: Runs) -> [GradientPart] {
        var parts: [GradientPart] = []
        var next = 0
        for node in TreeNode.maximal(in: owned, of: step) {
            let first = next
            while next < leaves.count, node.tiles.contains(leaves[next].tile) { next += 1 }
            let contributing = leaves[first..<next].filter { !$0.rows.rows.isEmpty }
            if contributing.isEmpty { continue }
            var forest = MergeForest<TableRows>(tiles: Runs(contributing.map { $0.tile..<$0.tile + 1 }))
            for leaf in contributing { forest.insert(leaf.rows, tile: leaf.tile) }
            guard let root = forest.root else { preconditionFailure("every part has arrived") }
            let buffer = AlignedBuffer(count: root.values.count)
            withExtendedLifetime(buffer) { $0.pointer.update(from: root.values, count: root.values.count) }
            parts.append(GradientPart(node: node, rows: root.rows, values: buffer, count: root.values.count))
        }
        return parts
    }
}
