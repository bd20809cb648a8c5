// How much a model's result and its attention lean on each token: what comes of a document when one token is edited.

import Checkpoints
import Files
import Foundation
import RingAttention
import Tiles
import Tokenization
import Transformers

/// Runs edited documents, and tells by how much their results and their attention differ from those of the originals.
///
/// A classifier's change is that of the logit of the label that the original gets (the first output where there is one
/// alone): edited − original. Any other model's is 1 − the cosine of the two vectors, as `embed` makes them. Attention is
/// compared by what keys receive and by the entropy of rows (``AttentionSummary``), which take no matrix.
struct Probing {
    private enum Head {
        case classifier(TaskHead, LabelSet)
        case vectors(VectorShape)
    }

    let edit: ProbeEdit
    private let options: ObservationOptions
    /// The layers and heads whose attention is compared.
    private let layers: [Int]
    private let heads: [Int]
    private let pipeline: EncodingPipeline
    private let head: Head
    /// The mask token, where it takes the place of others.
    private let mask: Int32?
    private var session: Session { pipeline.session }

    /// Loads the model's head. Collective.
    init(
        _ edit: ProbeEdit, _ options: ObservationOptions, layers: [Int], heads: [Int], _ pipeline: EncodingPipeline
    ) throws {
        self.edit = edit
        self.options = options
        self.layers = layers
        self.heads = heads
        self.pipeline = pipeline
        let (session, model) = (pipeline.session, pipeline.model)
        let (folder, checkpoint) = (model.folder, model.checkpoint)
        let (element, kernels) = (session.settings.element, session.kernels)
        let configuration = model.encoder.configuration
        let architecture = checkpoint.config["architectures"]?[0]?.string ?? ""
        if architecture.hasSuffix("ForSequenceClassification") {
            let labels = try session.agree {
                try LabelSet(checkpoint.config, path: checkpoint.configPath, scores: folder.scores)
            }
            head = .classifier(
                try session.loadWeights { storage in
                    try TaskHead(
                        .sequenceClassification, labels: labels.names.count, config: checkpoint.config,
                        path: checkpoint.configPath, configuration: configuration, parameters: checkpoint,
                        storage: storage, element: element, kernels: kernels)
                }, labels)
        } else {
            let vectors = try session.loadWeights { storage in
                try VectorHead(
                    folder, pooling: nil, hidden: configuration.hiddenSize, pools: true, storage: storage,
                    element: element, kernels: kernels)
            }
            head = .vectors(VectorShape(vectors, saved: folder.dimensions))
        }
        mask =
            edit != .mask
            ? nil
            : try session.agreeReading {
                guard let tokenizer = pipeline.tokenizer,
                    let mask = try NamedTokens(folder: checkpoint.folder).id(
                        "mask_token", tokenizer, usual: ["[MASK]", "<mask>"])
                else {
                    throw FileError(
                        .malformed, path: checkpoint.folder,
                        "its tokenizer has no mask token; take --probe drop, swap or noise")
                }
                return mask
            }
    }

    /// What probing gave, on rank 0.
    struct Changes {
        /// For each document a value a token, NaN where a token was left alone.
        var values: [[Float]]
        /// For each document what took each token's place, where that is by the seed; −1 where nothing did. On all ranks.
        var ids: [[Int32]]
        /// For each document how far attention moves.
        var attention: [AttentionShifts.Shifts] = []
        /// What the values are.
        var measure = "1 − cosine"
        /// What a classifier gives the first document.
        var scores: [(label: String, score: Float)] = []
    }

    /// What is observed of the edited documents.
    private var asked: AttentionObservation { AttentionObservation(layers: Set(layers)) }

    /// The tokens of a document that are edited.
    private func probed(_ document: ObservedDocument) throws(FileError) -> [Int] {
        var tokens: [Int] = []
        for token in try document.tokens(options.probed, option: "--probe-tokens") {
            if options.probed == nil && document.isSpecial[token] || !canEdit(document, token) { continue }
            tokens.append(token)
        }
        return tokens
    }

    /// Says what it will take. Collective.
    func tellCost(_ documents: [ObservedDocument]) throws {
        let configuration = pipeline.model.encoder.configuration
        var (runs, flop) = (0, 0.0)
        for document in documents {
            // The original once more, and its edits, which are as long as it but for a token.
            let count = try session.agree { try probed(document).count } + 1
            runs += count
            flop +=
                Double(count)
                * (EncoderRun.flop(lengths: [document.tokens], configuration: configuration)
                    + asked.flop(lengths: [document.tokens], configuration))
        }
        session.log.notice(
            "probing (\(edit.rawValue)): \(runs) documents, \(String(format: "%.3g", flop * 1e-9)) GFLOP")
    }

    /// Runs the documents and their edits. Collective.
    /// - Parameter layerDone: called behind each layer of a batch whose attention is compared. Collective.
    func changes(_ documents: [ObservedDocument], layerDone: @escaping () throws -> Void = {}) throws -> Changes {
        var changes = Changes(
            values: documents.map { [Float](repeating: .nan, count: $0.tokens) },
            ids: documents.map { [Int32](repeating: -1, count: $0.tokens) })
        // The original of each document, then its edits.
        var items: [Corpus.Item] = []
        var edits: [(document: Int, places: EditedPlaces?)] = []
        for (place, document) in documents.enumerated() {
            func add(_ ids: [Int32], _ typeIds: [Int32], token: Int?) {
                items.append(
                    Corpus.Item(
                        document: place, ids: ids, typeIds: typeIds, start: 0, end: 0, spans: [(0..<ids.count, 0, 0)]))
                edits.append((place, token.map { EditedPlaces(edit: edit, token: $0) }))
            }
            let encoding = document.encoding
            add(encoding.ids, encoding.typeIds, token: nil)
            for token in try session.agree({ try probed(document) }) {
                guard let edited = edited(document, token) else { continue }
                add(edited.ids, edited.typeIds, token: token)
                if edit == .noise { changes.ids[place][token] = edited.ids[token] }
            }
        }
        let corpus = Corpus(items: items, sources: documents.map(\.source), texts: [])
        let shifts = AttentionShifts(
            layers: layers, heads: heads, tokens: documents.map(\.tokens), edits: edits, session)
        let observer = LayerObserver(asked: asked) { run, items, layer in
            try shifts.take(run, items, layer)
            try layerDone()
        }
        let results = try results(corpus, observer)
        guard session.isRoot, let first = results.first else { return changes }
        changes.attention = shifts.shifts
        var original: [Float] = []
        for (result, (document, places)) in zip(results, edits) {
            if let places {
                changes.values[document][places.token] = change(original, result)
            } else {
                original = result
            }
        }
        if case .classifier(_, let labels) = head, let top = first.indices.max(by: { first[$0] < first[$1] }) {
            changes.measure = "change of the logit of \(labels.names[top])"
            changes.scores = zip(labels.names, labels.scores(first)).map { ($0, $1) }
        }
        return changes
    }

    /// Whether the edit can be made to a token.
    private func canEdit(_ document: ObservedDocument, _ token: Int) -> Bool {
        switch edit {
        case .mask, .noise: true
        case .drop: document.tokens > 1
        // Over the edge of the text there is nothing to change places with.
        case .swap:
            token + 1 < document.tokens && document.isSpecial[token] == document.isSpecial[token + 1]
        }
    }

    /// A document with one token edited; nil where there is nothing to take its place.
    private func edited(_ document: ObservedDocument, _ token: Int) -> (ids: [Int32], typeIds: [Int32])? {
        var (ids, typeIds) = (document.encoding.ids, document.encoding.typeIds)
        switch edit {
        case .mask:
            guard let mask else { return nil }
            ids[token] = mask
        case .drop:
            ids.remove(at: token)
            typeIds.remove(at: token)
        case .swap: ids.swapAt(token, token + 1)
        case .noise:
            guard let other = noise(document, token) else { return nil }
            ids[token] = other
        }
        return (ids, typeIds)
    }

    /// Another token, by the seed, the document's number and the place; nil where there is hardly another.
    private func noise(_ document: ObservedDocument, _ token: Int) -> Int32? {
        let size = pipeline.model.encoder.configuration.vocabularySize
        var generator = SplitMix64(
            state: options.seed &* Stride.stream &+ UInt64(document.number) &* Stride.number &+ mixed(UInt64(token)))
        let special = Set((pipeline.tokenizer?.prefixIds ?? []) + (pipeline.tokenizer?.suffixIds ?? []))
        for _ in 0..<1000 {
            let id = Int32(truncatingIfNeeded: Int.random(in: 0..<size, using: &generator))
            if id != document.encoding.ids[token], !special.contains(id) { return id }
        }
        return nil
    }

    /// Logits or vectors of every item, on rank 0. Collective.
    private func results(_ corpus: Corpus, _ observer: LayerObserver) throws -> [[Float]] {
        let encoder = pipeline.model.encoder
        var results: [[Float]] = []
        switch head {
        case .classifier(let head, _):
            try session.encode(corpus, with: encoder, observer: observer) { run, items in
                let spans = items.map {
                    Span(sequence: $0 - items.lowerBound, tokens: 0..<corpus.items[$0].ids.count)
                }
                let mine = try run.pool(spans, mode: head.pooling, transport: session.transport).map {
                    (span: $0.span, vector: head.logits(rows: 1, $0.vector))
                }
                results += try session.gather(mine).map(\.vector)
            }
        case .vectors(let shape):
            try session.vectors(corpus, with: encoder, shape, observer: observer) { found in
                results += try session.gather(found).map(\.vector)
            }
        }
        return results
    }

    private func change(_ original: [Float], _ edited: [Float]) -> Float {
        switch head {
        case .classifier:
            guard let top = original.indices.max(by: { original[$0] < original[$1] }) else { return .nan }
            return edited[top] - original[top]
        case .vectors:
            var (product, first, second) = (0.0, 0.0, 0.0)
            for (x, y) in zip(original, edited) {
                product += Double(x) * Double(y)
                first += Double(x) * Double(x)
                second += Double(y) * Double(y)
            }
            return Float(1 - product / (first * second).squareRoot())
        }
    }
}
