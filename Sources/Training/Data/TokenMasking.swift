// Which tokens a masked language model does not see in a step, and what stands there instead.

import Tiles

/// The masking of tokens (Devlin et al. 2019): of those that are chosen, eight in ten become the mask token, one in ten a
/// random one, and one stays; all of them are to be guessed.
///
/// Everything is drawn from `CountedDraws(seed:step:site: .maskedTokens)` at (document, row): channel 0 says whether a
/// token is chosen (its 32 bits below the probability's threshold), channel 1 what becomes of it (below 0.8, below 0.9),
/// and channel 2 which random one (bits · vocabulary / 2³², rounded down). Special tokens are never chosen. With whole
/// words, a word's tokens are chosen by its first one's channel 0.
public struct TokenMasking: Sendable {
    /// The probability with which a token is chosen.
    public var probability: Double
    /// Whether all tokens of a word are chosen together.
    public var wholeWords: Bool
    /// The id of the mask token.
    public var maskId: Int32
    /// Ids are below.
    public var vocabularySize: Int
    /// The training's seed.
    public var seed: UInt64

    /// - Parameters:
    ///   - probability: with which a token is chosen.
    ///   - wholeWords: whether all tokens of a word are chosen together.
    ///   - maskId: the id of the mask token.
    ///   - vocabularySize: ids are below.
    ///   - seed: the training's.
    public init(probability: Double, wholeWords: Bool, maskId: Int32, vocabularySize: Int, seed: UInt64) {
        self.probability = probability
        self.wholeWords = wholeWords
        self.maskId = maskId
        self.vocabularySize = vocabularySize
        self.seed = seed
    }

    /// What the model sees of a document, and what it is to guess.
    public struct Masked: Sendable, Equatable {
        /// The ids that it sees.
        public var ids: [Int32]
        /// The tokens that were chosen, ascending.
        public var rows: [Int]
    }

    /// Masks a document.
    /// - Parameters:
    ///   - ids: of all tokens.
    ///   - words: by token the number of its word; negative for a special token.
    ///   - document: its number in the corpus.
    ///   - step: counted from 0.
    public func mask(_ ids: [Int32], words: [Int32], document: Int, step: Int) -> Masked {
        precondition(ids.count == words.count, "a word for every token")
        let draws = CountedDraws(seed: seed, step: step, site: .maskedTokens)
        let chosen = CountedDraws.threshold(probability)
        let (masked, random) = (CountedDraws.threshold(0.8), CountedDraws.threshold(0.9))
        var result = Masked(ids: ids, rows: [])
        var isChosen = false
        for row in ids.indices where words[row] >= 0 {
            let continues = wholeWords && row > 0 && words[row] == words[row - 1]
            if !continues { isChosen = draws.bits(document: document, row: row, channel: 0) < chosen }
            guard isChosen else { continue }
            result.rows.append(row)
            let fate = draws.bits(document: document, row: row, channel: 1)
            if fate < masked {
                result.ids[row] = maskId
            } else if fate < random {
                let bits = UInt64(draws.bits(document: document, row: row, channel: 2))
                result.ids[row] = Int32((bits * UInt64(vocabularySize)) >> 32)
            }
        }
        return result
    }
}
