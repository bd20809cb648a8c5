// Labels of tokens, and the entities that they make up.

import Files
import Foundation
import RingAttention
import Tokenization
import Transformers

/// Entities of documents, with a model that labels tokens.
package struct EntityRecognition: Sendable {
    /// How tokens become entities.
    package var aggregation = EntityAggregation.none

    package init() {}

    /// Finds the entities of every document. Collective.
    package func run(model: String, input: DocumentInput, output: LineDestination, _ session: Session) throws {
        let task = try TaskPipeline(.tokenClassification, model: model, input: input, output: output, session)
        let tokenizer = try task.tokenizer()
        let (decoder, unknown) = try session.agreeReading {
            (
                try TokenDecoder.load(folder: task.model.checkpoint.folder),
                try NamedTokens(folder: task.model.checkpoint.folder).id(
                    "unk_token", tokenizer, usual: ["[UNK]", "<unk>"])
            )
        }
        try session.logHeader("ner \(model)", encodes: true)
        try task.forEachPortion { portion in
            try session.agree { try portion.documents.forEach { try $0.refusePair("entities are of one text") } }
            let encodings = try task.encodings(portion.documents)
            try task.run(encodings, of: portion) { run, items in
                let logits = try task.tokenLogits(run, items.count)
                if !session.isRoot { return "" }
                return items.map { number in
                    let text = if case .text(let text) = portion.documents[number].content { text } else { "" }
                    let tokens = scored(
                        encodings[number], logits[number - items.lowerBound], of: text, tokenizer, unknown,
                        task.labels.names.count)
                    let found = entities(tokens, labels: task.labels.names, aggregation: aggregation) {
                        decoder.text($0)
                    }
                    return "[" + found.map(json).joined(separator: ", ") + "]\n"
                }.joined()
            }
        }
    }

    /// The tokens of the text itself with their scores.
    private func scored(
        _ encoding: Encoding, _ logits: [Float], of text: String, _ tokenizer: Tokenizer, _ unknown: Int32?,
        _ count: Int
    ) -> [ScoredToken] {
        let all = Array(text.unicodeScalars)
        let marksPieces = tokenizer.continuingSubwordPrefix?.isEmpty == false
        return (0..<encoding.count).filter { !encoding.specialTokensMask[$0] }.map { index in
            let offsets = encoding.offsets[index]
            var word = tokenizer.token(of: encoding.ids[index]) ?? String(encoding.ids[index])
            var isSubword: Bool
            if marksPieces {
                // A piece inside a word is longer than what it stands for, by its prefix.
                isSubword = word.unicodeScalars.count != offsets.count
            } else {
                let start = offsets.lowerBound
                isSubword = start > 0 && !all[start - 1..<min(start + 1, all.count)].contains(" ")
            }
            if encoding.ids[index] == unknown {
                word = String(String.UnicodeScalarView(all[offsets.clamped(to: 0..<all.count)]))
                isSubword = false
            }
            return ScoredToken(
                word: word, scores: softmax(Array(logits[index * count..<(index + 1) * count])), offsets: offsets,
                index: index, isSubword: isSubword)
        }
    }

    private func json(_ entity: Entity) -> String {
        let name = entity.index == nil ? "entity_group" : "entity"
        let index = entity.index.map { "\"index\": \($0), " } ?? ""
        return "{\"\(name)\": \(JSONText.string(entity.label)), \"score\": \(JSONText.number(entity.score)), \(index)"
            + "\"word\": \(JSONText.string(entity.word)), \"start\": \(entity.offsets.lowerBound), \"end\": \(entity.offsets.upperBound)}"
    }
}
