// What the verbs of task heads share: the head, documents as tokens, as they come, and lines that leave in input order.

import Checkpoints
import Files
import Foundation
import RingAttention
import Tiles
import Tokenization
import Transformers

/// A model with a head, and documents for it.
struct TaskPipeline {
    package let encoding: EncodingPipeline
    package let head: TaskHead
    /// What the labels are called; of a task that prints none there are none.
    package let labels: LabelSet
    private let output: LineOutput
    private var session: Session { encoding.session }

    /// Loads everything. Collective.
    init(_ task: Task, model name: String, input: DocumentInput, output: LineDestination, _ session: Session) throws {
        encoding = try EncodingPipeline(
            model: name, input: input, session: session, lowercases: task == .sequenceClassification)
        let model = encoding.model
        let path = model.checkpoint.configPath
        let labels = try session.agree {
            task.hasLabels
                ? try LabelSet(model.checkpoint.config, path: path, scores: model.folder.scores) : LabelSet.none
        }
        self.labels = labels
        head = try session.loadWeights { storage in
            try TaskHead(
                task, labels: labels.names.count, config: model.checkpoint.config, path: path,
                configuration: model.encoder.configuration,
                parameters: model.checkpoint, storage: storage, element: session.settings.element,
                kernels: session.kernels)
        }
        self.output = try LineOutput(output, session)
    }

    package var model: LoadedModel { encoding.model }
    /// Documents that were done when the job was begun; as many as there may be where nothing is left to do.
    var documentsBefore: Int { output.documentsBefore }

    /// What ``carry(_:)`` was given last of a portion's first document, where that was begun in an earlier run.
    func carried(into portion: DocumentStream.Portion) -> [[Int]] {
        output.job.flatMap { $0.finished(from: portion.first) > 0 ? $0.carried : nil } ?? []
    }

    /// Keeps, with the next save, what the document that is begun has given so far: rows of three numbers. Counts on rank
    /// 0 alone.
    func carry(_ rows: [[Int]]) { output.job?.carried = rows }

    /// Calls `body` with the documents in portions, as they come. Collective.
    func forEachPortion(_ body: (DocumentStream.Portion) throws -> Void) throws {
        if output.documentsBefore == .max { return }
        encoding.stream.skip(output.documentsBefore)
        while let portion = try encoding.stream.next() { try body(portion) }
        try output.finish()
    }

    /// The tokenizer, which this task cannot do without.
    package func tokenizer() throws -> Tokenizer {
        try session.agree {
            guard let tokenizer = encoding.tokenizer else {
                throw FileError(
                    .missing, path: model.checkpoint.folder + "/tokenizer.json",
                    "no such file; this verb needs the model's tokenizer")
            }
            return tokenizer
        }
    }

    /// Some documents' tokens, on every rank. Collective.
    /// - Throws: `AgreedFailure` where one is too long, naming the limit.
    func encodings(_ documents: [Document]) throws -> [Encoding] { try encoding.encodings(documents) }

    /// Encodes sequences in batches and writes what `lines` makes of each batch, in input order. Collective.
    /// - Parameters:
    ///   - portion: what the sequences are of: each of one document, or as `owners` says.
    ///   - lines: gets the run and which of the sequences it holds; its text counts on rank 0 alone.
    package func run(
        _ encodings: [Encoding], of portion: DocumentStream.Portion, owners: [Int]? = nil,
        lines: (EncoderRun, Range<Int>) throws -> String
    ) throws {
        var corpus = Corpus(
            items: encodings.enumerated().map { number, encoding in
                Corpus.Item(
                    document: owners?[number] ?? number, ids: encoding.ids, typeIds: encoding.typeIds, start: 0, end: 0,
                    spans: [(0..<encoding.count, 0, 0)])
            }, sources: portion.documents.map(\.source), texts: [])
        corpus.documentsBefore = portion.first
        corpus.finished = output.job?.finished(from: portion.first) ?? 0
        try session.encode(corpus, with: model.encoder, job: output.job) { run, items in
            try output.write(try lines(run, items))
        }
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
package func scalars(_ text: String, _ range: Range<Int>) -> String {
    let scalars = text.unicodeScalars
    let start =
        scalars.index(scalars.startIndex, offsetBy: range.lowerBound, limitedBy: scalars.endIndex) ?? scalars.endIndex
    let end = scalars.index(start, offsetBy: range.count, limitedBy: scalars.endIndex) ?? scalars.endIndex
    return String(scalars[start..<end])
}
