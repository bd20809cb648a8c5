// The documents of a job as token ids, known to every rank.

import Files
import Foundation
import RingAttention
import Tokenization
import Transformers

/// What gets encoded: token ids with special tokens in place, and what is to be pooled from them.
package struct Corpus: Sendable {
    /// One sequence to encode: a document, or a passage of one.
    package struct Item: Sendable {
        /// The document's place in the input.
        package var document: Int
        package var ids: [Int32]
        /// Which text of a pair each token is of; nil for single texts.
        var typeIds: [Int32]?
        /// What of the document it holds: Unicode scalars of its text; token positions where ids were given.
        package var start: Int
        package var end: Int
        /// For each span to pool: token positions in `ids`, and what of the document they hold.
        package var spans: [(tokens: Range<Int>, start: Int, end: Int)]
    }

    var items: [Item]
    /// Where each document came from.
    var sources: [String]
    package var texts: [String]
    /// Documents of the input that came before these.
    var documentsBefore = 0
    /// Items at the beginning that are done already.
    var finished = 0

    /// Where an item's document came from.
    package func source(of item: Item) -> String {
        sources.indices.contains(item.document) ? sources[item.document] : "document \(item.document)"
    }

    /// How documents become items.
    package struct Preparation {
        package var maximumLength: Int
        package var truncation: Truncation
        package var passageTokens: Int?
        package var chunkTokens: Int?
        package var prompt: String
        /// Told of every document that `--truncate right` cut.
        var truncated: @Sendable (String) -> Void
    }

    /// Tokenizes one document.
    /// - Throws: `FileError` naming the document and the limit.
    static func items(
        _ document: Document, number: Int, tokenizer: Tokenizer?, _ preparation: Preparation
    ) throws(FileError) -> [Item] {
        var prefix = 0
        var suffix = 0
        var tokenPositions = true
        if case .text(let text) = document.content, let tokenizer {
            if let passageTokens = preparation.passageTokens {
                return passages(of: text, number: number, tokenizer, passageTokens, preparation)
            }
            (prefix, suffix) = (tokenizer.prefixIds.count, tokenizer.suffixIds.count)
            tokenPositions = false
        } else if preparation.passageTokens != nil, case .ids = document.content {
            throw FileError(.malformed, path: document.source, "holds token ids; --passage-tokens needs text")
        }
        // A vector is of one text.
        var single = document
        single.pair = nil
        var encoding = try single.encoding(tokenizer, prompt: preparation.prompt)
        let isCut = try preparation.truncation.apply(
            to: &encoding, limit: preparation.maximumLength, prefix: prefix, suffix: suffix, of: document.source,
            remedy: "split it with --passage-tokens, ")
        if isCut { preparation.truncated(document.source) }
        let (ids, offsets) = (encoding.ids, encoding.offsets)
        let promptLength = preparation.prompt.unicodeScalars.count
        func place(_ tokens: Range<Int>) -> (start: Int, end: Int) {
            let text = tokens.clamped(to: prefix..<max(prefix, ids.count - suffix))
            guard let first = text.first, let last = text.last else { return (0, 0) }
            return tokenPositions
                ? (first, last + 1)
                : (max(0, offsets[first].lowerBound - promptLength), max(0, offsets[last].upperBound - promptLength))
        }
        let whole = place(0..<ids.count)
        var spans = [(tokens: 0..<ids.count, start: whole.start, end: whole.end)]
        if let chunkTokens = preparation.chunkTokens {
            // Late chunking: spans of text tokens, pooled after the whole document was encoded.
            let text = prefix..<max(prefix, ids.count - suffix)
            spans = stride(from: text.lowerBound, to: text.upperBound, by: chunkTokens).map { first in
                let tokens = first..<min(first + chunkTokens, text.upperBound)
                let at = place(tokens)
                return (tokens, at.start, at.end)
            }
        }
        return [Item(document: number, ids: ids, start: whole.start, end: whole.end, spans: spans)]
    }

    /// Splits a text into passages of at most so many tokens, each with its own special tokens.
    private static func passages(
        of text: String, number: Int, _ tokenizer: Tokenizer, _ passageTokens: Int, _ preparation: Preparation
    ) -> [Item] {
        let encoding = tokenizer.encode(text, addSpecialTokens: false)
        let prompt = preparation.prompt.isEmpty ? [] : tokenizer.encode(preparation.prompt, addSpecialTokens: false).ids
        let room = max(
            1,
            min(
                passageTokens,
                preparation.maximumLength - tokenizer.prefixIds.count - tokenizer.suffixIds.count - prompt.count))
        // An empty text is one passage of special tokens alone, as it would be unsplit.
        let starts = encoding.ids.isEmpty ? [0] : Array(stride(from: 0, to: encoding.ids.count, by: room))
        return starts.map { first in
            let tokens = first..<min(first + room, encoding.ids.count)
            let ids = tokenizer.prefixIds + prompt + encoding.ids[tokens] + tokenizer.suffixIds
            let start = tokens.isEmpty ? 0 : encoding.offsets[tokens.lowerBound].lowerBound
            let end = tokens.isEmpty ? 0 : encoding.offsets[tokens.upperBound - 1].upperBound
            return Item(document: number, ids: ids, start: start, end: end, spans: [(0..<ids.count, start, end)])
        }
    }
}

extension Document {
    /// Its tokens, special tokens in place: those that are given, or those of its text and the text that is paired with
    /// it.
    /// - Parameter prompt: what stands before the text.
    /// - Throws: `FileError` where there is no tokenizer for a text, or there are no tokens.
    package func encoding(_ tokenizer: Tokenizer?, prompt: String = "") throws(FileError) -> Encoding {
        var encoding = Encoding()
        switch content {
        case .ids(let ids):
            encoding.ids = ids
            encoding.typeIds = ids.map { _ in 0 }
            encoding.offsets = ids.indices.map { $0..<$0 + 1 }
            encoding.specialTokensMask = ids.map { _ in false }
        case .text(let text):
            guard let tokenizer else {
                throw FileError(
                    .missing, path: source, "is text, and the model has no tokenizer.json; give token ids instead")
            }
            let text = prompt + text
            encoding = pair.map { tokenizer.encode(text, pair: $0) } ?? tokenizer.encode(text)
        }
        if encoding.ids.isEmpty {
            throw FileError(.malformed, path: source, "has no tokens; this tokenizer adds none to an empty text")
        }
        return encoding
    }
}
