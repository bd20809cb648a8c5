// Tokens without a row in a table of embeddings are refused before any table is read; types that a model has not are
// dropped.

import Checkpoints
import Matrices
import RingAttention
import Testing
import Tiles
import Transformers

@Suite struct TokenRowsTests {
    private func encoder(_ name: String) throws -> Encoder {
        try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
    }

    @Test(arguments: [1, 3]) func aTokenBeyondItsTableIsRefused(ranks: Int) throws {
        let bert = try encoder("tiny-bert")
        let rows = bert.configuration.vocabularySize
        for id in [-1, Int32(rows), .max, .min] {
            var long = Array(repeating: Int32(7), count: 600)
            long[599] = id
            #expect(throws: TokenError(sequence: 1, token: 599, table: .words, value: Int(id), rows: rows)) {
                try hiddenStates(bert, [[1, 2, 3], long], ranks: ranks)
            }
        }
        #expect(throws: TokenError(sequence: 0, token: 2, table: .types, value: 2, rows: 2)) {
            try hiddenStates(bert, [[1, 2, 3]], ranks: ranks, typeIds: [[0, 1, 2]])
        }
        #expect(throws: TokenError(sequence: 0, token: 0, table: .types, value: -1, rows: 2)) {
            try hiddenStates(bert, [[1, 2, 3]], ranks: ranks, typeIds: [[-1, 1, 1]])
        }
        let positions = bert.configuration.positionCount
        #expect(throws: TokenError(sequence: 0, token: positions, table: .positions, value: positions, rows: positions))
        {
            try hiddenStates(bert, [Array(repeating: 5, count: positions + 1)], ranks: ranks)
        }
        // The last row of each is one.
        _ = try hiddenStates(bert, [[Int32(rows - 1)]], ranks: ranks, typeIds: [[1]])
    }

    /// A model with one type, or none, knows nothing of a second text's type, whatever its tokenizer says.
    @Test(arguments: ["tiny-roberta", "tiny-distilbert", "tiny-esm"]) func typesThatTheModelHasNotAreDropped(
        name: String
    ) throws {
        let encoder = try encoder(name)
        try #require(!encoder.configuration.distinguishesTypes)
        let ids: [[Int32]] = [[5, 6, 7, 8], [9, 10]]
        let plain = try hiddenStates(encoder, ids)
        for ranks in [1, 2, 3] {
            for types: [[Int32]] in [[[0, 0, 1, 1], [1, 1]], [[0, 0, 99, -7], [.max, .min]]] {
                let states = try hiddenStates(encoder, ids, ranks: ranks, typeIds: types)
                #expect(states.map { $0.map(\.bitPattern) } == plain.map { $0.map(\.bitPattern) }, "\(ranks) ranks")
            }
        }
    }
}
