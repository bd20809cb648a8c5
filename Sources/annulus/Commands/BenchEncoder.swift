// `annulus bench encoder`: one long document through an encoder on all ranks.

import ArgumentParser
import Checkpoints
import Files
import Foundation
import Matrices
import Pipelines
import Plans
import RingAttention
import Tiles
import Transformers

struct BenchEncoder: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "encoder", abstract: "Time an encoder on one document, from token ids to hidden states.")

    @OptionGroup var bench: BenchOptions

    @Option(help: "Tokens of the document.")
    var length: Int = 8192

    @Option(name: [.short, .long], help: "A folder or org/name; its positions must reach the length.")
    var model: String?

    @Option(help: "A published shape with random weights, positions extended to the length: \(PublishedShape.list).")
    var shape: String?

    mutating func validate() throws {
        if !(1...1_000_000_000).contains(length) {
            throw ValidationError("--length takes 1 to 1000000000, not \(length)")
        }
        if (model == nil) == (shape == nil) { throw ValidationError("give either --model or --shape") }
        if let shape, PublishedShape.named(shape) == nil {
            throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)")
        }
    }

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        try session.logHeader("bench encoder")
        session.monitor.progress(.reading)
        let configuration = try session.agreeReading { try self.configuration() }
        let footprint = try configuration.footprint(session.settings.element, threads: session.threads.threads)
        let problem = session.problem(
            lengths: [length], configuration, element: session.settings.element, layout: session.settings.layout,
            speeds: try session.relativeSpeeds())
        session.monitor.progress(.planning)
        let decision = try session.decide(problem, footprint, session.settings.strategy, predicts: true)
        session.monitor.progress(.reading)
        let encoder = try session.loadWeights {
            try load(configuration, into: $0, session.settings.element, session.kernels)
        }
        let width = configuration.hiddenSize
        let vocabulary = UInt64(configuration.vocabularySize)
        let ids = (0..<length).map { index in
            Int32(truncatingIfNeeded: (UInt64(index) &* Stride.number &+ bench.seed) >> 20 % vocabulary)
        }
        let sharding = problem.queries
        let monitor = session.monitor
        let run = try session.encoderRun(encoder, sharding, decision.strategy)
        let measurement = try session.measure(repetitions: bench.repetitions) {
            let before = run.exposed
            try run.run(ids: [ids]) { layer, _ in monitor.progress(.encoding, layer: layer) }
            return run.exposed - before
        }
        try session.correct(problem.heads, by: run.pace(problem.heads))
        let sha256 = try session.digest(sharding, rowBytes: width * 4) { first, count in
            UnsafeRawBufferPointer(start: run.hidden.pointer + first * width, count: count * width * 4)
        }
        withExtendedLifetime(run) {}
        let row = BenchRow(
            fields: [
                ("bench", .text("encoder")), ("model", .text(shape ?? model ?? "")), ("length", .integer(length)),
                ("dtype", .text(session.settings.element.rawValue)), ("strategy", .text(decision.strategy.rawValue)),
                ("layout", .text(session.settings.layout.rawValue)),
                ("predicted_seconds", .number(decision.predictedSeconds ?? .nan)),
            ]
                + measurement.fields(
                    session: session, flop: EncoderRun.flop(lengths: [length], configuration: configuration),
                    sha256: sha256))
        try session.agree { try session.printLines(row.text(bench.format)) }
    }

    /// The model's configuration, its positions extended to the length where the weights are random.
    private func configuration() throws -> EncoderConfiguration {
        if let model {
            let path = try ModelFolder.transformerFolder(named: model) + "/config.json"
            let configuration = try EncoderConfiguration(JSON.load(path: path), path: path)
            guard configuration.positionCount >= length else {
                throw JobError(
                    .usage,
                    "--length \(length) is more than the model's \(configuration.positionCount) positions; use --shape for longer ones"
                )
            }
            return configuration
        }
        guard let shape = shape.flatMap(PublishedShape.named) else {
            throw JobError(.usage, "give either --model or --shape")
        }
        var configuration = try shape.configuration()
        configuration.positionCount = max(configuration.positionCount, length)
        return configuration
    }

    private func load(
        _ configuration: EncoderConfiguration, into storage: WeightStorage, _ element: ElementKind, _ kernels: KernelSet
    ) throws -> Encoder {
        if let model {
            return try Encoder(
                Checkpoint(folder: Checkpoint.resolve(model)), storage: storage, element: element, kernels: kernels)
        }
        return try Encoder(
            configuration, parameters: RandomParameters(seed: bench.seed), storage: storage, element: element,
            kernels: kernels)
    }
}
