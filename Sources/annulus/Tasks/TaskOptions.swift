// What the verbs of task heads take.

import ArgumentParser
import Pipelines

/// The options of every task verb.
struct TaskOptions: ParsableArguments {
    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var runOptions: RunOptions

    @Option(
        name: [.short, .long],
        help: ArgumentHelp("Output file, .jsonl. Default: standard output. \(OutputOptions.underMPIRun)"))
    var output: String?

    @Flag(help: "Overwrite an output that exists.")
    var force = false

    mutating func validate() throws {
        if let output, !output.hasSuffix(".jsonl") {
            throw ValidationError("--output '\(output)' needs a name that ends in .jsonl")
        }
    }

    /// The standard streams that the task reads and writes.
    var streams: [StandardStream] { input.streams + (output == nil ? [.output] : []) }

    /// Runs a task for every document.
    func run(
        _ command: some ParsableCommand,
        _ task: @escaping @Sendable (String, DocumentInput, LineDestination, Session) throws -> Void
    ) throws {
        let (model, documents) = (model.model, input.documents)
        let lines = LineDestination(path: output, force: force)
        try Session.run(command, runOptions, needs: streams) { try task(model, documents, lines, $0) }
    }
}

extension LineDestination {
    /// A file, or standard output.
    init(path: String?, force: Bool) {
        self = path.map { .file(OutputFile(path: $0, mayReplace: force)) } ?? .stream { try StandardStream.write($0) }
    }
}
