// `annulus bench attention`: the ring's attention on random inputs.

import ArgumentParser
import Attention
import Foundation
import Pipelines
import Tiles

struct BenchAttention: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention", abstract: "Time exact attention over all ranks, keys packed beforehand.",
        discussion: """
            Self-attention over --length tokens, or cross-attention of --query-length queries to --length keys. Inputs and tables \
            of biases are random, the same for any number of ranks; ALiBi's slopes are 2^(-8h/H) for h = 1 to H (Press et al. 2022). \
            With --backward the gradients of queries, keys, values, biases and sinks are timed, and their five products counted; \
            the attention before them is not, and sha256 is that of the digests of dQ, dK and dV.
            """)

    @OptionGroup var bench: BenchOptions

    @OptionGroup var attention: AttentionOptions

    @Option(help: "Scores become C·tanh(score/C).")
    var softcap: Float?

    @Flag(help: "Subtract ALiBi's slope·|i − j|.")
    var alibi = false

    @Option(help: "Add a bias by the distance j − i, clamped to this one.")
    var relativeBias: Int?

    @Flag(help: "Give each head an attention sink.")
    var sinks = false

    @Option(
        help: "Make statistics of rows too (see observe), with this many keys of most weight. The output is the same.")
    var topK: Int?

    mutating func validate() throws {
        try ScoreInput.check(softcap: softcap)
        if let relativeBias, !(0...1 << 24).contains(relativeBias) {
            throw ValidationError("--relative-bias takes a distance of 0 to \(1 << 24), not \(relativeBias)")
        }
        if topK != nil, attention.backward {
            throw ValidationError("--top-k is of attention; gradients have no statistics of rows")
        }
        if let topK, !(1...4096).contains(topK) { throw ValidationError("--top-k takes 1 to 4096, not \(topK)") }
    }

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        try session.logHeader("bench attention")
        let problem = try attention.problem(session)
        let measured = attention.backward ? problem.differentiated(modifiers) : problem
        session.monitor.progress(.planning)
        let decision = try session.decide(measured, attention.footprint, session.settings.strategy, predicts: true)
        let run = try AttentionRun(
            problem, decision.strategy, modifiers: modifiers, topKeys: topK, backward: attention.backward,
            seed: bench.seed, session)
        let measurement = try session.measure(
            repetitions: bench.repetitions, work: attention.backward ? run.differentiate : run.attend)
        try session.correct(problem.heads, by: run.pace)
        let row = BenchRow(
            fields: [
                ("bench", .text("attention"))
            ] + attention.fields + [
                ("modifiers", .text(modifierNames)), ("top_k", .integer(topK ?? 0)),
                ("dtype", .text(session.settings.element.rawValue)),
                ("wire", .text((problem.wire ?? problem.element).rawValue)),
                ("wire_bound", .number(run.wireBound)),
                ("strategy", .text(decision.strategy.rawValue)), ("layout", .text(session.settings.layout.rawValue)),
                (
                    "rank_tokens",
                    .numbers((0..<problem.rankCount).map { Double(problem.queries.tokenCount(of: Rank($0))) })
                ),
                ("predicted_seconds", .number(decision.predictedSeconds ?? .nan)),
            ] + measurement.fields(session: session, flop: measured.visibleFlop, sha256: try run.digest()))
        try session.agree { try session.printLines(row.text(bench.format)) }
    }

    /// What is asked for beside the mask.
    private var modifiers: ScoreModifiers {
        let heads = attention.heads
        func random(_ count: Int, _ stream: RandomInput.Stream) -> [Float] {
            Array(unsafeUninitializedCapacity: count) { buffer, filled in
                RandomInput(seed: bench.seed).fill(buffer.baseAddress!, 0..<count, width: 1, stream: stream)
                filled = count
            }
        }
        return ScoreModifiers(
            softcap: softcap, alibiSlopes: alibi ? (1...heads).map { exp2(-8 * Float($0) / Float(heads)) } : nil,
            relativeBias: relativeBias.map { .init(table: random(heads * (2 * $0 + 1), .relativeBias), reach: $0) },
            sinks: sinks ? random(heads, .sinks) : nil)
    }

    private var modifierNames: String {
        let names = [
            softcap.map { "softcap(\($0))" }, alibi ? "alibi" : nil, relativeBias.map { "relative-bias(\($0))" },
            sinks ? "sinks" : nil,
        ].compactMap { $0 }
        return names.isEmpty ? "none" : names.joined(separator: " ")
    }
}
