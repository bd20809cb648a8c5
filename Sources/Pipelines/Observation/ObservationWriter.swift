// What is observed of some documents, layer by layer, as tensors.

import Attention
import Files
import Foundation
import Matrices
import RingAttention
import Tiles
import Transformers

/// Runs some documents through a model and writes what is observed.
struct ObservationWriter {
    let tensors: ObservedTensors
    /// Of each document the place of its first tensor; one more than documents.
    private let firstTensors: [Int]
    private let options: ObservationOptions
    private let documents: [Observed]
    private let layers: [Int]
    private let heads: [Int]
    private let pipeline: EncodingPipeline
    private var session: Session { pipeline.session }
    private var layout: SafetensorsLayout { tensors.layout }

    /// A document, and which of its tokens are chosen.
    private struct Observed {
        let document: ObservedDocument
        let queries: Range<Int>
        let keys: Range<Int>
        let rollouts: Range<Int>
        let probed: Range<Int>
        var tokens: Int { document.tokens }

        /// The names of its tensors.
        func name(_ layer: Int, _ statistic: String) -> String { "\(document.number).layer.\(layer).\(statistic)" }
        func name(_ what: String) -> String { "\(document.number).\(what)" }
    }

    /// - Throws: `AgreedFailure` where a document lacks chosen tokens, and with status 71 where rectangles are too large.
    init(
        _ options: ObservationOptions, _ documents: [ObservedDocument], layers: [Int], heads: [Int],
        _ pipeline: EncodingPipeline
    ) throws {
        self.options = options
        self.layers = layers
        self.heads = heads
        self.pipeline = pipeline
        let chosen = try pipeline.session.agree {
            try documents.map { document in
                Observed(
                    document: document, queries: try document.tokens(options.queries, option: "--queries"),
                    keys: try document.tokens(options.keys, option: "--keys"),
                    rollouts: options.rollout == nil
                        ? 0..<0 : try document.tokens(options.rollout, option: "--rollout"),
                    probed: options.probe == nil
                        ? 0..<0 : try document.tokens(options.probed, option: "--probe-tokens"))
            }
        }
        self.documents = chosen
        if options.hasRectangle {
            try pipeline.session.agree { try Self.refuse(chosen, matrices: layers.count * heads.count) }
        }
        var all: [ObservedTensors.Tensor] = []
        var firsts = [0]
        for observed in chosen {
            all += Self.tensors(of: observed, options, layers: layers, heads: heads.count)
            firsts.append(all.count)
        }
        tensors = ObservedTensors(all)
        firstTensors = firsts
    }

    private static func refuse(_ documents: [Observed], matrices: Int) throws(JobError) {
        let bytes = documents.reduce(0.0) {
            $0 + 8 * Double(matrices) * Double($1.queries.count) * Double($1.keys.count)
        }
        guard bytes > Double(Observation.mostRectangleBytes),
            let most = documents.max(by: {
                $0.queries.count * $0.keys.count < $1.queries.count * $1.keys.count
            })
        else { return }
        throw JobError(
            .memory,
            "scores and weights of \(most.queries.count) queries × \(most.keys.count) keys in \(matrices) heads, the most of a document, "
                + "come to \(String(format: "%.1f", bytes / 0x1p30)) GiB, and \(Observation.mostRectangleBytes >> 30) are the limit; choose fewer with "
                + "--queries, --keys, --layers and --heads, or take --top-k or --block-map, which need no matrix")
    }

    private static func tensors(
        of observed: Observed, _ options: ObservationOptions, layers: [Int], heads: Int
    ) -> [ObservedTensors.Tensor] {
        var all: [ObservedTensors.Tensor] = []
        let tokens = observed.tokens
        all.append(.init(name: observed.name("ids"), type: .int32, shape: [tokens]))
        for layer in layers {
            func add(_ name: String, _ shape: [Int], _ type: ElementType = .float32) {
                all.append(.init(name: observed.name(layer, name), type: type, shape: [heads] + shape))
            }
            add("log_sum_exp", [tokens])
            add("entropy", [tokens])
            add("max_logit", [tokens])
            add("max_key", [tokens], .int32)
            add("mean_distance", [tokens])
            add("received_mass", [tokens])
            add("first_token_share", [])
            add("special_token_share", [])
            if let topKeys = options.topKeys {
                add("top_keys", [tokens, topKeys], .int32)
                add("top_weights", [tokens, topKeys])
            }
            if options.hasRectangle {
                let shape = [observed.queries.count, observed.keys.count]
                add("scores", shape)
                add("weights", shape)
            }
            if options.hasMaps {
                let side = BlockGrid.side(tokens: tokens)
                add("block_map", [side, side])
            }
            if options.probe != nil {
                add("probe_mass_distance", [observed.probed.count])
                add("probe_entropy_change", [observed.probed.count])
            }
        }
        if options.rollout != nil {
            all.append(
                .init(name: observed.name("rollout"), type: .float32, shape: [observed.rollouts.count, tokens]))
        }
        if let probe = options.probe {
            let shape = [observed.probed.count]
            all.append(.init(name: observed.name("probe"), type: .float32, shape: shape))
            if probe == .noise { all.append(.init(name: observed.name("probe_ids"), type: .int32, shape: shape)) }
        }
        return all
    }

    // MARK: - Running

    /// What is asked of the layers.
    private var asked: AttentionObservation {
        var asked = AttentionObservation(layers: Set(layers))
        asked.topKeys = options.topKeys ?? 1
        asked.hasMaps = options.hasMaps
        asked.rollsOut = options.rollout != nil
        return asked
    }

    /// Runs of documents that are observed at a time: as many as bound each rank's memory and what may have to be done
    /// again, or a single one that is longer. Edited documents count as well.
    /// - Parameter from: documents before this one are done.
    func groups(from: Int = 0, ranks: Int) -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var (first, tokens) = (from, 0)
        for (place, observed) in documents.enumerated().dropFirst(from) {
            let more = observed.tokens * (1 + observed.probed.count)
            if place > first, tokens + more > 16_384 * ranks {
                groups.append(first..<place)
                (first, tokens) = (place, 0)
            }
            tokens += more
        }
        if first < documents.count { groups.append(first..<documents.count) }
        return groups
    }

    /// Where the tensors of some documents are in the file.
    func pieces(_ some: Range<Int>) -> [(offset: Int, count: Int)] {
        tensors.tensors[firstTensors[some.lowerBound]..<firstTensors[some.upperBound]].map {
            (layout.offset(of: $0.name), 4 * $0.shape.reduce(1, *))
        }
    }

    /// Observes everything of some of the documents but probes. Collective.
    func run(_ some: Range<Int>, into sink: any ObservationSink) throws {
        let items = documents[some].enumerated().map { place, observed in
            let encoding = observed.document.encoding
            return Corpus.Item(
                document: place, ids: encoding.ids, typeIds: encoding.typeIds, start: 0, end: 0, spans: [])
        }
        var corpus = Corpus(items: items, sources: documents[some].map(\.document.source), texts: [])
        corpus.documentsBefore = documents[some].first?.document.number ?? 0
        /// The documents that are a batch's items.
        func places(_ items: Range<Int>) -> Range<Int> {
            some.lowerBound + items.lowerBound..<some.lowerBound + items.upperBound
        }
        let observer = LayerObserver(asked: asked, bytesKept: bytesKept(some, sink)) { run, items, layer in
            session.monitor.progress(.writing)
            try write(run, places(items), layer, into: sink)
        }
        try session.encode(corpus, with: pipeline.model.encoder, observer: observer) { run, items in
            try writeIds(places(items), into: sink)
            if options.rollout != nil { try writeRollouts(run, places(items), into: sink) }
        }
    }

    /// What rank 0 keeps of some documents until they leave: nothing, a layer of them, or all and then their lines.
    private func bytesKept(_ some: Range<Int>, _ sink: any ObservationSink) -> Int {
        guard let image = sink as? ObservationImage else { return 0 }
        let bytes = pieces(some).reduce(0) { $0 + $1.count }
        // A number of 4 bytes is some 12 characters in the end, which are there twice while they are joined.
        guard image.goesByLayer else { return bytes + 2 * 12 * (bytes / 4) }
        // A page is put together of its parts.
        return bytes / max(1, layers.count) + 2 * ReportDetail.largestPage
    }

    /// Says what the job will take.
    func tellCost() {
        let configuration = pipeline.model.encoder.configuration
        let lengths = documents.map(\.tokens)
        let forward = EncoderRun.flop(lengths: lengths, configuration: configuration)
        var more = asked.flop(lengths: lengths, configuration)
        if options.rollout != nil {
            for pattern in configuration.attention {
                let flop = Double(OperationShape.receive(pattern.heads).flopPerPair * pattern.heads.queryHeads)
                for observed in documents {
                    more +=
                        flop * Double(pattern.mask.visiblePairs(in: SequenceShape(length: observed.tokens)))
                        * Double(observed.rollouts.count)
                }
            }
        }
        session.log.notice(
            """
            observing \(layers.count) of \(configuration.layerCount) layers and \(heads.count) heads: \
            \(Self.text(layout.totalBytes)) of results; \(String(format: "%.3g", more * 1e-9)) GFLOP beside the \
            \(String(format: "%.3g", forward * 1e-9)) of the model
            """)
    }

    private static func text(_ bytes: Int) -> String {
        bytes < 1 << 20
            ? "\((bytes + 1023) >> 10) KiB"
            : String(
                format: bytes < 1 << 30 ? "%.1f MiB" : "%.2f GiB", Double(bytes) / (bytes < 1 << 30 ? 0x1p20 : 0x1p30))
    }

    /// The ids of a batch's documents, from rank 0. Collective.
    private func writeIds(_ items: Range<Int>, into sink: any ObservationSink) throws {
        let ids = documents[items].flatMap(\.document.encoding.ids)
        try ids.withUnsafeBytes { bytes in
            var pieces: [ObservedPiece] = []
            var first = 0
            for observed in documents[items] where session.isRoot {
                let count = 4 * observed.tokens
                pieces.append(
                    (
                        layout.offset(of: observed.name("ids")),
                        UnsafeRawBufferPointer(rebasing: bytes[first..<first + count])
                    ))
                first += count
            }
            try sink.put(pieces)
        }
    }

    /// One layer of a batch. Collective.
    private func write(
        _ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer, into sink: any ObservationSink
    ) throws {
        try withExtendedLifetime(layer) {
            var pieces: [ObservedPiece] = []
            func add(_ name: String, _ buffer: AlignedBuffer?, width: Int = 1) {
                guard let buffer else { return }
                for tile in run.tiles {
                    let observed = documents[items.lowerBound + tile.sequence]
                    let start = layout.offset(of: observed.name(layer.layer, name))
                    for (place, head) in heads.enumerated() {
                        pieces.append(
                            (
                                start + 4 * width * (place * observed.tokens + tile.tokens.lowerBound),
                                UnsafeRawBufferPointer(
                                    start: buffer.pointer + (head * layer.rows + tile.firstRow) * width,
                                    count: 4 * width * tile.tokens.count)
                            ))
                    }
                }
            }
            add("log_sum_exp", layer.logSumExp)
            add("entropy", layer.entropy)
            add("max_logit", layer.maxLogit)
            add("max_key", layer.maxKey)
            add("mean_distance", layer.meanDistance)
            add("received_mass", layer.receivedMass)
            if options.topKeys != nil {
                add("top_keys", layer.topKeyNumbers, width: layer.topKeys)
                add("top_weights", layer.topWeights, width: layer.topKeys)
            }
            try sink.put(pieces)
            try writeShares(run, items, layer, into: sink)
            if options.hasMaps { try writeMaps(run, items, layer, into: sink) }
            if options.hasRectangle { try writeRectangles(run, items, layer, into: sink) }
            try sink.finish(layer: layer.layer)
        }
    }

    /// The shares of all received mass that the first token has, and that special tokens have. Collective.
    ///
    /// Sums of a tile are added up tile after tile, in double precision.
    private func writeShares(
        _ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer, into sink: any ObservationSink
    ) throws {
        guard let mass = layer.receivedMass else { return }
        var message = Message()
        for tile in run.tiles {
            let observed = documents[items.lowerBound + tile.sequence]
            message.write(tile.number)
            for head in heads {
                var sums = [0.0, 0.0, 0.0]
                for row in 0..<tile.tokens.count {
                    let (token, value) = (
                        tile.tokens.lowerBound + row, Double(mass[head * layer.rows + tile.firstRow + row])
                    )
                    sums[0] += value
                    if token == 0 { sums[1] += value }
                    if observed.document.isSpecial[token] { sums[2] += value }
                }
                for sum in sums { message.write(Int(bitPattern: UInt(sum.bitPattern))) }
            }
        }
        var tiles: [(tile: Int, sums: [Double])] = []
        for bytes in try session.transport.allGather(message.bytes) {
            var told = Message(bytes)
            while !told.isAtEnd {
                let tile = told.readInt()
                tiles.append(
                    (
                        tile,
                        (0..<3 * heads.count).map { _ in Double(bitPattern: UInt64(UInt(bitPattern: told.readInt()))) }
                    ))
            }
        }
        tiles.sort { $0.tile < $1.tile }
        var totals = items.map { _ in [Double](repeating: 0, count: 3 * heads.count) }
        for (tile, sums) in tiles {
            let sequence = run.sharding.numbering.sequence(of: tile)
            for place in sums.indices { totals[sequence][place] += sums[place] }
        }
        var values: [Float] = []
        for sums in totals {
            for which in 1...2 {
                values += heads.indices.map { sums[3 * $0] == 0 ? 0 : Float(sums[3 * $0 + which] / sums[3 * $0]) }
            }
        }
        try values.withUnsafeBytes { bytes in
            var pieces: [ObservedPiece] = []
            for (place, observed) in documents[items].enumerated() where session.isRoot {
                for (which, name) in ["first_token_share", "special_token_share"].enumerated() {
                    let first = 4 * heads.count * (2 * place + which)
                    pieces.append(
                        (
                            layout.offset(of: observed.name(layer.layer, name)),
                            UnsafeRawBufferPointer(rebasing: bytes[first..<first + 4 * heads.count])
                        ))
                }
            }
            try sink.put(pieces)
        }
    }

    /// The means of blocks: of all their pairs, those that are masked included. Collective.
    private func writeMaps(
        _ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer, into sink: any ObservationSink
    ) throws {
        let tiles = Dictionary(uniqueKeysWithValues: run.tiles.map { ($0.firstRow, $0) })
        // The tile and head as one number; the first block as a float, which holds it.
        let mine = layer.blockSums.compactMap { part -> (span: Int, vector: [Float])? in
            guard let tile = tiles[part.firstRow] else { return nil }
            return (tile.number * layer.heads + part.head, [Float(part.firstBlock)] + part.sums)
        }
        let all = try session.gather(mine.sorted { $0.span < $1.span })
        let places = Dictionary(uniqueKeysWithValues: heads.enumerated().map { ($1, $0) })
        var maps = documents[items].map { observed in
            let side = BlockGrid.side(tokens: observed.tokens)
            return [Float](repeating: 0, count: session.isRoot ? heads.count * side * side : 0)
        }
        for (span, values) in all {
            guard let place = places[span % layer.heads] else { continue }
            let sequence = run.sharding.numbering.sequence(of: span / layer.heads)
            let side = BlockGrid.side(tokens: documents[items.lowerBound + sequence].tokens)
            let start = (place * side + Int(values[0])) * side
            for index in 1..<values.count { maps[sequence][start + index - 1] += values[index] }
        }
        for (place, observed) in documents[items].enumerated() {
            let (size, side) = (BlockGrid.size(tokens: observed.tokens), BlockGrid.side(tokens: observed.tokens))
            func length(_ block: Int) -> Int { min(size, observed.tokens - block * size) }
            for index in maps[place].indices {
                maps[place][index] /= Float(length(index / side % side) * length(index % side))
            }
            try maps[place].withUnsafeBytes {
                try sink.put(
                    session.isRoot ? [(layout.offset(of: observed.name(layer.layer, "block_map")), $0)] : [])
            }
        }
    }

    /// Bytes of scores and weights that are made at a time, on all ranks together.
    private static let rectangleBytes = 128 << 20

    /// The rectangles of a batch's documents. Collective.
    private func writeRectangles(
        _ run: EncoderRun, _ items: Range<Int>, _ layer: ObservedLayer, into sink: any ObservationSink
    ) throws {
        for (sequence, observed) in documents[items].enumerated() {
            let (scores, weights) = (
                layout.offset(of: observed.name(layer.layer, "scores")),
                layout.offset(of: observed.name(layer.layer, "weights"))
            )
            let (queries, keys) = (observed.queries, observed.keys)
            let rowsAtATime = min(
                queries.count, max(TileGrid.tileSize, Self.rectangleBytes / (8 * keys.count) / 256 * 256))
            let headsAtATime = max(1, Self.rectangleBytes / (8 * keys.count * rowsAtATime))
            for firstHead in stride(from: 0, to: heads.count, by: headsAtATime) {
                let some = Array(heads[firstHead..<min(heads.count, firstHead + headsAtATime)])
                for first in stride(from: queries.lowerBound, to: queries.upperBound, by: rowsAtATime) {
                    let rows = first..<min(queries.upperBound, first + rowsAtATime)
                    session.monitor.progress(.writing)
                    let parts = try layer.rectangle(sequence: sequence, queries: rows, keys: keys, heads: some)
                    // What is written lies in one buffer for each of the two, so that pieces can point into it.
                    let all = parts.enumerated().flatMap { place, parts in parts.map { (firstHead + place, $0) } }
                    let count = all.reduce(0) { $0 + $1.1.scores.count }
                    let (values, shares) = (AlignedBuffer(count: count), AlignedBuffer(count: count))
                    var pieces: [ObservedPiece] = []
                    var next = 0
                    for (head, part) in all {
                        (values.pointer + next).update(from: part.scores, count: part.scores.count)
                        (shares.pointer + next).update(from: part.weights, count: part.weights.count)
                        for row in part.rows {
                            let place =
                                4
                                * ((head * queries.count + row - queries.lowerBound) * keys.count
                                    + part.keys.lowerBound - keys.lowerBound)
                            for (start, buffer) in [(scores, values), (weights, shares)] {
                                pieces.append(
                                    (
                                        start + place,
                                        UnsafeRawBufferPointer(
                                            start: buffer.pointer + next, count: 4 * part.keys.count)
                                    ))
                            }
                            next += part.keys.count
                        }
                    }
                    try withExtendedLifetime((values, shares)) { try sink.put(pieces) }
                }
            }
        }
    }

    /// The rollouts of a batch's documents, one token of each at a time. Collective.
    private func writeRollouts(_ run: EncoderRun, _ items: Range<Int>, into sink: any ObservationSink) throws {
        for position in Set(documents[items].flatMap(\.rollouts)).sorted() {
            let shares = try run.rollout(from: position) { _ in session.monitor.progress(.encoding) }
            try shares.withUnsafeBytes { bytes in
                var pieces: [ObservedPiece] = []
                for tile in run.tiles {
                    let observed = documents[items.lowerBound + tile.sequence]
                    guard observed.rollouts.contains(position) else { continue }
                    let row = position - observed.rollouts.lowerBound
                    pieces.append(
                        (
                            layout.offset(of: observed.name("rollout"))
                                + 4 * (row * observed.tokens + tile.tokens.lowerBound),
                            UnsafeRawBufferPointer(
                                rebasing: bytes[4 * tile.rows.lowerBound..<4 * tile.rows.upperBound])
                        ))
                }
                try sink.put(pieces)
            }
        }
    }

    /// What probes of some documents gave, from rank 0: of each probed token. Collective.
    func write(_ changes: Probing.Changes, of some: Range<Int>, into sink: any ObservationSink) throws {
        for (place, observed) in documents[some].enumerated() {
            let probed = observed.probed
            var values: [Float] = []
            var offsets: [(offset: Int, count: Int)] = []
            func add(_ name: String, _ more: [Float]) {
                offsets.append((layout.offset(of: name), more.count))
                values += more
            }
            if session.isRoot {
                add(observed.name("probe"), Array(changes.values[place][probed]))
                if options.probe == .noise {
                    add(
                        observed.name("probe_ids"),
                        changes.ids[place][probed].map { Float(bitPattern: UInt32(bitPattern: $0)) })
                }
                let shifts = changes.attention[place]
                for (number, layer) in layers.enumerated() {
                    var (distances, entropies): ([Float], [Float]) = ([], [])
                    for head in heads.indices {
                        let first = (number * heads.count + head) * observed.tokens
                        let range = first + probed.lowerBound..<first + probed.upperBound
                        distances += shifts.massDistances[range]
                        entropies += shifts.entropyChanges[range]
                    }
                    add(observed.name(layer, "probe_mass_distance"), distances)
                    add(observed.name(layer, "probe_entropy_change"), entropies)
                }
            }
            try values.withUnsafeBytes { bytes in
                var pieces: [ObservedPiece] = []
                var next = 0
                for (offset, count) in offsets {
                    pieces.append((offset, UnsafeRawBufferPointer(rebasing: bytes[next..<next + 4 * count])))
                    next += 4 * count
                }
                try sink.put(pieces)
            }
        }
    }

    // MARK: - Lines

    /// Some documents' lines: one for the ids, one a layer, and one for what a document has beside them. For rank 0.
    func lines(_ some: Range<Int>, _ image: ObservationImage) -> String {
        var text = ""
        var last = ""
        for tensor in tensors.tensors[firstTensors[some.lowerBound]..<firstTensors[some.upperBound]] {
            let parts = tensor.name.split(separator: ".", maxSplits: 3)
            let isLayer = parts.count == 4
            let head = isLayer ? "{\"document\": \(parts[0]), \"layer\": \(parts[2])" : "{\"document\": \(parts[0])"
            // Ids come first, and what follows the layers is a line of its own.
            if head != last { text += (last.isEmpty ? "" : "}\n") + head }
            last = head
            text += ", \"\(parts[parts.count - 1])\": \(image.json(tensor))"
        }
        return last.isEmpty ? "" : text + "}\n"
    }
}
