// Random numbers of training, each a pure function of what it is drawn for.

/// What random numbers are drawn for. The raw values are part of the definition and never change.
public enum DrawSite: UInt64, Sendable {
    /// Dropout of the embeddings of a document's tokens.
    case embeddings = 0
    /// Dropout of what attention's dense layer gives, before the residual sum.
    case attentionOutput = 1
    /// Dropout of what the feed-forward network gives, before the residual sum.
    case feedForwardOutput = 2
    /// Dropout of attention weights: rows are queries, channels keys.
    case attentionWeights = 3
    /// Which tokens of a document a masked language model does not see, and what stands there instead.
    case maskedTokens = 4
    /// The order of documents.
    case shuffling = 5
    /// Dropout of what goes into the last layer of a task's head.
    case head = 6
    /// Dropout inside the feed-forward network, of what its second layer reads.
    case feedForwardInner = 7
}

/// Random bits by a counter of seed, step, site, layer, head, document, row and channel: whoever computes a row, in
/// whatever order, draws the same.
///
/// The state of a row is made by folding those numbers, in this order, from 0:
///
///     state ← mixed((state xor number) + 2⁶⁴/φ)
///
/// with SplitMix64's `mixed`, arithmetic modulo 2⁶⁴, and 2⁶⁴/φ = 0x9E3779B97F4A7C15. The row's bits are then SplitMix64's
/// numbers from that state, two channels a number: number n = mixed(state + (n + 1)·2⁶⁴/φ) holds channel 2n in its low
/// 32 bits and channel 2n + 1 in its high ones.
public struct CountedDraws: Sendable {
    /// The state before document and row.
    private let state: UInt64

    /// - Parameters:
    ///   - seed: the whole training's.
    ///   - step: counted from 0.
    ///   - site: what is drawn for.
    ///   - layer: counted from 0; 0 where a site is none of a layer's.
    ///   - head: the query head, counted from 0; 0 where a site is none of a head's.
    public init(seed: UInt64, step: Int, site: DrawSite, layer: Int = 0, head: Int = 0) {
        var state: UInt64 = 0
        for number in [seed, UInt64(step), site.rawValue, UInt64(layer), UInt64(head)] {
            state = Self.folded(state, number)
        }
        self.state = state
    }

    private static func folded(_ state: UInt64, _ number: UInt64) -> UInt64 {
        mixed((state ^ number) &+ Stride.number)
    }

    /// The state of a row.
    /// - Parameters:
    ///   - document: its number in the corpus.
    ///   - row: the token's place in it.
    public func state(document: Int, row: Int) -> UInt64 {
        Self.folded(Self.folded(state, UInt64(document)), UInt64(row))
    }

    /// The state of a row whose channels are counted from another one on, so that this one's bits come first.
    /// - Parameters:
    ///   - document: its number in the corpus.
    ///   - row: the token's place in it.
    ///   - channel: the first one, an even number.
    public func state(document: Int, row: Int, from channel: Int) -> UInt64 {
        precondition(channel % 2 == 0, "two channels share a number")
        return state(document: document, row: row) &+ UInt64(channel / 2) &* Stride.number
    }

    /// 32 random bits of a channel.
    public func bits(document: Int, row: Int, channel: Int) -> UInt32 {
        let number = mixed(state(document: document, row: row) &+ UInt64(channel / 2 + 1) &* Stride.number)
        return UInt32(truncatingIfNeeded: channel % 2 == 0 ? number : number >> 32)
    }

    /// A number in 0..<1, a multiple of 2⁻³².
    public func uniform(document: Int, row: Int, channel: Int) -> Double {
        Double(bits(document: document, row: row, channel: channel)) * 0x1p-32
    }

    /// The bits below which something happens with a probability.
    /// - Precondition: the probability is in 0..<1.
    public static func threshold(_ probability: Double) -> UInt32 {
        precondition(probability >= 0 && probability < 1, "a probability below 1")
        return UInt32(probability * 0x1p32)
    }
}
