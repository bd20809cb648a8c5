// What a model attends to, of whole documents: the `observe` verb.

import Attention
import Checkpoints
import Files
import Foundation
import RingAttention
import Tiles
import Tokenization
import Transformers

/// Observes a model's attention over documents, exactly and without the matrix of weights.
package struct Observation: Sendable {
    package var options: ObservationOptions

    /// The bytes of all rectangles together beyond which they are refused.
    package static let mostRectangleBytes = 4 << 30

    package init(_ options: ObservationOptions) { self.options = options }

    /// Observes all documents and writes what was found. Collective.
    package func run(model name: String, input: DocumentInput, to destination: LineDestination, _ session: Session)
        throws
    {
        let pipeline = try EncodingPipeline(model: name, input: input, session: session)
        let configuration = pipeline.model.encoder.configuration
        let (layers, heads) = try session.agree {
            (
                try Self.chosen(options.layers, of: configuration.layerCount, option: "--layers"),
                try Self.chosen(options.heads, of: Self.heads(configuration), option: "--heads")
            )
        }
        let probing = try options.probe.map {
            try Probing($0, options, layers: layers, heads: heads, pipeline)
        }
        try session.logHeader("observe \(name)", encodes: true)
        func writer(_ documents: [ObservedDocument]) throws -> ObservationWriter {
            let writer = try ObservationWriter(options, documents, layers: layers, heads: heads, pipeline)
            writer.tellCost()
            try probing?.tellCost(documents)
            return writer
        }
        if case .file(let file) = destination, file.format == .safetensors {
            // Its header tells how long everything is: all documents come first.
            let documents = try self.documents(try pipeline.stream.rest(), first: 0, pipeline)
            return try write(documents, try writer(documents), probing, to: file, session)
        }
        if case .file(let file) = destination, let kind = ObservationPicture.Kind(path: file.path) {
            let documents = try self.documents(try pipeline.stream.rest(), first: 0, pipeline)
            let picture = try ObservationPicture(
                kind, options, documents, layers: layers, heads: heads, model: name, pipeline)
            try picture.write(to: file, probing)
            return
        }
        let lines = try LineOutput(destination, session)
        if lines.documentsBefore == .max { return }
        pipeline.stream.skip(lines.documentsBefore)
        while let portion = try pipeline.stream.next() {
            let documents = try self.documents(portion.documents, first: portion.first, pipeline)
            let writer = try writer(documents)
            let image = ObservationImage(writer.tensors, session, lines.job)
            for group in writer.groups(ranks: session.transport.size) {
                try observe(documents, group, writer, probing, into: image)
                try lines.write(session.isRoot ? writer.lines(group, image) : "")
                image.forget()
                try lines.job?.finish(documents: portion.first + group.upperBound)
            }
        }
        try lines.finish()
    }

    /// Observes all documents into a file of tensors. Collective.
    private func write(
        _ documents: [ObservedDocument], _ writer: ObservationWriter, _ probing: Probing?, to output: OutputFile,
        _ session: Session
    ) throws {
        let layout = writer.tensors.layout
        var job: ResumableJob?
        if let request = output.resume {
            job = try ResumableJob.begin(output, request, session)
            guard let job else { return }
            job.note(total: documents.count)
        }
        let file = try ParallelFile.open(output, job, size: layout.totalBytes, transport: session.transport)
        let done = job?.documents ?? 0
        try job?.check(rows: writer.pieces(0..<done))
        try layout.headerBytes.withUnsafeBytes { try file.write(session.isRoot ? [(0, $0)] : []) }
        let sink = ObservedFile(file, job)
        for group in writer.groups(from: done, ranks: session.transport.size) {
            try observe(documents, group, writer, probing, into: sink)
            try sink.finish(documents: group.upperBound)
        }
        if let job { try job.finish() } else { try file.commit() }
    }

    /// Observes some of the documents, and what editing them does. Collective.
    private func observe(
        _ documents: [ObservedDocument], _ group: Range<Int>, _ writer: ObservationWriter, _ probing: Probing?,
        into sink: any ObservationSink
    ) throws {
        try writer.run(group, into: sink)
        guard let probing else { return }
        let changes = try probing.changes(Array(documents[group])) { try sink.stopIfAsked() }
        try writer.write(changes, of: group, into: sink)
    }

    /// The query heads of the layer that has fewest.
    private static func heads(_ configuration: EncoderConfiguration) -> Int {
        configuration.attention.map(\.heads.queryHeads).min() ?? 0
    }

    private static func chosen(_ asked: [Int]?, of count: Int, option: String) throws(JobError) -> [Int] {
        guard let asked else { return Array(0..<count) }
        if let wrong = asked.first(where: { !(0..<count).contains($0) }) {
            throw JobError(.usage, "\(option) names \(wrong), and the model has 0 to \(count - 1)")
        }
        return Set(asked).sorted()
    }

    private func documents(_ documents: [Document], first: Int, _ pipeline: EncodingPipeline) throws
        -> [ObservedDocument]
    {
        zip(documents, try pipeline.encodings(documents)).enumerated().map { number, document in
            ObservedDocument(document.0, number: first + number, document.1, pipeline.tokenizer)
        }
    }
}
