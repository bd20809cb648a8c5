// Labelled tokens as entities: the groups of the token-classification pipeline of transformers.

/// How labels of tokens become entities; the names are those of the transformers pipeline.
public enum EntityAggregation: String, Sendable, CaseIterable {
    /// Every token by itself.
    case none
    /// Adjacent tokens of one label.
    case simple
    /// As simple, after each word took the label of its first token.
    case first
    /// … of the mean of its tokens' scores.
    case average
    /// … of the token with the highest score.
    case max
}

/// A token of the text, with the scores of its labels.
public struct ScoredToken: Sendable {
    /// The token as the vocabulary spells it; where the tokenizer does not know it, what the text has in its place.
    public var word: String
    /// A score for each label, by the labels' numbers.
    public var scores: [Float]
    /// Unicode scalars of the text.
    public var offsets: Range<Int>
    /// Its place among the document's tokens.
    public var index: Int
    /// Whether it continues the word of the token before.
    public var isSubword: Bool

    /// - Parameters:
    ///   - word: the token as the vocabulary spells it.
    ///   - scores: a score for each label.
    ///   - offsets: Unicode scalars of the text.
    ///   - index: the token's place in the document.
    ///   - isSubword: whether it continues the word of the token before.
    public init(word: String, scores: [Float], offsets: Range<Int>, index: Int, isSubword: Bool) {
        self.word = word
        self.scores = scores
        self.offsets = offsets
        self.index = index
        self.isSubword = isSubword
    }
}

/// A token, a word or a group with its label.
public struct Entity: Sendable, Equatable {
    /// The label's name; that of a group without what stands before its first hyphen (`B-`, `I-`).
    public var label: String
    /// The score of the label: that of the token or word, and for a group the mean of its parts.
    public var score: Float
    /// The token as the vocabulary spells it; of words and groups the text that their tokens make.
    public var word: String
    /// Unicode scalars of the text, from the first token's start to the last one's end.
    public var offsets: Range<Int>
    /// The token's place, for entities of one token each.
    public var index: Int?
}

/// The entities of a document, those labelled `O` left out.
/// - Parameters:
///   - tokens: those of the document in their order, without special ones.
///   - labels: the labels' names, by their numbers.
///   - aggregation: how the tokens' labels become entities.
///   - text: makes text of tokens.
public func entities(
    _ tokens: [ScoredToken], labels: [String], aggregation: EntityAggregation, text: ([String]) -> String
) -> [Entity] {
    let single: [Entity]
    switch aggregation {
    case .none, .simple:
        single = tokens.map { token in
            let best = argmax(token.scores)
            return Entity(
                label: labels[best], score: token.scores[best], word: token.word, offsets: token.offsets,
                index: token.index)
        }
    case .first, .average, .max:
        var words: [[ScoredToken]] = []
        for token in tokens {
            if token.isSubword, !words.isEmpty { words[words.count - 1].append(token) } else { words.append([token]) }
        }
        single = words.map { entity(ofWord: $0, labels: labels, aggregation: aggregation, text: text) }
    }
    let all = aggregation == .none ? single : groups(single).map { group($0, text: text) }
    return all.filter { $0.label != "O" }
}

private func entity(
    ofWord tokens: [ScoredToken], labels: [String], aggregation: EntityAggregation, text: ([String]) -> String
) -> Entity {
    var scores = tokens[0].scores
    if aggregation == .max {
        var best = scores.max() ?? 0
        for token in tokens.dropFirst() {
            if let top = token.scores.max(), top > best { (scores, best) = (token.scores, top) }
        }
    } else if aggregation == .average {
        scores = scores.indices.map { label in mean(tokens.map { $0.scores[label] }) }
    }
    let best = argmax(scores)
    return Entity(
        label: labels[best], score: scores[best], word: text(tokens.map(\.word)),
        offsets: tokens[0].offsets
            .lowerBound..<max(tokens[0].offsets.lowerBound, tokens[tokens.count - 1].offsets.upperBound))
}

/// Adjacent entities of one tag; a tag that begins (`B-`) starts a group of its own.
private func groups(_ entities: [Entity]) -> [[Entity]] {
    func tag(_ label: String) -> (begins: Bool, name: Substring) {
        if label.hasPrefix("B-") { return (true, label.dropFirst(2)) }
        return (false, label.hasPrefix("I-") ? label.dropFirst(2) : label[...])
    }
    var groups: [[Entity]] = []
    for entity in entities {
        let (begins, name) = tag(entity.label)
        if let last = groups.last?.last, tag(last.label).name == name, !begins {
            groups[groups.count - 1].append(entity)
        } else {
            groups.append([entity])
        }
    }
    return groups
}

private func group(_ entities: [Entity], text: ([String]) -> String) -> Entity {
    let first = entities[0]
    // The name is what follows the first hyphen, if there is one.
    let name =
        first.label.firstIndex(of: "-").map { String(first.label[first.label.index(after: $0)...]) } ?? first.label
    return Entity(
        label: name, score: mean(entities.map(\.score)), word: text(entities.map(\.word)),
        offsets: first.offsets
            .lowerBound..<max(first.offsets.lowerBound, entities[entities.count - 1].offsets.upperBound))
}

private func mean(_ values: [Float]) -> Float { Float(values.reduce(0.0) { $0 + Double($1) } / Double(values.count)) }

/// The first of the largest.
func argmax(_ values: [Float]) -> Int {
    var best = 0
    for index in values.indices where values[index] > values[best] { best = index }
    return best
}
