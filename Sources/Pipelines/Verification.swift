// A checkpoint proved sound, the same on any ranks, and right by a float64 reference.

import Checkpoints
import Crypto
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Synchronization
import Tiles
import Tokenization
import Transformers

/// One run of `verify`, on one rank.
package final class Verification {
    /// What is proved.
    package struct Options: Sendable {
        /// A folder, or `org/name` in the Hugging Face cache.
        package var model: String
        /// Tokens of the documents of seeded ids, cut at the model's positions.
        package var lengths: [Int]
        /// Numbers of virtual ranks.
        package var ranks: [Int]
        /// Of the token ids.
        package var seed: UInt64

        package init(model: String, lengths: [Int], ranks: [Int], seed: UInt64) {
            (self.model, self.lengths, self.ranks, self.seed) = (model, lengths, ranks, seed)
        }
    }

    private let options: Options
    private let print: (String) throws -> Void
    private let session: Session
    private let checkpoint: Checkpoint
    private let configuration: EncoderConfiguration
    private let audit: CheckpointAudit
    private var failed: [String] = []
    private var count = 0
    /// The first place where states of rank 0 were not finite.
    private let notFinite = FirstNotFinite()

    /// Collective, like all of its functions.
    /// - Parameter print: takes a line of the report, on rank 0.
    package init(_ options: Options, _ session: Session, print: @escaping (String) throws -> Void) throws {
        self.options = options
        self.session = session
        self.print = print
        session.monitor.progress(.reading)
        (checkpoint, configuration) = try session.agreeReading {
            let checkpoint = try ModelFolder(named: options.model).checkpoint
            return (checkpoint, try EncoderConfiguration(checkpoint.config, path: checkpoint.configPath))
        }
        let checkpoint = checkpoint
        audit = try session.agree { try CheckpointAudit(checkpoint) }
    }

    /// - Throws: `AgreedFailure` with status 65 where a check fails.
    package func run() throws {
        try session.logHeader("verify \(options.model)")
        try checkTensors()
        if failed.isEmpty {
            let documents = try self.documents()
            let encoder = try session.loadWeights { [checkpoint] storage in
                try Encoder(checkpoint, storage: storage, element: session.settings.element, kernels: session.kernels)
            }
            let states = try checkBytes(encoder, documents)
            try checkStates(states, encoder, documents)
        } else {
            try report("not verified", "bytes on ranks, states against float64: the tensors are at fault")
        }
        try reportHeads()
        try session.agree {
            guard failed.isEmpty else {
                throw JobError(
                    .badInput,
                    "\(checkpoint.folder): \(failed.count) of \(count) checks failed: \(failed.joined(separator: ", "))"
                )
            }
        }
    }

    /// Prints a line. Collective.
    private func report(_ name: String, _ text: String) throws {
        try session.agree {
            guard session.isRoot else { return }
            try print(name.padding(toLength: 16, withPad: " ", startingAt: 0) + text + "\n")
        }
    }

    /// Prints a check's line. Collective; the outcome is that of rank 0.
    private func check(_ name: String, _ holds: Bool, _ text: String) throws {
        let told = try session.transport.allGather([holds ? 1 : 0])[0][0] == 1
        count += 1
        if !told { failed.append(name) }
        try report(name, (told ? "ok      " : "FAILED  ") + text)
    }

    private func list(_ names: [String]) -> String {
        names.prefix(3).joined(separator: ", ") + (names.count > 3 ? ", and \(names.count - 3) more" : "")
    }

    // MARK: Tensors

    private func checkTensors() throws {
        let monitor = session.monitor
        let faults = try session.agree { session.isRoot ? try checkpoint.notFinite { monitor.progress() } : [] }
        try check(
            "finite", faults.isEmpty,
            faults.isEmpty
                ? "\(checkpoint.parameterCount) numbers in \(checkpoint.names.count) tensors"
                : list(faults.map { "'\($0.name)' holds \($0.count) that are infinite or not numbers" }))
        try check(
            "parameters", audit.unreadable.isEmpty,
            audit.unreadable.isEmpty
                ? "\(audit.parameters.count) of a \(configuration.family.name) of \(configuration.layerCount) layers, their shapes as config.json says"
                : list(audit.unreadable))
        try check(
            "no others", audit.unused.isEmpty,
            audit.unused.isEmpty
                ? "beside them \(audit.others.isEmpty ? "nothing" : "what the encoder does not read: " + list(audit.others))"
                : "config.json has no place for " + list(audit.unused.map { "'\($0)'" }))
    }

    // MARK: Documents

    private struct Documents {
        var ids: [[Int32]]
        var typeIds: [[Int32]]
    }

    /// Documents of every length, one of the first and last rows of every table, one of text and one of a pair of texts. The
    /// second halves of those of ids are of the second type, where there are types.
    private func documents() throws -> Documents {
        let configuration = configuration
        var ids = options.lengths.enumerated().map { number, length in
            let source = SeededIds(seed: options.seed &+ UInt64(number), count: configuration.vocabularySize)
            return (0..<min(length, configuration.positionCount)).map { source.id($0) }
        }
        var typeIds = ids.map { ids in
            ids.indices.map { Int32(configuration.distinguishesTypes && 2 * $0 >= ids.count ? 1 : 0) }
        }
        let bounds = try checkBounds()
        ids.append(bounds.ids)
        typeIds.append(bounds.typeIds)
        if let tokenizer = try session.agreeReading({
            try Tokenizer.exists(folder: checkpoint.folder) ? Tokenizer.load(folder: checkpoint.folder) : nil
        }) {
            let (type, types) = (Int(tokenizer.largestTypeId), configuration.tokenTypeCount)
            let hasTypes = !configuration.distinguishesTypes || type < types
            try check(
                "tokenizer", Int(tokenizer.largestId) < configuration.vocabularySize && hasTypes,
                "\(tokenizer.vocabularySize) tokens, the largest id \(tokenizer.largestId); the model has \(configuration.vocabularySize) rows"
                    + (hasTypes ? "" : "; the largest type \(type), and the model has \(types) rows of types"))
            let text = tokenizer.encode(Self.text)
            let pair = tokenizer.encode(Self.question, pair: Self.text)
            for encoding in [text, pair] where failed.isEmpty && encoding.count > 0 {
                ids.append(Array(encoding.ids.prefix(configuration.positionCount)))
                typeIds.append(Array(encoding.typeIds.prefix(configuration.positionCount)))
            }
        } else {
            try report("not verified", "the tokenizer and pairs of texts: there is none")
        }
        return Documents(ids: ids, typeIds: typeIds)
    }

    /// A document of the first and the last row of every table, as long as there are positions. What lies beyond a table is
    /// refused.
    private func checkBounds() throws -> (ids: [Int32], typeIds: [Int32]) {
        let (words, types) = (configuration.vocabularySize, configuration.tokenTypeCount)
        let hasPositions = configuration.positions != .none
        let length = hasPositions ? min(configuration.positionCount, Self.mostPositions) : 2
        let ids = (0..<length).map { Int32($0 % 2 == 0 ? words - 1 : 0) }
        let typeIds = ids.map { _ in Int32(configuration.distinguishesTypes ? types - 1 : 0) }
        func isRefused(_ ids: [Int32], _ types: [Int32]) -> Bool {
            do throws(TokenError) { try configuration.check(ids: [ids], typeIds: [types]) } catch { return true }
            return false
        }
        var open: [String] = []
        if !isRefused([Int32(words)], [0]) { open.append("words") }
        if configuration.distinguishesTypes, !isRefused([0], [Int32(types)]) { open.append("types") }
        let tooMany = Array(repeating: Int32(0), count: configuration.positionCount + 1)
        if hasPositions, !isRefused(tooMany, tooMany) { open.append("positions") }
        let tables =
            ["\(words) words"] + (types > 0 ? ["\(types) types"] : [])
            + (hasPositions ? ["\(configuration.positionCount) positions"] : [])
        try check(
            "tables", open.isEmpty && !isRefused(ids, typeIds),
            open.isEmpty
                ? "the first and the last row of \(tables.joined(separator: ", ")) are read, and those beyond are refused"
                : "rows beyond the table of \(list(open)) are not refused")
        if hasPositions, length < configuration.positionCount {
            try report("not verified", "positions from \(length) on: a document of so many would take long")
        }
        return (ids, typeIds)
    }

    /// Of a longer document the reference would take minutes.
    private static let mostPositions = 1024
    private static let question = "What does the quick brown fox jump over?"
    private static let text = """
        The quick brown fox jumps over the lazy dog. Café naïve façade, Ångström; 3.14159 ≈ π. 北京大学 東京都 한국어. \
        Привет, мир! مرحبا بالعالم. नमस्ते दुनिया 🍕👩‍💻 MKTAYIAKQRQISFVKSHFSRQ
        """

    // MARK: Bytes

    /// The states of one rank, on rank 0.
    private func checkBytes(_ encoder: Encoder, _ documents: Documents) throws -> [[Float]] {
        session.monitor.progress(.encoding)
        let lengths = documents.ids.map(\.count)
        let (states, digest) = try session.agree {
            guard session.isRoot else { return ([[Float]](), "") }
            let states = try self.states(encoder, documents, ranks: 1, .passKeyValue, threads: session.threads.threads)
            return (states, Self.digest(states))
        }
        let place = notFinite.found
        let finite = place == nil && states.allSatisfy { $0.allSatisfy(\.isFinite) }
        let fault = place.map {
            "not finite from \($0.layer == 0 ? "the embeddings" : "layer \($0.layer)") on, tile \($0.tile) of document \($0.sequence)"
        }
        try check(
            "states", finite,
            "\(lengths.map(String.init).joined(separator: ", ")) tokens on 1 rank, \(finite ? "all finite" : fault ?? "not all finite"), "
                + "SHA-256 \(digest.prefix(16))…")
        let strategies = session.settings.strategy.map { [$0] } ?? Strategy.allCases
        for ranks in options.ranks {
            let others = try session.agree {
                guard session.isRoot else { return [String]() }
                return try strategies.filter {
                    Self.digest(try self.states(encoder, documents, ranks: ranks, $0, threads: 1)) != digest
                }.map(\.rawValue)
            }
            let what = strategies.count == 1 ? strategies[0].rawValue : "\(strategies.count) strategies"
            try check(
                "\(ranks) virtual", others.isEmpty,
                others.isEmpty
                    ? "the same bytes with \(what)"
                    : "other bytes than on 1 rank with \(others.joined(separator: ", "))")
        }
        if session.transport.size > 1 {
            let found = try digestOfJob(encoder, documents)
            try check(
                "\(session.transport.size) of the job", found == digest,
                found == digest ? "the same bytes" : "other bytes than on 1 rank, SHA-256 \(found.prefix(16))…")
        }
        return states
    }

    /// Every document's states, on so many virtual ranks.
    private func states(_ encoder: Encoder, _ documents: Documents, ranks: Int, _ strategy: Strategy, threads: Int)
        throws -> [[Float]]
    {
        let width = encoder.configuration.hiddenSize
        let sharding = EncoderRun.sharding(
            lengths: documents.ids.map(\.count), encoder: encoder, layout: session.settings.layout, rankCount: ranks)
        let (monitor, wire, notFinite) = (session.monitor, session.settings.wire, notFinite)
        let parts = try VirtualRanks.run(count: ranks, seed: options.seed) { transport in
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, strategy: strategy, wire: wire, transport: transport,
                threads: ThreadPool(threads: threads), progressed: { monitor.progress() })
            try run.run(ids: documents.ids, typeIds: documents.typeIds)
            run.notFinite.map(notFinite.add)
            return withExtendedLifetime(run) {
                run.tiles.map { tile in
                    (
                        tile.sequence, tile.tokens,
                        Array(
                            UnsafeBufferPointer(
                                start: run.hidden.pointer + tile.firstRow * width, count: tile.tokens.count * width))
                    )
                }
            }
        }
        var states = documents.ids.map { Array(repeating: Float.nan, count: $0.count * width) }
        for (sequence, tokens, rows) in parts.joined() {
            states[sequence].replaceSubrange(tokens.lowerBound * width..<tokens.upperBound * width, with: rows)
        }
        return states
    }

    private static func digest(_ states: [[Float]]) -> String {
        var hash = SHA256()
        for document in states { document.withUnsafeBytes { hash.update(bufferPointer: $0) } }
        return hash.finalize().map { String(format: "%02x", $0) }.joined()
    }

    /// The digest of the states that the ranks of this job compute, on rank 0.
    private func digestOfJob(_ encoder: Encoder, _ documents: Documents) throws -> String {
        let width = encoder.configuration.hiddenSize
        let problem = session.problem(
            lengths: documents.ids.map(\.count), encoder.configuration, element: encoder.element,
            layout: session.settings.layout, speeds: try session.relativeSpeeds())
        let footprint = try encoder.configuration.footprint(
            encoder.element, threads: session.threads.threads, weights: false)
        let decision = try session.decide(problem, footprint, session.settings.strategy)
        let run = try session.encoderRun(encoder, problem.queries, decision.strategy)
        try run.run(ids: documents.ids, typeIds: documents.typeIds)
        return try withExtendedLifetime(run) {
            try session.digest(problem.queries, rowBytes: width * 4) { first, count in
                UnsafeRawBufferPointer(start: run.hidden.pointer + first * width, count: count * width * 4)
            }
        }
    }

    // MARK: The reference

    private func checkStates(_ states: [[Float]], _ encoder: Encoder, _ documents: Documents) throws {
        if session.settings.element == .bfloat16 || session.settings.wire == .bfloat16 {
            return try report(
                "not verified", "states against float64: there is no bound for bfloat16; leave out --dtype and --wire")
        }
        let monitor = session.monitor
        var layers: [Agreement] = []
        let agreement = try session.agree { () -> Agreement? in
            guard session.isRoot else { return nil }
            let found = try layerStates(encoder, documents)
            let reference = ReferenceEncoder(configuration, parameters: checkpoint, threads: session.threads)
            var plainLayers: [[[Float]]] = []
            let plain = try reference.plainStates(ids: documents.ids, typeIds: documents.typeIds) {
                plainLayers.append($1)
                monitor.progress(.encoding, layer: $0)
            }
            let exact = try reference.exactStates(ids: documents.ids, typeIds: documents.typeIds) { layer, exact in
                layers.append(Agreement(states: found[layer - 1], exact: exact, plain: plainLayers[layer - 1]))
                plainLayers[layer - 1] = []
                monitor.progress(.encoding, layer: layer)
            }
            return Agreement(states: states, exact: exact, plain: plain)
        }
        func number(_ value: Double) -> String { String(format: "%.2e", value) }
        for layer in 1...max(1, configuration.layerCount) {
            let told = layers.indices.contains(layer - 1) ? layers[layer - 1] : nil
            try report(
                "layer \(layer)",
                told.map {
                    "off by \(number($0.error)) of \(number($0.scale)) from float64; plain float32 by \(number($0.plainError))"
                } ?? "")
        }
        try check(
            "float64", agreement?.holds ?? true,
            agreement.map {
                "off by \(number($0.error)) of \(number($0.scale)); plain float32 by \(number($0.plainError)), allowed \(number($0.allowed))"
            } ?? "")
    }

    /// Every document's states behind each layer, of one rank.
    private func layerStates(_ encoder: Encoder, _ documents: Documents) throws -> [[[Float]]] {
        let width = encoder.configuration.hiddenSize
        let (threads, wire) = (session.threads.threads, session.settings.wire)
        var layers = Array(repeating: [[Float]](), count: configuration.layerCount)
        for (ids, typeIds) in zip(documents.ids, documents.typeIds) {
            let sharding = EncoderRun.sharding(
                lengths: [ids.count], encoder: encoder, layout: session.settings.layout, rankCount: 1)
            let found = try VirtualRanks.run(count: 1, seed: options.seed) { transport in
                let run = try EncoderRun(
                    encoder: encoder, sharding: sharding, strategy: .passKeyValue, wire: wire, transport: transport,
                    threads: ThreadPool(threads: threads))
                var states: [[Float]] = []
                try run.run(ids: [ids], typeIds: [typeIds]) { _, _ in
                    states.append(
                        Array(UnsafeBufferPointer(start: run.hidden.pointer, count: ids.count * width)))
                }
                return states
            }[0]
            for (layer, states) in found.enumerated() { layers[layer].append(states) }
        }
        return layers
    }

    /// What the heads are, of which nothing is computed.
    private func reportHeads() throws {
        if !audit.tasks.isEmpty {
            try report(
                "not verified", "the values of task heads: " + audit.tasks.map(\.rawValue).joined(separator: ", "))
        }
    }
}

/// The first place that any of some runs names.
private final class FirstNotFinite: Sendable {
    private let place = Mutex<EncoderRun.NotFinite?>(nil)

    var found: EncoderRun.NotFinite? { place.withLock { $0 } }

    func add(_ found: EncoderRun.NotFinite) { place.withLock { $0 = min($0 ?? found, found) } }
}

/// Token ids by their place, uniform over the vocabulary.
private struct SeededIds {
    let seed: UInt64
    let count: Int

    func id(_ place: Int) -> Int32 {
        Int32(mixed((seed &+ 1) &* Stride.number &+ UInt64(place) &* Stride.stream) % UInt64(count))
    }
}
