// `annulus init`: a checkpoint of a published shape with random weights.

import ArgumentParser
import Files
import Foundation
import Pipelines
import Transformers

struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a model of a published shape with random weights, in Hugging Face format.",
        discussion: """
            Writes config.json and model.safetensors (float32) into the folder: normal-like weights with standard deviation \
            0.02, norms at one, biases at zero. The same seed gives the same bytes. There is no tokenizer: the input of such \
            a model is token ids.
            """)

    @Option(help: "One of: \(PublishedShape.list).")
    var shape: String

    @Option(help: "The longest document, in tokens. Default: that of the published model.")
    var positions: Int?

    @Option(name: [.short, .long], help: "The folder to make.")
    var output: String

    @Option(help: "The seed of the weights.")
    var seed: UInt64 = 0

    @OptionGroup var runOptions: RunOptions

    @Flag(help: "Overwrite config.json and model.safetensors in a folder that exists.")
    var force = false

    mutating func validate() throws {
        if PublishedShape.named(shape) == nil {
            throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)")
        }
        if let positions, !(1...(1 << 24)).contains(positions) {
            throw ValidationError("--positions takes 1 to \(1 << 24), not \(positions)")
        }
    }

    func run() throws {
        let command = self
        try Session.run(self, runOptions, needs: []) { try command.write($0) }
    }

    /// Rank 0 writes; the files get their names when both are whole.
    private func write(_ session: Session) throws {
        guard let published = PublishedShape.named(shape) else { return }
        let (config, weights) = (output + "/config.json", output + "/model.safetensors")
        try session.agree {
            guard session.isRoot else { return }
            for path in [config, weights] where FileBytes.exists(path) && !force {
                throw JobError(.cannotCreate, "\(path): exists; choose another folder or overwrite it with --force")
            }
            do {
                try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
            } catch {
                throw JobError(
                    .cannotCreate, "\(output): the folder cannot be made (\(error.localizedDescription)); name another")
            }
        }
        let configuration = try published.configuration(positions: positions)
        let parameters = try ParameterTree(configuration).parameters
        let layout = SafetensorsLayout(
            tensors: parameters.map { ($0.name, .float32, $0.shape) }, metadata: ["format": "pt"])
        let source = RandomParameters(seed: seed)
        let text = Array(published.config(positions: positions).utf8)
        let weightsFile = try ParallelFile.create(
            weights, force: force, transport: session.transport, size: layout.totalBytes)
        let configFile = try ParallelFile.create(config, force: force, transport: session.transport, size: text.count)
        try text.withUnsafeBytes { try configFile.write(session.isRoot ? [(0, $0)] : []) }
        try layout.headerBytes.withUnsafeBytes { try weightsFile.write(session.isRoot ? [(0, $0)] : []) }
        for parameter in parameters {
            let values = session.isRoot ? try source.read(parameter.name, shape: parameter.shape) : []
            try values.withUnsafeBytes {
                try weightsFile.write(session.isRoot ? [(layout.offset(of: parameter.name), $0)] : [])
            }
            session.monitor.progress()
        }
        try configFile.commit()
        try weightsFile.commit()
    }
}
