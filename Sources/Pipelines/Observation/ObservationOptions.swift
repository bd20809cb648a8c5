// What is asked of an observation.

import Attention
import Files
import Tokenization
import Transformers

/// What is done to one token of a document to see how much the result leans on it.
package enum ProbeEdit: String, CaseIterable, Sendable {
    /// The mask token takes its place.
    case mask
    /// It is left out.
    case drop
    /// It changes places with the next one.
    case swap
    /// Another token takes its place, by the seed.
    case noise
}

/// What is asked of an observation.
package struct ObservationOptions: Sendable {
    /// Which layers, counted from 0; nil: all.
    package var layers: [Int]?
    /// Which query heads, counted from 0; nil: all.
    package var heads: [Int]?
    /// The queries of the rectangle of scores and weights; nil: all, where keys are chosen.
    package var queries: TokenChoice?
    /// Its keys; nil: all, where queries are chosen.
    package var keys: TokenChoice?
    /// How many keys of most weight each token tells; nil: none.
    package var topKeys: Int?
    /// Whether block means of the weights are given.
    package var hasMaps = false
    /// The tokens whose rollouts are given.
    package var rollout: TokenChoice?
    /// What is done to tokens, one at a time.
    package var probe: ProbeEdit?
    /// Which tokens that is done to; nil: all but special ones.
    package var probed: TokenChoice?
    /// What noise depends on.
    package var seed: UInt64 = 1

    package init() {}

    var hasRectangle: Bool { queries != nil || keys != nil }
}

/// A document's tokens, and which of them are special.
struct ObservedDocument {
    let number: Int
    let source: String
    let encoding: Encoding
    /// Whether each token is one that the tokenizer puts around texts.
    let isSpecial: [Bool]
    /// Its texts; none where ids were given.
    let texts: [String]

    var tokens: Int { encoding.count }

    init(_ document: Document, number: Int, _ encoding: Encoding, _ tokenizer: Tokenizer?) {
        self.number = number
        source = document.source
        self.encoding = encoding
        if case .text(let text) = document.content {
            texts = [text] + (document.pair.map { [$0] } ?? [])
            isSpecial = encoding.specialTokensMask
        } else {
            // Nobody marked them: those that this tokenizer puts around texts count.
            let added = Set((tokenizer?.prefixIds ?? []) + (tokenizer?.suffixIds ?? []))
            texts = []
            isSpecial = encoding.ids.map(added.contains)
        }
    }

    /// The tokens that a choice means here.
    /// - Throws: `FileError` where there are none such.
    func tokens(_ choice: TokenChoice?, option: String) throws(FileError) -> Range<Int> {
        switch choice {
        case nil: return 0..<tokens
        case .range(let first, let end)?:
            guard first < tokens, end ?? tokens <= tokens else {
                throw FileError(
                    .malformed, path: source,
                    "has \(tokens) tokens, and \(option) asks for \(first):\(end.map(String.init) ?? ""); choose among 0:\(tokens)"
                )
            }
            return first..<(end ?? tokens)
        case .phrase(let phrase)?:
            let option = option == "--keys" ? "--key-phrase" : "--query-phrase"
            guard !texts.isEmpty else {
                throw FileError(
                    .malformed, path: source, "holds token ids, which have no phrases for \(option); choose tokens A:B")
            }
            for (number, text) in texts.enumerated() {
                guard let place = TokenChoice.place(of: phrase, in: text) else { continue }
                let found = encoding.offsets.indices.filter {
                    encoding.sequences[$0] == number && encoding.offsets[$0].overlaps(place)
                }
                if let first = found.first, let last = found.last { return first..<last + 1 }
            }
            throw FileError(
                .malformed, path: source, "does not hold the phrase '\(phrase)' of \(option), or cuts it off")
        }
    }
}

extension AttentionObservation {
    /// Floating-point operations that observing documents adds to running them.
    func flop(lengths: [Int], _ configuration: EncoderConfiguration) -> Double {
        var sum = 0.0
        for layer in layers {
            let pattern = configuration.attention[layer]
            let flop = Double(flopPerPair(pattern.heads) * pattern.heads.queryHeads)
            for length in lengths { sum += flop * Double(pattern.mask.visiblePairs(in: SequenceShape(length: length))) }
        }
        return sum
    }
}
