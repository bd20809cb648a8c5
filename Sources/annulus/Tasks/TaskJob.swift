// What the verbs of task heads share: the head, documents as tokens, as they come, and lines that leave in input order.

import ArgumentParser
import Checkpoints
import Foundation
import RingAttention
import Tiles
import Tokenization
import Transformers

/// The options of every task verb.
struct TaskOptions: ParsableArguments {
    @OptionGroup var model: ModelOptions
    @OptionGroup var input: InputOptions
    @OptionGroup var spread: RunOptions

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
}

/// A model with a head, and documents for it.
struct TaskJob {
    let job: EncodingJob
    let head: TaskHead
    let labels: LabelSet
    private let options: TaskOptions
    private let output: LineOutput
    private var session: Session { job.session }

    /// Loads everything. Collective.
    init(_ task: Task, _ options: TaskOptions, _ session: Session) throws {
        self.options = options
        job = try EncodingJob(model: options.model, input: options.input, session: session, obeysSettings: false)
        let model = job.model
        let path = model.folder + "/config.json"
        let labels = try session.agree { try LabelSet(model.checkpoint.config, path: path) }
        self.labels = labels
        head = try session.loadWeights { storage in
            try TaskHead(
                task, labels: labels.names.count, config: model.checkpoint.config, path: path,
                configuration: model.encoder.configuration,
                parameters: model.checkpoint, storage: storage, element: session.options.dtype, kernels: session.kernels
            )
        }
        output = try LineOutput(options.output, force: options.force, session)
    }

    var model: LoadedModel { job.model }

    /// Calls `body` with the documents in portions, as they come. Collective.
    func forEachPortion(_ body: (DocumentStream.Portion) throws -> Void) throws {
        while let portion = try job.stream.next() { try body(portion) }
        try output.finish()
    }

    /// The tokenizer, which this task cannot do without.
    func tokenizer() throws -> Tokenizer {
        try session.agree {
            guard let tokenizer = job.tokenizer else {
                throw FileError(
                    .missing, path: model.folder + "/tokenizer.json",
                    "no such file; this verb needs the model's tokenizer")
            }
            return tokenizer
        }
    }

    /// A document's tokens.
    /// - Throws: `FileError` where it is too long, naming the limit.
    func encoding(of document: Document) throws(FileError) -> Encoding {
        let limit = job.preparation().maximumLength
        var encoding = Encoding()
        switch document.content {
        case .ids(let ids):
            encoding.ids = ids
            encoding.typeIds = ids.map { _ in 0 }
            encoding.offsets = ids.indices.map { $0..<$0 + 1 }
            encoding.specialTokensMask = ids.map { _ in false }
        case .text(let text):
            guard let tokenizer = job.tokenizer else {
                throw FileError(
                    .missing, path: document.source,
                    "is text, and the model has no tokenizer.json; give token ids instead")
            }
            encoding = document.pair.map { tokenizer.encode(text, pair: $0) } ?? tokenizer.encode(text)
        }
        if encoding.ids.isEmpty {
            throw FileError(
                .malformed, path: document.source, "has no tokens; this tokenizer adds none to an empty text")
        }
        if encoding.count > limit {
            let suffix = encoding.specialTokensMask.reversed().prefix { $0 }.count
            guard options.input.truncate == .right, limit > suffix else {
                throw FileError(
                    .malformed, path: document.source,
                    "has \(encoding.count) tokens, and the limit is \(limit); cut it with --truncate right, or use a model of more positions"
                )
            }
            session.log.warning("\(document.source) was cut to the limit (--truncate right)")
            let kept = Array(0..<limit - suffix) + Array(encoding.count - suffix..<encoding.count)
            encoding = encoding.selecting(kept)
        }
        return encoding
    }

    /// Some documents' tokens, on every rank. Collective.
    func encodings(_ documents: [Document]) throws -> [Encoding] {
        session.watchdog.progress(.tokenizing)
        return try session.agree {
            try documents.map { document in
                session.watchdog.progress()
                return try encoding(of: document)
            }
        }
    }

    /// Encodes sequences in batches and writes what `lines` makes of each batch, in input order. Collective.
    /// - Parameters:
    ///   - documents: what the sequences are of: each of one, or as `owners` says.
    ///   - lines: gets the run and which of the sequences it holds; its text counts on rank 0 alone.
    func run(
        _ encodings: [Encoding], of documents: [Document], owners: [Int]? = nil,
        lines: (EncoderRun, Range<Int>) throws -> String
    ) throws {
        let corpus = Corpus(
            items: encodings.enumerated().map { number, encoding in
                Corpus.Item(
                    document: owners?[number] ?? number, ids: encoding.ids, typeIds: encoding.typeIds, start: 0, end: 0,
                    spans: [(0..<encoding.count, 0, 0)])
            }, sources: documents.map(\.source), texts: [])
        try session.encode(corpus, with: model.encoder) { run, items in try output.write(try lines(run, items)) }
    }

    /// The head's logits of every token of a batch on rank 0: for each sequence, tokens × outputs. Collective.
    func tokenLogits(_ run: EncoderRun, _ count: Int) throws -> [[Float]] {
        let mine = run.tiles.map { tile in
            (
                span: tile.number,
                vector: run.logits(head) { $0.number == tile.number ? Array(0..<tile.tokens.count) : [] }.flatMap(
                    \.values)
            )
        }
        var result = Array(repeating: [Float](), count: count)
        for (tile, values) in try session.gather(mine) { result[run.sharding.numbering.sequence(of: tile)] += values }
        return result
    }
}

extension Encoding {
    /// Some of the tokens, in the order given.
    func selecting(_ tokens: [Int]) -> Encoding {
        var result = Encoding()
        result.ids = tokens.map { ids[$0] }
        result.offsets = tokens.map { offsets[$0] }
        result.specialTokensMask = tokens.map { specialTokensMask[$0] }
        result.typeIds = tokens.map { typeIds[$0] }
        if !words.isEmpty { result.words = tokens.map { words[$0] } }
        if !sequences.isEmpty { result.sequences = tokens.map { sequences[$0] } }
        return result
    }
}

/// The text of some Unicode scalars of a string.
func scalars(_ text: String, _ range: Range<Int>) -> String {
    let scalars = text.unicodeScalars
    let start =
        scalars.index(scalars.startIndex, offsetBy: range.lowerBound, limitedBy: scalars.endIndex) ?? scalars.endIndex
    let end = scalars.index(start, offsetBy: range.count, limitedBy: scalars.endIndex) ?? scalars.endIndex
    return String(scalars[start..<end])
}

/// The tokens of a model that have a meaning of their own, as its tokenizer's files name them.
struct NamedTokens {
    private let names: [String: String]

    init(folder: String) throws(FileError) {
        var names: [String: String] = [:]
        for file in ["special_tokens_map.json", "tokenizer_config.json"] where FileBytes.exists(folder + "/" + file) {
            let json = try JSON.load(path: folder + "/" + file)
            for key in ["mask_token", "unk_token", "pad_token", "cls_token"] {
                if let name = json[key]?.string ?? json[key]?["content"]?.string { names[key] = name }
            }
        }
        self.names = names
    }

    /// The id of `mask_token`, …; where the files do not name it, that of the usual spellings.
    func id(_ key: String, _ tokenizer: Tokenizer, usual: [String]) -> Int32? {
        if let name = names[key] { return tokenizer.id(of: name) }
        return usual.lazy.compactMap { tokenizer.id(of: $0) }.first
    }
}
