// Batches of a corpus through an encoder, on all ranks.

import Attention
import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Tiles
import Tokenization
import Transformers

/// A model loaded for a job.
package struct LoadedModel: Sendable {
    /// What the files of its folder say.
    package let folder: ModelFolder
    package let encoder: Encoder

    package static func load(
        _ name: String, storage: WeightStorage, element: ElementKind = .float32, kernels: KernelSet
    ) throws(FileError) -> LoadedModel {
        let folder = try ModelFolder(named: name)
        return LoadedModel(
            folder: folder,
            encoder: try Encoder(folder.checkpoint, storage: storage, element: element, kernels: kernels))
    }

    package var checkpoint: Checkpoint { folder.checkpoint }

    /// The model's tokenizer; nil where the folder has none.
    /// - Parameter lowercases: lowercase first where sentence-transformers would.
    package func tokenizer(lowercases: Bool = false) throws(FileError) -> Tokenizer? {
        let place = checkpoint.folder
        return Tokenizer.exists(folder: place)
            ? try Tokenizer.load(folder: place, lowercase: lowercases && folder.lowercases) : nil
    }

    /// The tokens of the longest document that the model was trained for, and where its files say so.
    package var trainedLength: ModelFolder.TrainedLength {
        let positions = encoder.configuration.positionCount
        if let told = folder.trainedLength, told.tokens < positions { return told }
        return ModelFolder.TrainedLength(tokens: positions, source: "the positions of \(checkpoint.configPath)")
    }
}

/// Where the states of a corpus are not finite.
private struct NotFiniteStates {
    let document: Int
    /// From 1; 0: the embeddings.
    let layer: Int
    let tile: Int

    var order: (Int, Int, Int) { (document, layer, tile) }
}

/// What a job's batches share, whose documents may come in portions.
struct BatchPlanning {
    /// The ranks' relative speeds, once they are measured.
    package var speeds: [Double]??
    /// The strategy, and the cost of the batch for which it was decided.
    package var strategy: (strategy: Strategy, flop: Double)?
    /// How fast this rank has attended since that was last told, by the heads that are priced.
    var paces: [HeadShape: Pace] = [:]
    /// What every batch's run works in.
    package let memory = BufferPool()
    /// Documents of earlier portions.
    package var documents = 0
    /// Whether it was said that states are not finite.
    var hasWarnedOfStates = false
    /// Bytes that a rank was said to take with observing, and those that it had before.
    var observing: (most: Double, before: Double)?
}

/// What of the attention of a corpus's layers is observed, and who is told of each. Collective functions may be called
/// there.
package struct LayerObserver {
    let asked: AttentionObservation
    /// Bytes that rank 0 keeps of what it is told.
    var bytesKept = 0
    /// Given the run, which items of the corpus it holds, and a layer.
    let observed: (EncoderRun, Range<Int>, ObservedLayer) throws -> Void
}

extension Session {
    /// Loads weights, one copy for the ranks that share memory, and refuses what the hosts cannot hold before anything
    /// is read. Collective.
    /// - Parameter load: loads them into a storage; called once more beforehand, to count.
    /// - Throws: `AgreedFailure`, also with status 71, and with 65 where the copies of the ranks differ; what the
    ///   transport throws.
    package func loadWeights<Model>(_ load: (WeightStorage) throws -> Model) throws -> Model {
        let counting = WeightStorage.counting
        let notes = ReadNotes()
        try agree { try ReadNotes.$current.withValue(notes) { _ = try load(counting) } }
        // Ranks of a host that have files of their own load them apart, and compare what they have loaded.
        let files = try transport.allGather(withUnsafeBytes(of: notes.openedFiles) { Array($0) })
        let weightNodes = weightNodes
        let neighbours = Topology(ranks: files.count) { rank, neighbour in
            weightNodes.mates(of: Rank(rank)).contains(neighbour) && files[rank] == files[neighbour]
        }
        let isFirst = neighbours.mates(of: transport.rank).lowerBound == transport.rank.index
        let ((nodes, storage), shortages) = try neighbours.sharing(.weights, over: transport) { _ in
            isFirst ? counting.floats : 0
        } make: { nodes -> (Topology, WeightStorage) in
            try refuseWeights(bytesPerCopy: Double(counting.floats * MemoryLayout<Float>.stride), nodes)
            return (
                nodes,
                nodes.isShared
                    ? try WeightStorage.shared(floats: counting.floats, over: transport, among: nodes) : WeightStorage()
            )
        }
        warn(shortages)
        let model = try agreeReading(as: "the model", among: nodes) { try load(storage) }
        try storage.publish()
        return model
    }

    /// Encodes a corpus in batches that bound each rank's memory, and hands each batch's run to `body`. Collective.
    ///
    /// The batches change no bit: a document's states do not depend on its company.
    /// - Parameters:
    ///   - job: the job that the work is of, where it is saved as it goes on.
    ///   - observer: what of the layers' attention is observed, if anything, and who is told.
    ///   - body: the run, and which items of the corpus it holds.
    package func encode(
        _ corpus: Corpus, with encoder: Encoder, job: ResumableJob? = nil, observer: LayerObserver? = nil,
        body: (EncoderRun, Range<Int>) throws -> Void
    ) throws {
        let configuration = encoder.configuration
        try agree { try check(corpus, configuration) }
        let total = EncoderRun.flop(lengths: corpus.items.map(\.ids.count), configuration: configuration)
        let line = display("encoding", total: Int(total * 1e-9), unit: "GFLOP")
        let speeds = try plannedSoFar.speeds ?? relativeSpeeds()
        plannedSoFar.speeds = .some(speeds)
        /// A batch, as all ranks share it.
        func problem(_ items: Range<Int>) -> AttentionProblem {
            self.problem(
                lengths: corpus.items[items].map(\.ids.count), configuration, element: encoder.element,
                layout: settings.askedLayout, speeds: speeds)
        }
        func flop(_ items: Range<Int>) -> Double {
            EncoderRun.flop(lengths: corpus.items[items].map(\.ids.count), configuration: configuration)
        }
        let itemsBegun = job?.itemsBegun(in: corpus) ?? 0
        let batches = batches(of: corpus, itemsBegun: itemsBegun)
        // The costliest batch decides for all of them.
        guard let costliest = batches.max(by: { flop($0) < flop($1) }) else { return line.finish(done: 0) }
        monitor.progress(.planning)
        let priced = problem(costliest)
        let strategy = try decide(priced, flop: flop(costliest), configuration, encoder.element, observer)
        var done = flop(0..<corpus.finished)
        var notFinite: NotFiniteStates?
        for items in batches {
            let ids = corpus.items[items].map(\.ids)
            let typeIds = corpus.items[items].map { $0.typeIds ?? Array(repeating: 0, count: $0.ids.count) }
            let batch = flop(items)
            let run = try encoderRun(encoder, problem(items).queries, strategy, observing: observer?.asked)
            let layers = configuration.layerCount
            let monitor = monitor
            let isBegun = itemsBegun > 0 && items.lowerBound == corpus.finished
            var first = 0
            if let job, run.isInStep || isBegun { first = try job.loadLayers(into: run, isBegun: isBegun) }
            monitor.progress(.encoding, layer: first + 1)
            try run.run(ids: ids, typeIds: typeIds, from: first) { layer, part in
                // The one that comes next; behind the last, whole documents begin anew.
                monitor.progress(.encoding, layer: layer % layers + 1)
                line.advance(to: Int((done + batch * part) * 1e-9))
                if run.isInStep { try job?.finish(layer: layer, of: run) }
            } observed: {
                try observer?.observed(run, items, $0)
            }
            notFinite =
                notFinite
                ?? run.notFinite.map {
                    NotFiniteStates(
                        document: corpus.items[items.lowerBound + $0.sequence].document, layer: $0.layer, tile: $0.tile)
                }
            plannedSoFar.paces[priced.heads, default: Pace()] += run.pace(priced.heads)
            monitor.progress(.pooling)
            try body(run, items)
            done += batch
            self.done.tokens += ids.reduce(0) { $0 + $1.count }
            self.done.flop += batch
            try job?.finish(corpus, upTo: items.upperBound)
        }
        line.finish(done: Int(total * 1e-9))
        if try correct(priced.heads, by: plannedSoFar.paces[priced.heads] ?? Pace()) {
            plannedSoFar.paces[priced.heads] = nil
        }
        try warn(of: notFinite, sources: corpus.sources)
        plannedSoFar.documents += (corpus.items.last?.document ?? -1) + 1
    }

    /// Attention over some sequences, as the ranks of this job share it.
    /// - Parameters:
    ///   - layout: nil: contiguous, or whatever is more even for documents.
    ///   - speeds: of the ranks, for a balanced layout.
    package func problem(
        lengths: [Int], _ configuration: EncoderConfiguration, element: ElementKind, layout: Layout?, speeds: [Double]?
    ) -> AttentionProblem {
        spread(
            EncoderRun.problem(
                lengths: lengths, configuration: configuration, element: element, layout: layout,
                rankCount: transport.size, speeds: speeds))
    }

    /// Attention over pieces of a sequence, as the ranks of this job share it. Collective.
    package func problem(_ pieces: [SequenceShape], _ mask: Mask, _ heads: HeadShape) throws -> AttentionProblem {
        var problem = AttentionProblem(
            shapes: pieces, mask: mask, heads: heads, layout: settings.layout, rankCount: transport.size,
            speeds: try relativeSpeeds())
        problem.element = settings.element
        return spread(problem)
    }

    /// A problem with what the session knows of the ranks and of what travels.
    func spread(_ problem: AttentionProblem) -> AttentionProblem {
        var problem = problem
        problem.topology = topology
        problem.wire = settings.wire
        return problem
    }

    /// What a batch goes through. Collective.
    package func encoderRun(
        _ encoder: Encoder, _ sharding: Sharding, _ strategy: Strategy, observing: AttentionObservation? = nil
    ) throws -> EncoderRun {
        let monitor = monitor
        let run = try EncoderRun(
            encoder: encoder, sharding: sharding, strategy: strategy, topology: topology, wire: settings.wire,
            transport: transport, threads: threads, memory: plannedSoFar.memory, observing: observing,
            progressed: { monitor.progress() })
        warn(run.shortages)
        return run
    }

    /// Names the first place of all ranks where states are not finite, once in a job. Collective.
    private func warn(of mine: NotFiniteStates?, sources: [String]) throws {
        var message = Message()
        if let mine { for value in [mine.document, mine.layer, mine.tile] { message.write(value) } }
        let all = try transport.allGather(message.bytes).enumerated().compactMap {
            rank, bytes -> (found: NotFiniteStates, rank: Int)? in
            var told = Message(bytes)
            return told.isAtEnd
                ? nil : (NotFiniteStates(document: told.readInt(), layer: told.readInt(), tile: told.readInt()), rank)
        }
        guard !plannedSoFar.hasWarnedOfStates, let first = all.min(by: { $0.found.order < $1.found.order }) else {
            return
        }
        plannedSoFar.hasWarnedOfStates = true
        let found = first.found
        let document =
            sources.indices.contains(found.document)
            ? sources[found.document] : "document \(plannedSoFar.documents + found.document)"
        log.warning(
            """
            infinities or NaN came out of \(found.layer == 0 ? "the embeddings" : "layer \(found.layer)") for tile \(found.tile) of \
            \(document) (rank \(first.rank)), and are in the results; `annulus verify` tells whether the model is at fault
            """)
    }

    /// Refuses tokens for which the model has no row, wherever they come from: given ids, or what a tokenizer made of a
    /// text.
    private func check(_ corpus: Corpus, _ configuration: EncoderConfiguration) throws {
        for item in corpus.items {
            do throws(TokenError) {
                try configuration.check(ids: [item.ids], typeIds: item.typeIds.map { [$0] })
            } catch {
                throw FileError(
                    .malformed, path: corpus.source(of: item), "\(error.reason); use this model's tokenizer")
            }
        }
    }

    /// The strategy of some batches, given the costliest: that of earlier ones, unless these cost twice as much.
    /// Collective.
    /// - Parameter observer: what is observed of them, if anything: its memory counts, and is told.
    private func decide(
        _ problem: AttentionProblem, flop: Double, _ configuration: EncoderConfiguration, _ element: ElementKind,
        _ observer: LayerObserver?
    ) throws -> Strategy {
        var footprint = try configuration.footprint(element, threads: threads.threads, weights: false)
        if let asked = observer?.asked {
            footprint.bytesPerToken += 4 * Double(asked.floatsPerToken(configuration))
            footprint.layers = asked.layers(configuration)
        }
        let earlier = plannedSoFar.strategy.flatMap { flop <= 2 * $0.flop ? $0 : nil }
        // Also where nothing is chosen, memory is looked at, and whether all ranks plan the same.
        let decision = try decide(problem, footprint, settings.strategy ?? earlier?.strategy)
        plannedSoFar.strategy = (decision.strategy, max(flop, earlier?.flop ?? 0))
        if let observer { try tellMemory(decision, problem, bytesKept: observer.bytesKept) }
        return decision.strategy
    }

    /// What processes that meet take besides: buffers that MPI makes when the first messages go. As
    /// scripts/checks/observe-memory.py sees it.
    private static let bytesOfMessages = 16.0 * 0x1p20

    /// Says what memory observing will take, once, and once more where it is much more. Collective.
    private func tellMemory(_ decision: Decision, _ problem: AttentionProblem, bytesKept: Int) throws {
        // What the first batch has left is used again.
        let earlier = plannedSoFar.observing
        let before = earlier?.before ?? MemoryOfHost.resident + MemoryOfHost.untouchedShared
        var mine = before + decision.memory + (isRoot ? Double(bytesKept) : 0)
        if transport.size > 1 && !group.isVirtual { mine += Self.bytesOfMessages }
        // Tiles of the host's other ranks are read where they are.
        for mate in problem.topology.mates(of: transport.rank) where mate != transport.rank.index {
            mine += Double(problem.packedBytes(of: problem.keys.tiles(of: Rank(mate))) * problem.heads.keyValueHeads)
        }
        var most = 0.0
        for bytes in try transport.allGather(withUnsafeBytes(of: mine) { Array($0) }) {
            most = max(most, bytes.withUnsafeBytes { $0.loadUnaligned(as: Double.self) })
        }
        if group.isVirtual { most += Double(transport.size - 1) * decision.memory }
        if let earlier, most <= 1.1 * earlier.most { return }
        plannedSoFar.observing = (most, before)
        let whose = group.isVirtual && transport.size > 1 ? "for all ranks together" : "a rank"
        log.notice("memory: up to \(String(format: "%.0f", most / 0x1p20)) MiB \(whose), the model included")
    }

    /// Batches of as many tokens as bound each rank's memory, or of a single document that is longer.
    /// - Parameter itemsBegun: how many of the first that are not done make a batch in any case.
    private func batches(of corpus: Corpus, itemsBegun: Int) -> [Range<Int>] {
        var batches: [Range<Int>] = []
        var first = corpus.finished
        if itemsBegun > 0 {
            batches.append(first..<first + itemsBegun)
            first += itemsBegun
        }
        while first < corpus.items.count {
            var last = first
            var tokens = 0
            while last < corpus.items.count,
                last == first || tokens + corpus.items[last].ids.count <= 16_384 * transport.size
            {
                tokens += corpus.items[last].ids.count
                last += 1
            }
            batches.append(first..<last)
            first = last
        }
        return batches
    }

    /// The vectors of every span of a corpus, each on the rank that holds the span's first token. Collective.
    /// - Parameters:
    ///   - job, observer: as `encode` takes them.
    ///   - body: (number of the span in the corpus, vector), called on that rank in ascending order of a batch.
    package func vectors(
        _ corpus: Corpus, with encoder: Encoder, _ shape: VectorShape, job: ResumableJob? = nil,
        observer: LayerObserver? = nil, body: ([(span: Int, vector: [Float])]) throws -> Void
    ) throws {
        var spansBefore = corpus.items[..<corpus.finished].reduce(0) { $0 + $1.spans.count }
        try encode(corpus, with: encoder, job: job, observer: observer) { run, items in
            var spans: [Span] = []
            for (sequence, item) in corpus.items[items].enumerated() {
                spans += item.spans.map {
                    Span(
                        sequence: sequence, tokens: $0.tokens, skipped: min(corpus.skippedTokens, $0.tokens.lowerBound))
                }
            }
            var pooled: [(span: Int, vector: [Float])] = []
            for (place, mode) in shape.head.poolings.enumerated() {
                let found = try run.pool(spans, mode: mode, transport: transport)
                if place == 0 {
                    pooled = found
                } else {
                    for index in pooled.indices { pooled[index].vector += found[index].vector }
                }
            }
            try body(pooled.map { (spansBefore + $0.span, shape.vector($0.vector)) })
            spansBefore += spans.count
        }
    }

    /// Every rank's (number, vector) pairs, in ascending order, on rank 0; nothing on the others. Collective.
    package func gather(_ mine: [(span: Int, vector: [Float])]) throws -> [(span: Int, vector: [Float])] {
        if transport.size == 1 { return mine }
        var message = Message()
        for entry in mine {
            message.write(entry.span)
            message.write(entry.vector)
        }
        let sizes = try transport.allGather(withUnsafeBytes(of: Int64(message.bytes.count)) { Array($0) })
        guard isRoot else {
            try message.bytes.withUnsafeBytes { bytes in
                try transport.exchange(receive: [], send: bytes.isEmpty ? [] : [Outgoing(to: Rank(0), pieces: [bytes])])
            }
            return []
        }
        var inboxes: [(rank: Rank, bytes: UnsafeMutableRawBufferPointer)] = []
        for rank in 1..<transport.size {
            let count = sizes[rank].withUnsafeBytes { Int($0.loadUnaligned(as: Int64.self)) }
            if count > 0 { inboxes.append((Rank(rank), .allocate(byteCount: count, alignment: 8))) }
        }
        defer { inboxes.forEach { $0.bytes.deallocate() } }
        try transport.exchange(receive: inboxes.map { Incoming(from: $0.rank, pieces: [$0.bytes]) }, send: [])
        var all = mine
        for inbox in inboxes {
            var told = Message(Array(inbox.bytes))
            while !told.isAtEnd { all.append((told.readInt(), told.readFloats())) }
        }
        return all.sorted { $0.span < $1.span }
    }
}
