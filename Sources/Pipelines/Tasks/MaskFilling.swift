// What stands in the place of mask tokens.

import Files
import Foundation
import RingAttention
import Tokenization
import Transformers

/// Guesses for mask tokens, with a masked language model.
package struct MaskFilling: Sendable {
    /// Guesses for each mask.
    package var topK = 5
    /// The tokens that alone may stand there; none: any.
    package var targets: [String] = []

    package init() {}

    /// Guesses every masked token of every document. Collective.
    package func run(model: String, input: DocumentInput, output: LineDestination, _ session: Session) throws {
        let task = try TaskPipeline(.maskedLanguage, model: model, input: input, output: output, session)
        let tokenizer = try task.tokenizer()
        let folder = task.model.checkpoint.folder
        let (decoder, mask, padding) = try session.agreeReading {
            let names = try NamedTokens(folder: folder)
            guard let mask = names.id("mask_token", tokenizer, usual: ["[MASK]", "<mask>"]) else {
                throw FileError(
                    .malformed, path: folder, "its tokenizer has no mask token; use a masked language model")
            }
            return (
                try TokenDecoder.load(folder: folder), mask,
                names.id("pad_token", tokenizer, usual: ["[PAD]", "<pad>"])
            )
        }
        let allowed = try session.agree { try ids(of: targets, tokenizer, folder, session) }
        try session.logHeader("fill-mask \(model)", encodes: true)
        try task.forEachPortion { portion in
            let encodings = try task.encodings(portion.documents)
            try session.agree {
                for (document, encoding) in zip(portion.documents, encodings) where !encoding.ids.contains(mask) {
                    throw FileError(
                        .malformed, path: document.source,
                        "has no mask token (\(tokenizer.token(of: mask) ?? "\(mask)"))")
                }
            }
            try task.run(encodings, of: portion) { run, items in
                let found = run.logits(task.head) { tile in
                    tile.tokens.enumerated().filter {
                        encodings[items.lowerBound + tile.sequence].ids[$0.element] == mask
                    }.map(\.offset)
                }
                // Ids are whole numbers below 2²⁴, which a float holds.
                let mine = found.map { tile, row, logits in
                    (
                        span: (tile.sequence << 32) | (tile.tokens.lowerBound + row),
                        vector: best(softmax(logits), allowed).flatMap { [Float($0.id), $0.score] }
                    )
                }
                let all = try session.gather(mine)
                if !session.isRoot { return "" }
                return items.indices.map { number in
                    let guesses = all.filter { $0.span >> 32 == number - items.lowerBound }
                    let lists = guesses.map { place, values in
                        list(
                            values, at: place & 0xFFFF_FFFF, of: encodings[number].ids, isSingle: guesses.count == 1,
                            tokenizer, decoder, padding)
                    }
                    return (lists.count == 1 ? lists[0] : "[" + lists.joined(separator: ", ") + "]") + "\n"
                }.joined()
            }
        }
    }

    /// The ids of the targets, ascending: each is a token, or its first token counts and a line says so.
    private func ids(of targets: [String], _ tokenizer: Tokenizer, _ folder: String, _ session: Session) throws -> [Int]
    {
        var ids: Set<Int> = []
        for target in targets {
            if let id = tokenizer.id(of: target) {
                ids.insert(Int(id))
                continue
            }
            guard let id = tokenizer.encode(target, addSpecialTokens: false).ids.first else {
                throw JobError(.usage, "--targets '\(target)' is no token of the model, and has none")
            }
            session.warn(
                "--targets '\(target)' is no token of the model; its first one, '\(tokenizer.token(of: id) ?? "")', counts"
            )
            ids.insert(Int(id))
        }
        return ids.sorted()
    }

    /// The best ids with their scores; of equal ones the lower id first.
    private func best(_ scores: [Float], _ allowed: [Int]) -> [(id: Int, score: Float)] {
        let all = allowed.isEmpty ? Array(scores.indices) : allowed.filter(scores.indices.contains)
        return all.sorted { (scores[$1], $0) < (scores[$0], $1) }.prefix(topK).map { ($0, scores[$0]) }
    }

    private func list(
        _ values: [Float], at place: Int, of ids: [Int32], isSingle: Bool, _ tokenizer: Tokenizer,
        _ decoder: TokenDecoder, _ padding: Int32?
    ) -> String {
        func token(_ id: Int32) -> String { tokenizer.token(of: id) ?? "" }
        let guesses = stride(from: 0, to: values.count, by: 2).map { index in
            let id = Int32(values[index])
            var filled = ids
            filled[place] = id
            // One mask: a readable sentence. Several: the others stay visible.
            let words = filled.filter { $0 != padding }.map(token).filter {
                !isSingle || !decoder.specialTokens.contains($0)
            }
            return "{\"score\": \(JSONText.number(values[index + 1])), \"token\": \(id), \"token_str\": "
                + "\(JSONText.string(decoder.text([token(id)]))), \"sequence\": \(JSONText.string(decoder.text(words)))}"
        }
        return "[" + guesses.joined(separator: ", ") + "]"
    }
}
