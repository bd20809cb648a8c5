// `annulus bench train`: steps of masked-language-model training on all ranks.

import ArgumentParser
import Crypto
import Files
import Foundation
import Pipelines
import Transformers

struct BenchTrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Time steps of masked-language-model training: forward, backward, update and the exchange of both.")

    @OptionGroup var bench: BenchOptions

    @Option(help: "Tokens of each document.")
    var length: Int = 8192

    @Option(help: "Documents of a step.")
    var documents: Int = 1

    @Option(help: "A published shape with random weights, positions extended to the length: \(PublishedShape.list).")
    var shape: String = "minilm"

    mutating func validate() throws {
        if !(1...100_000_000).contains(length) { throw ValidationError("--length takes 1 to 100000000, not \(length)") }
        if !(1...1_000_000).contains(documents) {
            throw ValidationError("--documents takes 1 to 1000000, not \(documents)")
        }
        if PublishedShape.named(shape) == nil {
            throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)")
        }
        if bench.run.dtype != .float32 { throw ValidationError("--dtype bfloat16: weights are trained in float32") }
    }

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        try session.logHeader("bench train")
        let config = try session.agree { () -> JSON in
            guard let shape = PublishedShape.named(shape) else {
                throw JobError(.usage, "--shape '\(shape)' is unknown")
            }
            let positions = max(try shape.configuration().positionCount, length)
            return try JSON.parse(Array(shape.config(positions: positions).utf8), path: "shape \(shape.name)")
        }
        let training = try TrainingBenchmark(
            config: config, named: "shape \(shape)", lengths: Array(repeating: length, count: documents),
            seed: bench.seed, session)
        let measurement = try session.measure(repetitions: bench.repetitions) {
            try training.run()
            return .zero
        }
        let sha256 = SHA256.hash(data: training.weights).map { String(format: "%02x", $0) }.joined()
        let tokens = Double(length * documents)
        let row = BenchRow(
            fields: [
                ("bench", .text("train")), ("model", .text(shape)), ("length", .integer(length)),
                ("documents", .integer(documents)), ("tokens_per_second", .number(tokens / measurement.median)),
                ("predicted_bytes", .integer(Int(training.predictedBytes))),
                ("weight_bytes", .integer(training.weights.count)),
            ] + measurement.fields(session: session, flop: training.flop(), sha256: sha256))
        try session.agree { try session.printLines(row.text(bench.format)) }
    }
}
