// What a model attends to in one document, for the eye: a report, or a picture of its block maps.

import Attention
import Files
import RingAttention
import Tiles
import Tokenization

/// Observes one document and writes a page or a picture, layer after layer through rank 0's memory.
struct ObservationPicture {
    enum Kind {
        case report, maps

        init?(path: String) {
            if path.hasSuffix(".html") {
                self = .report
            } else if path.hasSuffix(".png") {
                self = .maps
            } else {
                return nil
            }
        }
    }

    private let kind: Kind
    private let options: ObservationOptions
    private let document: ObservedDocument
    private let layers: [Int]
    private let heads: [Int]
    private let model: String
    private let pipeline: EncodingPipeline
    private let chosen: Range<Int>
    private let rollouts: Range<Int>
    private var session: Session { pipeline.session }

    /// - Throws: `AgreedFailure` where there are several documents, or one that lacks chosen tokens.
    init(
        _ kind: Kind, _ options: ObservationOptions, _ documents: [ObservedDocument], layers: [Int], heads: [Int],
        model: String, _ pipeline: EncodingPipeline
    ) throws {
        self.kind = kind
        self.layers = layers
        self.heads = heads
        self.model = model
        self.pipeline = pipeline
        var shown = options
        shown.hasMaps = true
        // The queries are those that a page must have; it holds no rectangle.
        shown.queries = nil
        if kind == .report { shown.topKeys = options.topKeys ?? 8 }
        self.options = shown
        (document, chosen, rollouts) = try pipeline.session.agree {
            guard documents.count == 1, let document = documents.first else {
                throw JobError(
                    .badInput,
                    "a report or picture is of one document, and the input has \(documents.count); write a .safetensors, or give one"
                )
            }
            return (
                document, options.queries == nil ? 0..<0 : try document.tokens(options.queries, option: "--queries"),
                options.rollout == nil ? 0..<0 : try document.tokens(options.rollout, option: "--rollout")
            )
        }
    }

    /// Observes and writes. Collective.
    func write(to output: OutputFile, _ probing: Probing?) throws {
        let writer = try ObservationWriter(options, [document], layers: layers, heads: heads, pipeline)
        writer.tellCost()
        try probing?.tellCost([document])
        let file = try ParallelFile.create(output.path, force: output.mayReplace, transport: session.transport)
        let bytes: [UInt8]
        switch kind {
        case .report: bytes = try report(writer, probing)
        case .maps: bytes = try maps(writer)
        }
        try bytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        try file.commit()
    }

    private func name(_ layer: Int, _ statistic: String) -> String { "\(document.number).layer.\(layer).\(statistic)" }

    private func map(_ image: ObservationImage, _ layer: Int, _ place: Int) -> BlockMap {
        let side = BlockGrid.side(tokens: document.tokens)
        let all = image.floats(name(layer, "block_map"))
        return BlockMap(
            tokens: document.tokens, size: BlockGrid.size(tokens: document.tokens),
            means: Array(all[place * side * side..<(place + 1) * side * side]))
    }

    private func maps(_ writer: ObservationWriter) throws -> [UInt8] {
        var maps: [[BlockMap]] = []
        try writer.run(
            0..<1,
            into: ObservationImage(writer.tensors, session) { image, layer in
                maps.append(heads.indices.map { map(image, layer, $0) })
                image.forget()
            })
        return session.isRoot ? BlockMapPicture.png(of: maps, layers: layers, heads: heads) : []
    }

    private func report(_ writer: ObservationWriter, _ probing: Probing?) throws -> [UInt8] {
        let (count, keysPerQuery) = (document.tokens, options.topKeys ?? 0)
        var report = ObservationReport(
            document: document.source, model: model, tokens: tokens, layers: layers, heads: heads,
            keysPerQuery: keysPerQuery, queries: Array(chosen))
        let image = ObservationImage(writer.tensors, session) { image, layer in
            func row(_ statistic: String) -> (Int) -> [Float] {
                let all = image.floats(name(layer, statistic))
                return { Array(all[$0 * count..<($0 + 1) * count]) }
            }
            let (mass, entropy, distance, logit) = (
                row("received_mass"), row("entropy"), row("mean_distance"), row("max_logit")
            )
            let (keys, weights) = (image.integers(name(layer, "top_keys")), image.floats(name(layer, "top_weights")))
            for (place, head) in heads.enumerated() {
                let range = place * count * keysPerQuery..<(place + 1) * count * keysPerQuery
                report.add(
                    HeadStatistics(
                        receivedMass: mass(place), entropy: entropy(place), meanDistance: distance(place),
                        maxLogit: logit(place), topKeys: Array(keys[range]), topWeights: Array(weights[range]),
                        blockMap: map(image, layer, place)), layer: layer, head: head)
            }
            image.forget()
        }
        try writer.run(0..<1, into: image)
        if let probing {
            let changes = try probing.changes([document])
            if session.isRoot {
                let (edit, shifts) = (probing.edit.rawValue, changes.attention[0])
                report.probes = [
                    Probe(edit: edit, measure: changes.measure, values: changes.values[0]),
                    Probe(
                        edit: edit, measure: "received mass moved",
                        values: meanOfHeads(shifts.massDistances)),
                    Probe(
                        edit: edit, measure: "entropy changed, nats",
                        values: meanOfHeads(shifts.entropyChanges)),
                ]
                report.scores = changes.scores.map { LabelScore(label: $0.label, score: $0.score) }
            }
        }
        guard session.isRoot else { return [] }
        let shares = image.floats("\(document.number).rollout")
        report.rollouts = rollouts.enumerated().map { place, query in
            Rollout(query: query, weights: Array(shares[place * count..<(place + 1) * count]))
        }
        return Array(report.page.utf8)
    }

    /// The mean over layers and heads of (layers, heads, tokens).
    private func meanOfHeads(_ values: [Float]) -> [Float] {
        let count = layers.count * heads.count
        return (0..<document.tokens).map { token in
            var sum = 0.0
            for place in 0..<count { sum += Double(values[place * document.tokens + token]) }
            return Float(sum / Double(count))
        }
    }

    /// The tokens as the page shows them, each of its own text.
    private var tokens: [ReportToken] {
        let encoding = document.encoding
        let pieces = encoding.ids.map { id in pipeline.tokenizer?.token(of: id) ?? "\(id)" }
        guard !document.texts.isEmpty else {
            return ReportToken.tokens(of: nil, pieces: pieces, offsets: [], special: document.isSpecial)
        }
        // Of a pair, what stands before the second text's first token is the first text's.
        let second = encoding.sequences.firstIndex(of: 1) ?? encoding.count
        func part(_ range: Range<Int>, of text: String) -> [ReportToken] {
            ReportToken.tokens(
                of: text, pieces: Array(pieces[range]), offsets: Array(encoding.offsets[range]),
                special: Array(document.isSpecial[range]))
        }
        return part(0..<second, of: document.texts[0])
            + (second < encoding.count ? part(second..<encoding.count, of: document.texts[1]) : [])
    }
}
