// What a token's place in its document, and the ids around it, make of its embedding.

/// The rows of the position table that the tokens of a batch read.
struct PositionRows {
    private let table: PositionTable
    /// Rows by token, of those sequences that hold the padding id.
    private var padded: [Int: [Int32]] = [:]

    /// - Parameter sequences: the sequences that are asked for.
    init(_ table: PositionTable, ids: [[Int32]], sequences: Set<Int>) {
        self.table = table
        guard case .afterPadding(let padding) = table else { return }
        for sequence in sequences where ids[sequence].contains(Int32(padding)) {
            var count: Int32 = 0
            padded[sequence] = ids[sequence].map { id in
                if id == Int32(padding) { return Int32(padding) }
                count += 1
                return Int32(padding) + count
            }
        }
    }

    func row(of token: Int, in sequence: Int) -> Int {
        if let rows = padded[sequence] { return Int(rows[token]) }
        return token + table.firstRow
    }
}

extension MaskedTokenRule {
    /// What the embeddings of a document are multiplied by.
    func scale(of ids: [Int32]) -> Float {
        let share = Float(ids.count { $0 == Int32(maskId) }) / Float(ids.count)
        return (1 - 0.15 * 0.8) / (1 - share)
    }
}
