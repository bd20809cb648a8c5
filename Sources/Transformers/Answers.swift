// Spans of a text as answers: the decoding of the question-answering pipeline of transformers 4.

import CLibrary

/// A span of tokens with the product of its ends' probabilities.
public struct AnswerSpan: Sendable, Equatable {
    /// The first and the last token, by their place in the window.
    public let tokens: ClosedRange<Int>
    /// The probability of starting at the first token times that of ending at the last.
    public let score: Float
}

/// What one window has to say.
public struct WindowAnswers: Sendable, Equatable {
    /// The best spans, best first.
    public let spans: [AnswerSpan]
    /// The probability that there is no answer, where a token stands for that.
    public let none: Float?
}

/// The best spans of one window.
/// - Parameters:
///   - starts: for each token, the logit of an answer that starts there.
///   - ends: for each token, the logit of an answer that ends there.
///   - isContext: which tokens may be part of an answer.
///   - first: the token that stands for no answer (`[CLS]`), which takes its share of the probability but is no answer.
///   - maximumTokens: of an answer.
///   - count: how many spans to give, best first; fewer where there are no more.
public func answerSpans(
    starts: [Float], ends: [Float], isContext: [Bool], first: Int?, maximumTokens: Int, count: Int
) -> WindowAnswers {
    func probabilities(_ logits: [Float]) -> [Double] {
        let masked = logits.indices.map { isContext[$0] || $0 == first ? Double(logits[$0]) : -10_000 }
        let top = masked.max() ?? 0
        let total = masked.reduce(0) { $0 + exp($1 - top) }
        return masked.map { exp($0 - top) / total }
    }
    let (start, end) = (probabilities(starts), probabilities(ends))
    var spans: [(tokens: ClosedRange<Int>, score: Double)] = []
    for s in start.indices where isContext[s] {
        for e in s..<min(s + maximumTokens, end.count) where isContext[e] {
            let score = start[s] * end[e]
            if spans.count == count, let last = spans.last, score <= last.score { continue }
            let place = spans.firstIndex { $0.score < score } ?? spans.count
            spans.insert((s...e, score), at: place)
            if spans.count > count { spans.removeLast() }
        }
    }
    return WindowAnswers(
        spans: spans.map { AnswerSpan(tokens: $0.tokens, score: Float($0.score)) },
        none: first.map { Float(start[$0] * end[$0]) })
}
