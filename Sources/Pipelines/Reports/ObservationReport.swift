// What a report of one document shows.

/// What was observed of one document, as far as its report shows it.
///
/// It is made empty and then handed the statistics of one head after another (``add(_:layer:head:)``), each over the whole
/// document, of which it keeps what a page of at most ``ReportDetail/largestPage`` bytes has room for: everything up to
/// ``ReportDetail/completeTokens``; beyond, received mass as the mean of a layer's heads, the queries that were chosen and
/// others at even distances, and the rest by block. What is missing is said on the page. The exact numbers are those of
/// the safetensors file; the report is for the eye.
///
/// Nothing in it depends on time, ranks or threads, and heads may be added in any order.
public struct ObservationReport: Sendable {
    /// The document's name, as its input calls it.
    public let document: String
    /// The model's name, as the user calls it.
    public let model: String
    /// The document, token by token, special tokens included.
    public let tokens: [ReportToken]
    /// The layers that were observed, by their numbers in the model, ascending.
    public let layers: [Int]
    /// The heads that were observed in each, by their numbers in a layer, ascending.
    public let heads: [Int]
    /// What of it is kept.
    public let detail: ReportDetail

    /// What a classifier decided about the document; empty where the model is none.
    public var scores: [LabelScore] = []
    /// Attention rollout of chosen queries; where the page has no room for all it has the first ones, and says so.
    public var rollouts: [Rollout] = []
    /// What editing single tokens does to the model's output.
    public var probes: [Probe] = []
    /// Lines that the page shows above everything else: what a reader must know about how this was made, such as random
    /// weights, a mask other than the model's, or a document that was cut.
    public var notes: [String] = []

    /// What was added so far, [layers, heads]; nil where a head is still missing.
    private(set) var kept: [KeptHead?]
    /// Received mass, summed over the heads of each layer so far, [layers, tokens]; empty where each head's own is kept.
    private(set) var layerMass: [Double]

    /// A report without statistics yet.
    /// - Parameters:
    ///   - document: the document's name.
    ///   - model: the model's name.
    ///   - tokens: the document; at least one.
    ///   - layers: the numbers of the layers that will be added, ascending.
    ///   - heads: the numbers of the heads that will be added for each, ascending.
    ///   - keysPerQuery: how many top keys come with each query; 0: none.
    ///   - queries: tokens whose keys the page must have; where the page has room for all it has all.
    public init(
        document: String, model: String, tokens: [ReportToken], layers: [Int], heads: [Int], keysPerQuery: Int,
        queries: [Int] = []
    ) {
        precondition(!tokens.isEmpty && !layers.isEmpty && !heads.isEmpty && keysPerQuery >= 0)
        precondition(queries.allSatisfy(tokens.indices.contains))
        (self.document, self.model, self.tokens) = (document, model, tokens)
        (self.layers, self.heads) = (layers, heads)
        detail = ReportDetail(
            tokens: tokens, layers: layers.count, heads: heads.count, keysPerQuery: keysPerQuery, queries: queries)
        kept = [KeptHead?](repeating: nil, count: layers.count * heads.count)
        layerMass = detail.isComplete ? [] : [Double](repeating: 0, count: layers.count * tokens.count)
    }

    /// Whether every head has been added.
    public var isWhole: Bool { kept.allSatisfy { $0 != nil } }

    /// Takes a head's statistics in, over the whole document; keeps what the page shows.
    /// - Parameters:
    ///   - statistics: of the document's tokens; those that were not asked for are empty.
    ///   - layer: its number in the model, one of ``layers``.
    ///   - head: its number in the layer, one of ``heads``; not added before.
    public mutating func add(_ statistics: HeadStatistics, layer: Int, head: Int) {
        guard let row = layers.firstIndex(of: layer), let column = heads.firstIndex(of: head) else {
            preconditionFailure("layer \(layer), head \(head) is not of this report")
        }
        let place = row * heads.count + column
        precondition(kept[place] == nil, "layer \(layer), head \(head) was added before")
        statistics.check(tokens: tokens.count, keysPerQuery: detail.keysPerQuery)
        kept[place] = KeptHead(statistics, tokens: tokens, detail: detail)
        guard !detail.isComplete, !statistics.receivedMass.isEmpty else { return }
        // Whole multiples of 2⁻²⁴: sums below 2²⁹ are exact, so they are the same in any order.
        for token in tokens.indices {
            let mass = Double(statistics.receivedMass[token])
            layerMass[row * tokens.count + token] += (mass * 16_777_216).rounded() / 16_777_216
        }
    }
}

/// A label of a classifier, and its score.
public struct LabelScore: Sendable {
    /// The label's name in the model.
    public let label: String
    /// Its score, as `classify` prints it.
    public let score: Float

    /// - Parameters:
    ///   - label: the label's name in the model.
    ///   - score: its score, as `classify` prints it.
    public init(label: String, score: Float) { (self.label, self.score) = (label, score) }
}

/// Where a query's information came from, through all layers.
public struct Rollout: Sendable {
    /// The token whose state in the last layer is traced back.
    public let query: Int
    /// The share of each token of the document, [tokens].
    public let weights: [Float]

    /// - Parameters:
    ///   - query: the token whose state in the last layer is traced back.
    ///   - weights: the share of each token of the document, [tokens].
    public init(query: Int, weights: [Float]) { (self.query, self.weights) = (query, weights) }
}

/// What editing each of some tokens does to the model's output.
public struct Probe: Sendable {
    /// What was done to a token: "mask", "drop", "swap" or "noise".
    public let edit: String
    /// What the values are, such as "change of the logit of POSITIVE" or "1 − cosine".
    public let measure: String
    /// One value a token, [tokens]; NaN where the token was left alone.
    public let values: [Float]

    /// - Parameters:
    ///   - edit: what was done to a token: "mask", "drop", "swap" or "noise".
    ///   - measure: what the values are, such as "change of the logit of POSITIVE" or "1 − cosine".
    ///   - values: one value a token, [tokens]; NaN where the token was left alone.
    public init(edit: String, measure: String, values: [Float]) {
        (self.edit, self.measure, self.values) = (edit, measure, values)
    }
}
