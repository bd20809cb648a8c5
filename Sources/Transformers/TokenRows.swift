// Whether an encoder's tables have a row for each token of a batch.

/// A token whose embedding would be read from beyond its table.
public struct TokenError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What names the row.
    public enum Table: Sendable, Hashable {
        /// The token's id.
        case words
        /// Which of two texts it is of.
        case types
        /// Its place in the document.
        case positions
    }

    /// The document's place in the batch.
    public let sequence: Int
    /// The token's place in the document, special tokens counted.
    public let token: Int
    /// The table that lacks the row.
    public let table: Table
    /// The id, the type, or the place.
    public let value: Int
    /// How many rows there are.
    public let rows: Int

    /// - Parameters:
    ///   - sequence: the document's place in the batch.
    ///   - token: the token's place in the document, special tokens counted.
    ///   - table: the one that lacks the row.
    ///   - value: the id, the type, or the place.
    ///   - rows: how many rows the table has.
    public init(sequence: Int, token: Int, table: Table, value: Int, rows: Int) {
        self.sequence = sequence
        self.token = token
        self.table = table
        self.value = value
        self.rows = rows
    }

    /// What is wrong with the token, without the document.
    public var reason: String {
        switch table {
        case .words: "token \(token) has the id \(value), and the model's table has the rows 0 to \(rows - 1)"
        case .types: "token \(token) is of type \(value), and the model's table of types has the rows 0 to \(rows - 1)"
        case .positions: "token \(token) lies beyond the model's \(rows) positions"
        }
    }

    /// The document's place in the batch, and what is wrong with the token.
    public var description: String { "document \(sequence): \(reason)" }
}

extension EncoderConfiguration {
    /// Whether the types of tokens count: a model with one type, or none, gives all tokens the same, whatever its
    /// tokenizer says.
    public var distinguishesTypes: Bool { tokenTypeCount > 1 }

    /// Checks that every token of a batch has its rows in the embedding tables. The one place where it is checked:
    /// nothing behind it looks again.
    /// - Parameters:
    ///   - ids: the token ids of each document.
    ///   - typeIds: looked at only where the model ``distinguishesTypes``.
    /// - Throws: the first token that has none.
    public func check(ids: [[Int32]], typeIds: [[Int32]]? = nil) throws(TokenError) {
        for (sequence, document) in ids.enumerated() {
            for (token, id) in document.enumerated() where id < 0 || Int(id) >= vocabularySize {
                throw TokenError(sequence: sequence, token: token, table: .words, value: Int(id), rows: vocabularySize)
            }
            if positions != .none, document.count > positionCount {
                throw TokenError(
                    sequence: sequence, token: positionCount, table: .positions, value: positionCount,
                    rows: positionCount)
            }
        }
        guard distinguishesTypes, let typeIds else { return }
        for (sequence, document) in typeIds.enumerated() {
            for (token, type) in document.enumerated() where type < 0 || Int(type) >= tokenTypeCount {
                throw TokenError(
                    sequence: sequence, token: token, table: .types, value: Int(type), rows: tokenTypeCount)
            }
        }
    }
}
