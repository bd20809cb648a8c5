// The options that verbs share.

import ArgumentParser
import Foundation
import Matrices
import Pipelines
import Plans

/// How a job is spread over ranks and threads, watched and reported.
struct RunOptions: ParsableArguments {
    @Option(
        help:
            "Threads of each rank. Default: OMP_NUM_THREADS, else the rank's share of the cores that it may run on and its cgroup's quota allows."
    )
    var threads: Int?

    @Option(help: "Run P ranks inside this process instead of under mpirun.")
    var virtualRanks: Int?

    @Option(
        help: """
            Let at most so many neighbouring ranks of a host share memory, which saves them messages; 1: none. Default: all ranks \
            of a host, and virtual ranks none.
            """)
    var ranksPerNode: Int?

    @Option(
        name: .customLong("layout"),
        help: """
            How tiles are dealt out to ranks: contiguous, zigzag, or balanced (equal modelled cost, ranks weighted by measured speed). \
            Default: contiguous; for batches of documents, balanced with equal speeds where that is more even or keeps them whole.
            """)
    var askedLayout: Layout?

    @Option(
        help: """
            Who computes what: \(Strategy.allCases.map { "\($0.rawValue) (\($0.summary))" }.joined(separator: ", ")), \
            or auto: the one that is predicted to be fastest and fits into memory, from the \
            speeds of ranks and links, which are measured in some tenths of a second and kept for a day. The bits are the same.
            """)
    var strategy: StrategyName = .auto

    @Option(
        help: "Storage type of weights, keys and values: float32 or bfloat16. Sums, statistics and results are float32."
    )
    var dtype: ElementKind = .float32

    @Option(
        help: """
            Type in which keys and values travel. Default: that of --dtype. bfloat16 with --dtype float32 halves their bytes: they are \
            rounded where they are made, on any number of ranks, so the bits stay the same; all else is float32.
            """)
    var wire: ElementKind?

    @Option(help: "End the job when a rank is silent, or nothing moves anywhere, for this many seconds; 0 never.")
    var watchdog: Double = 300

    @Option(help: "Progress on standard error, for work over a second: auto (a terminal), always or never.")
    var progress: ProgressMode = .auto

    @Flag(help: "Print nothing on standard error but errors.")
    var quiet = false

    @OptionGroup var report: ReportOptionGroup

    mutating func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads takes 1 to 1024, not \(threads)")
        }
        if let virtualRanks, !(1...1024).contains(virtualRanks) {
            throw ValidationError("--virtual-ranks takes 1 to 1024, not \(virtualRanks)")
        }
        if let ranksPerNode, ranksPerNode < 1 {
            throw ValidationError("--ranks-per-node takes a positive number, not \(ranksPerNode)")
        }
        if wire == .float32, dtype == .bfloat16 {
            throw ValidationError(
                "--wire float32 with --dtype bfloat16: there is no more to send than is stored; leave --wire out")
        }
        if !(0...1e9).contains(watchdog) {
            throw ValidationError("--watchdog takes seconds, 0 for never, not \(watchdog)")
        }
        if quiet, report.summary == true {
            throw ValidationError("--quiet prints nothing on standard error but errors, and --summary does: choose one")
        }
    }

    /// How the job runs.
    var job: JobOptions { JobOptions(virtualRanks: virtualRanks, threads: threads, watchdogSeconds: watchdog) }

    /// How it is spread over ranks.
    var settings: Settings {
        var settings = Settings()
        settings.element = dtype
        settings.wire = wire
        settings.strategy = strategy.named
        settings.askedLayout = askedLayout
        settings.ranksPerNode = ranksPerNode
        return settings
    }
}

/// What is kept of a job beside its results.
struct ReportOptionGroup: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Write a trace: what each rank computed, exchanged, merged and waited for, on one clock, in the JSON of Chrome's trace events, \
            for ui.perfetto.dev or chrome://tracing. It is written when the job is done, and replaces a file of that name.
            """, valueName: "file"))
    var trace: String?

    @Flag(
        inversion: .prefixedNo,
        help: """
            Sum the job up at its end: tokens a second, share of the peak, time by phase, bytes sent, peak memory of the largest rank, \
            and what would help. Default: where standard error is a terminal, of jobs of a second or longer.
            """)
    var summary: Bool?

    @Option(
        help: ArgumentHelp(
            "Keep a log of each rank in this folder, rank-N.log: what it was busy with when, notes, warnings and errors.",
            valueName: "folder"))
    var logDir: String?

    mutating func validate() throws {
        if trace == "" { throw ValidationError("--trace takes a file, and its name is empty") }
        if logDir == "" { throw ValidationError("--log-dir takes a folder, and its name is empty") }
    }

    /// As a session takes them.
    /// - Parameter quiet: whether nothing is to be said.
    func options(quiet: Bool) -> ReportOptions {
        ReportOptions(trace: trace, sums: summary ?? (quiet ? false : nil), logFolder: logDir)
    }
}

extension Layout: ExpressibleByArgument {}

/// The strategy that is asked for.
enum StrategyName: ExpressibleByArgument, Equatable {
    case auto
    case named(Strategy)

    init?(argument: String) {
        if argument == "auto" {
            self = .auto
        } else if let strategy = Strategy(rawValue: argument) {
            self = .named(strategy)
        } else {
            return nil
        }
    }

    static var allValueStrings: [String] { ["auto"] + Strategy.allCases.map(\.rawValue) }
    var defaultValueDescription: String { name }

    var name: String { named?.rawValue ?? "auto" }

    /// The strategy that is asked for by name.
    var named: Strategy? { if case .named(let strategy) = self { strategy } else { nil } }
}

extension ElementKind: ExpressibleByArgument {}

extension ProgressMode: ExpressibleByArgument {}

/// Which model.
struct ModelOptions: ParsableArguments {
    @Option(
        name: [.short, .long],
        help:
            "A model's folder as Hugging Face and sentence-transformers have it: config.json, weights and a tokenizer; or org/name in the Hugging Face cache."
    )
    var model: String
}

/// Whether a job is saved as it goes on.
struct ResumeOptions: ParsableArguments {
    @Flag(
        help: """
            Begin a job that can be continued, or continue it: after a signal, a crash or a full disk the same command goes on where \
            the job was saved last, on any number of ranks, to the same bytes. Until it is done there are, beside the output, \
            OUTPUT.journal (see inspect), OUTPUT.partial and, for long documents, OUTPUT.states. SIGUSR1 saves at the next layer \
            or batch and ends with status 75. A job that differs in a file or an option that changes the output is refused with 65; \
            --force begins anew.
            """)
    var resume = false

    @Option(
        help: """
            With --resume, save the work on a document that ranks share after so many seconds, between two layers. \
            Finished batches are saved at once, or as often as takes a fiftieth of the time.
            """)
    var saveSeconds: Double = 600

    mutating func validate() throws {
        if !(0...1e9).contains(saveSeconds) {
            throw ValidationError("--save-seconds takes seconds, not \(saveSeconds)")
        }
    }

    /// Refuses a job that cannot be continued.
    func check(output: String?, input: [String]) throws {
        guard resume else { return }
        if output == nil {
            throw ValidationError("--resume keeps what is done beside the output: name a file with --output")
        }
        if input.contains("-") {
            throw ValidationError(
                "--resume reads the input again, and standard input comes but once: put it into a file and name it with --input"
            )
        }
    }

    /// How the job is saved and continued; nil: it is not.
    /// - Parameter inputs: the files that the command reads beside the model's, with what errors call them.
    func request(_ command: some ParsableCommand, inputs: [(name: String, paths: [String])]) -> ResumeRequest? {
        guard resume else { return nil }
        Interruption.keep()
        return ResumeRequest(facts: AskedOptions(command).facts, inputs: inputs, saveSeconds: saveSeconds)
    }
}

/// Where results go.
struct OutputOptions: ParsableArguments {
    /// What help says of standard output, which `mpirun` reads and hands on without looking whether that succeeds.
    static let underMPIRun =
        "Under mpirun name a file: mpirun hands standard output on, and ends with 0 even where a full disk cut it."

    @Option(
        name: [.short, .long],
        help: ArgumentHelp(
            "Output file: .npy, .safetensors or .jsonl. Default: JSON lines on standard output. \(underMPIRun)"))
    var output: String?

    @Flag(help: "Overwrite an output that exists.")
    var force = false

    mutating func validate() throws {
        if let output, OutputFormat(path: output) == nil {
            throw ValidationError("--output '\(output)' needs a name that ends in .npy, .safetensors or .jsonl")
        }
    }

    /// The standard streams that results go to.
    var streams: [StandardStream] { output == nil ? [.output] : [] }

    /// The format that the name asks for; JSON lines where there is none.
    var format: OutputFormat { output.flatMap { OutputFormat(path: $0) } ?? .jsonLines }
}

/// Which documents.
struct InputOptions: ParsableArguments {
    @Option(name: [.short, .long], parsing: .upToNextOption, help: "Input files; - is standard input.")
    var input: [String] = ["-"]

    @Option(
        help: """
            text (a file is a document), lines, jsonl, ids (each line a JSON array of token ids, special tokens in place) or fasta \
            (a record is a document: its lines joined, in capitals, without a `*` at the end). Default: by suffix (.jsonl, .ndjson, \
            .ids, .fasta, .fa, .faa, .fas, in any case, else text; a .json that holds lines of JSON is read as such); standard input \
            is lines.
            """)
    var inputFormat: InputFormat?

    @Option(help: "The field of a jsonl object that holds the text.")
    var textField: String = "text"

    @Option(
        help: """
            Refuse documents of more tokens than this, or cut them with --truncate: a number, or model, the length that the model's \
            files say it was trained for. Default: the model's positions; a model whose positions are computed (rotary, ALiBi) \
            also takes more.
            """)
    var maxLength: MaximumLength?

    @Option(
        help: """
            What happens to a document over the limit: error; right, which cuts its end, of a pair that of the longer text first; \
            first or second, which cut that text of a pair alone. What is cut is said.
            """)
    var truncate: Truncation = .error

    /// Where documents come from, and how long they may be.
    var documents: DocumentInput {
        var documents = DocumentInput(paths: input)
        documents.format = inputFormat
        documents.textField = textField
        documents.limit = maxLength?.limit ?? .positions
        documents.truncation = truncate
        return documents
    }

    /// The standard streams that documents come from.
    var streams: [StandardStream] { input.contains("-") ? [.input] : [] }
}

/// A limit that is asked for: a number of tokens, or `model`.
enum MaximumLength: ExpressibleByArgument, Equatable {
    case tokens(Int)
    case model

    init?(argument: String) {
        if argument == "model" {
            self = .model
        } else if let tokens = Int(argument), tokens > 0 {
            self = .tokens(tokens)
        } else {
            return nil
        }
    }

    var defaultValueDescription: String { if case .tokens(let count) = self { String(count) } else { "model" } }

    var limit: LengthLimit { if case .tokens(let count) = self { .tokens(count) } else { .trained } }
}

extension InputFormat: ExpressibleByArgument {}

extension Truncation: ExpressibleByArgument {}
