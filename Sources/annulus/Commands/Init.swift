// `annulus init`: a checkpoint of a published shape with random weights.

import ArgumentParser
import Checkpoints
import Encoders
import Foundation

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

    @OptionGroup var spread: RunOptions

    @Flag(help: "Overwrite config.json and model.safetensors in a folder that exists.")
    var force = false

    mutating func validate() throws {
        if PublishedShape.named(shape) == nil { throw ValidationError("--shape '\(shape)' is unknown; known: \(PublishedShape.list)") }
        if let positions, !(1...(1 << 24)).contains(positions) {
            throw ValidationError("--positions takes 1 to \(1 << 24), not \(positions)")
        }
    }

    func run() throws {
        let command = self
        try Session.run(spread, needs: []) { session in
            try session.agree { if session.isRoot { try command.write(session.watchdog) } }
        }
    }

    private func write(_ watchdog: Watchdog) throws {
        guard let published = PublishedShape.named(shape) else { return }
        let (config, weights) = (output + "/config.json", output + "/model.safetensors")
        for path in [config, weights] where FileBytes.exists(path) && !force {
            throw JobError(.cannotCreate, "\(path): exists; choose another folder or overwrite it with --force")
        }
        let configuration = try published.configuration(positions: positions)
        let parameters = try configuration.parameters()
        let layout = SafetensorsLayout(tensors: parameters.map { ($0.name, .float32, $0.shape) }, metadata: ["format": "pt"])
        let source = RandomParameters(seed: seed)
        do {
            try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
            let part = weights + ".part"
            try Data().write(to: URL(fileURLWithPath: part))
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: part))
            try file.write(contentsOf: Data(layout.headerBytes))
            for parameter in parameters {
                // In the order of the layout, so that each starts where the one before ended.
                try source.read(parameter.name, shape: parameter.shape).withUnsafeBytes { try file.write(contentsOf: Data($0)) }
                watchdog.progress()
            }
            try file.close()
            try published.config(positions: positions).write(toFile: config, atomically: true, encoding: .utf8)
            if FileBytes.exists(weights) { try FileManager.default.removeItem(atPath: weights) }
            try FileManager.default.moveItem(atPath: part, toPath: weights)
        } catch let error as CocoaError {
            throw JobError(.cannotWrite, "\(output): cannot be written (\(error.localizedDescription))")
        }
    }
}
