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

    @OptionGroup var resuming: ResumeOptions

    mutating func validate() throws {
        if let output, !output.hasSuffix(".jsonl") {
            throw ValidationError("--output '\(output)' needs a name that ends in .jsonl")
        }
        try resuming.check(output: output, input: input.input)
    }

    /// The standard streams that the task reads and writes.
    var streams: [StandardStream] { input.streams + (output == nil ? [.output] : []) }

    /// Runs a task for every document.
    /// - Parameter files: what it reads beside the documents, with the options that name it.
    func run(
        _ command: some ParsableCommand, reading files: [(name: String, path: String?)] = [],
        _ task: @escaping @Sendable (String, DocumentInput, LineDestination, Session) throws -> Void
    ) throws {
        let (model, documents) = (model.model, input.documents)
        let inputs = [("the input", input.input)] + files.compactMap { file in file.path.map { (file.name, [$0]) } }
        let resume = resuming.request(command, inputs: inputs)
        let lines = LineDestination(output.map { OutputFile(path: $0, mayReplace: force, resume: resume) })
        try Session.run(command, runOptions, needs: streams) { try task(model, documents, lines, $0) }
    }
}

extension LineDestination {
    /// A file, or standard output.
    init(_ file: OutputFile?) {
        self = file.map { .file($0) } ?? .stream { try StandardStream.write($0) }
    }
}
