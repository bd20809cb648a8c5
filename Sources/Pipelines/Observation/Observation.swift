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
        let probing = try options.probe.map { try Probing($0, options, pipeline) }
        session.logHeader("observe \(name)", encodes: true)
        if case .file(let file) = destination, file.format == .safetensors {
            // Its header tells how long everything is: all documents come first.
            let documents = try self.documents(try pipeline.stream.rest(), first: 0, pipeline)
            let writer = try ObservationWriter(options, documents, layers: layers, heads: heads, pipeline)
            let output = try ParallelFile.create(
                file.path, force: file.mayReplace, transport: session.transport,
                size: writer.tensors.layout.totalBytes)
            try writer.tensors.layout.headerBytes.withUnsafeBytes {
                try output.write(session.isRoot ? [(0, $0)] : [])
            }
            try writer.run(into: output)
            if let probing { try writer.write(try probing.changes(documents).values, into: output) }
            try output.commit()
            return
        }
        if case .file(let file) = destination, let kind = ObservationPicture.Kind(path: file.path) {
            let documents = try self.documents(try pipeline.stream.rest(), first: 0, pipeline)
            let picture = try ObservationPicture(
                kind, options, documents, layers: layers, heads: heads, model: name, pipeline)
            try picture.write(to: file, probing)
            return
        }
        let lines = try LineOutput(destination, session)
        while let portion = try pipeline.stream.next() {
            let documents = try self.documents(portion.documents, first: portion.first, pipeline)
            let writer = try ObservationWriter(options, documents, layers: layers, heads: heads, pipeline)
            let image = ObservationImage(writer.tensors, session)
            try writer.run(into: image)
            if let probing { try writer.write(try probing.changes(documents).values, into: image) }
            try lines.write(session.isRoot ? writer.lines(image) : "")
        }
        try lines.finish()
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
