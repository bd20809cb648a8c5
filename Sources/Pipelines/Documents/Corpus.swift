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
        /// Whether its end was cut off.
        var isCut = false
    }

    var items: [Item]
    /// Where each document came from.
    var sources: [String]
    package var texts: [String]
    /// Documents of the input that came before these.
    var documentsBefore = 0
    /// Items at the beginning that are done already.
    var finished = 0
    /// Tokens at the beginning of every item that are not pooled: those of a prompt.
    var skippedTokens = 0

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
        package var prompt = Prompt()
        /// What can be done about a document over the limit, with a comma behind it.
        var remedy = ""

        /// Tokens at the beginning of an item that are not pooled.
        var skippedTokens: Int { chunkTokens == nil ? prompt.skippedTokens : 0 }
    }

    /// Tokenizes one document.
    /// - Throws: `FileError` naming the document and the limit.
    static func items(
        _ document: Document, number: Int, tokenizer: Tokenizer?, _ preparation: Preparation
    ) throws(FileError) -> [Item] {
        if preparation.passageTokens != nil || preparation.chunkTokens != nil {
            try document.refusePair("passages and chunks are of one text")
        }
        var isText = false
        if case .text(let text) = document.content, let tokenizer {
            if let passageTokens = preparation.passageTokens {
                return passages(of: text, number: number, tokenizer, passageTokens, preparation)
            }
            isText = true
        } else if preparation.passageTokens != nil, case .ids = document.content {
            throw FileError(.malformed, path: document.source, "holds token ids; --passage-tokens needs text")
        }
        let prefix = isText ? tokenizer?.prefixIds.count ?? 0 : 0
        let suffix = isText ? tokenizer?.suffixIds.count ?? 0 : 0
        var encoding = try document.encoding(tokenizer, prompt: preparation.prompt)
        let isCut = try preparation.truncation.apply(
            to: &encoding, limit: preparation.maximumLength, of: document.source,
            remedy: preparation.remedy + (document.pair == nil ? "split it with --passage-tokens, " : ""))
        let (ids, offsets) = (encoding.ids, encoding.offsets)
        let promptLength = document.promptLength(preparation.prompt)
        func place(_ tokens: Range<Int>) -> (start: Int, end: Int) {
            let text = tokens.clamped(to: prefix..<max(prefix, ids.count - suffix))
            guard let first = text.first, let last = text.last else { return (0, 0) }
            return isText
                ? (max(0, offsets[first].lowerBound - promptLength), max(0, offsets[last].upperBound - promptLength))
                : (first, last + 1)
        }
        let whole = place(0..<ids.count)
        // A prompt that is all there is cannot be left out.
        let first = min(isText ? preparation.skippedTokens : 0, ids.count - 1)
        var spans = [(tokens: first..<ids.count, start: whole.start, end: whole.end)]
        if let chunkTokens = preparation.chunkTokens {
            // Late chunking: spans of text tokens, pooled after the whole document was encoded.
            let text = max(prefix, isText ? preparation.prompt.skippedTokens : 0)..<max(prefix, ids.count - suffix)
            spans = stride(from: text.lowerBound, to: text.upperBound, by: chunkTokens).map { first in
                let tokens = first..<min(first + chunkTokens, text.upperBound)
                let at = place(tokens)
                return (tokens, at.start, at.end)
            }
        }
        return [
            Item(
                document: number, ids: ids, typeIds: document.pair == nil ? nil : encoding.typeIds, start: whole.start,
                end: whole.end, spans: spans, isCut: isCut)
        ]
    }

    /// Splits a text into passages of at most so many tokens, each with its own special tokens.
    private static func passages(
        of text: String, number: Int, _ tokenizer: Tokenizer, _ passageTokens: Int, _ preparation: Preparation
    ) -> [Item] {
        let put = preparation.prompt.text(before: text)
        let promptLength = put.unicodeScalars.count
        let encoding = tokenizer.encode(put + text, addSpecialTokens: false)
        // What the prompt becomes may depend on what follows it: where the text fits into one passage, that is as if it
        // were not split.
        let body = encoding.offsets.firstIndex { $0.upperBound > promptLength } ?? encoding.count
        let prompt = Array(encoding.ids[..<body])
        let room = max(
            1,
            min(
                passageTokens,
                preparation.maximumLength - tokenizer.prefixIds.count - tokenizer.suffixIds.count - prompt.count))
        // An empty text is one passage of special tokens alone, as it would be unsplit.
        let starts = body == encoding.count ? [body] : Array(stride(from: body, to: encoding.count, by: room))
        return starts.map { first in
            let tokens = first..<min(first + room, encoding.count)
            let ids = tokenizer.prefixIds + prompt + encoding.ids[tokens] + tokenizer.suffixIds
            let start = tokens.isEmpty ? 0 : max(0, encoding.offsets[tokens.lowerBound].lowerBound - promptLength)
            let end = tokens.isEmpty ? 0 : encoding.offsets[tokens.upperBound - 1].upperBound - promptLength
            let pooled = min(preparation.skippedTokens, ids.count - 1)..<ids.count
            return Item(document: number, ids: ids, start: start, end: end, spans: [(pooled, start, end)])
        }
    }
}

/// What is put before texts.
package struct Prompt: Sendable, Equatable {
    /// Empty: nothing.
    package var text = ""
    /// Tokens at the beginning of what is encoded that take no part in pooling: the prompt's, where the model's files say
    /// so, and the special ones before it.
    package var skippedTokens = 0

    package init() {}

    /// - Parameter isPooled: whether its tokens take part in pooling.
    init(_ text: String, isPooled: Bool, _ tokenizer: Tokenizer?) {
        self.text = text
        if isPooled || text.isEmpty { return }
        let encoding = tokenizer?.encode(text)
        // As sentence-transformers counts them: a last special token stands behind the text, not behind the prompt.
        skippedTokens = (encoding?.count ?? 0) - (encoding?.specialTokensMask.last == true ? 1 : 0)
    }

    /// What is put before a text: nothing where it begins with the prompt already.
    func text(before other: String) -> String { other.utf8.starts(with: text.utf8) ? "" : text }
}

extension Document {
    /// Its tokens, special tokens in place: those that are given, or those of its text and the text that is paired with
    /// it.
    /// - Parameter prompt: what is put before the text.
    /// - Throws: `FileError` where there is no tokenizer for a text, or there are no tokens.
    package func encoding(_ tokenizer: Tokenizer?, prompt: Prompt = Prompt()) throws(FileError) -> Encoding {
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
            let text = prompt.text(before: text) + text
            encoding = pair.map { tokenizer.encode(text, pair: $0) } ?? tokenizer.encode(text)
        }
        if encoding.ids.isEmpty {
            throw FileError(.malformed, path: source, "has no tokens; this tokenizer adds none to an empty text")
        }
        return encoding
    }

    /// Refuses a second text where one alone is meant.
    /// - Parameter reason: why.
    func refusePair(_ reason: String) throws(FileError) {
        if pair != nil {
            throw FileError(.malformed, path: source, "has a text_pair, and \(reason); leave it out of the line")
        }
    }

    /// Scalars of the prompt that is put before the text.
    func promptLength(_ prompt: Prompt) -> Int {
        if case .text(let text) = content { prompt.text(before: text).unicodeScalars.count } else { 0 }
    }
}
