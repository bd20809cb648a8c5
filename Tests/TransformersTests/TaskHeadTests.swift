// The logits of every family's task heads against transformers.

import Checkpoints
import Files
import Foundation
import Matrices
import Plans
import RingAttention
import Testing
import Tiles
import Transformers

@Suite struct TaskHeadTests {
    static let names = [
        "heads-bert", "heads-roberta", "heads-distilbert", "heads-albert", "heads-electra", "heads-mpnet",
        "heads-deberta", "heads-modernbert",
        "heads-esm", "heads-nomic", "heads-jina",
    ]
    /// Families that have no model for questions.
    static let withoutQuestions = ["heads-esm", "heads-nomic"]

    @Test(arguments: names) func logitsEqualTransformers(name: String) throws {
        let folder = golden(name)
        let file = try TensorFile(path: folder + "/goldens.safetensors")
        let checkpoint = try Checkpoint(folder: folder)
        let encoder = try Encoder(checkpoint, kernels: .best)
        let labels = try LabelSet(checkpoint.config, path: "config.json")
        #expect(labels.names == ["NEGATIVE", "POSITIVE"])
        for task in Task.allCases where !Self.withoutQuestions.contains(name) || task != .questionAnswering {
            let head = try TaskHead(
                task, labels: 2, config: checkpoint.config, path: "config.json", configuration: encoder.configuration,
                parameters: checkpoint,
                kernels: .best)
            let allowed = 2 * Float(try #require(file.metadata["\(task.rawValue).float32_error"]))!
            let scale = Float(try #require(file.metadata["\(task.rawValue).scale"]))!
            var worst: Float = 0
            for length in [1, 5, 40] {
                let ids = try file.readIntegers("\(length).input_ids").map { Int32($0) }
                let expected = try file.readFloat32("\(length).\(task.rawValue)")
                let rows = try file.readIntegers("\(length).\(task.rawValue).rows").map { Int($0) }
                let logits = try logits(encoder, head, ids)
                for (place, row) in rows.enumerated() {
                    for column in 0..<head.outputs {
                        let error = abs(logits[row * head.outputs + column] - expected[place * head.outputs + column])
                        worst = max(worst, error.isNaN ? .infinity : error)
                    }
                }
            }
            #expect(
                worst <= max(allowed, 2 * scale * Float.ulpOfOne),
                "\(name), \(task): off by \(worst), transformers by \(allowed / 2) of \(scale)")
        }
    }

    /// The logits of one document: one row for a sequence, one a token for the other heads.
    private func logits(_ encoder: Encoder, _ head: TaskHead, _ ids: [Int32]) throws -> [Float] {
        try VirtualRanks.run(count: 1, seed: 0) { transport in
            let sharding = Sharding(lengths: [ids.count], layout: .contiguous, rankCount: 1)
            let run = try EncoderRun(
                encoder: encoder, sharding: sharding, transport: transport, threads: ThreadPool(threads: 2))
            try run.run(ids: [ids])
            if head.task == .sequenceClassification {
                let pooled = try run.pool(
                    [Span(sequence: 0, tokens: 0..<ids.count)], mode: head.pooling, transport: transport)[0].vector
                return head.logits(rows: 1, pooled)
            }
            return run.logits(head) { Array(0..<$0.tokens.count) }.flatMap(\.values)
        }[0]
    }

    @Test func aModelWithoutTheHeadIsRefusedByName() throws {
        let checkpoint = try Checkpoint(folder: golden("tiny-roberta"))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        let error = #expect(throws: FileError.self) {
            try TaskHead(
                .sequenceClassification, labels: 2, config: checkpoint.config, path: "config.json",
                configuration: configuration,
                parameters: checkpoint, kernels: .best)
        }
        #expect(error?.description.contains("'classifier.dense.weight' is missing") == true)
    }

    @Test func lossesAreThoseOfTheirProblems() throws {
        func labels(_ problem: String) throws -> LabelSet {
            try LabelSet(
                JSON.parse(Array(#"{"id2label": {"0": "a", "1": "b", "2": "c"}\#(problem)}"#.utf8), path: "c"),
                path: "c")
        }
        let logits: [Float] = [1, -2, 0.5]
        let total = log(exp(1.0) + exp(-2.0) + exp(0.5))
        #expect(abs(Double(try labels("").loss(logits, .index(1))!) - (total + 2)) < 1e-6)
        let regression = try labels(#", "problem_type": "regression""#)
        #expect(abs(regression.loss(logits, .values([0, 0, 0]))! - (1 + 4 + 0.25) / 3) < 1e-6)
        #expect(regression.scores(logits) == logits)
        let several = try labels(#", "problem_type": "multi_label_classification""#)
        let exact = -(log(1 / (1 + exp(-1.0))) + log(1 - 1 / (1 + exp(2.0))) + log(1 / (1 + exp(-0.5)))) / 3
        #expect(abs(Double(several.loss(logits, .values([1, 0, 1]))!) - exact) < 1e-6)
        #expect(several.loss(logits, .index(1)) == nil)
        #expect(try labels("").loss(logits, .index(3)) == nil)
    }
}
