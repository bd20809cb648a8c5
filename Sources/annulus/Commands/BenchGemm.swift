// `annulus bench gemm`: dense layers, ours and OpenBLAS's in turn.

import ArgumentParser
import Foundation
import Matrices
import Pipelines
import Plans
import Tiles
import Transformers

struct BenchGemm: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gemm",
        abstract: "Time dense layers, weights packed beforehand, and OpenBLAS on the same products.",
        discussion: """
            Tokens are dealt out to ranks as everywhere, and every rank multiplies its own rows on its threads; no message is \
            sent. Within a repetition our product and OpenBLAS's sgemm take turns, each run once uncounted and then counted, and \
            the two results are compared; with --dtype bfloat16, which OpenBLAS does not have, its product is still in float32. \
            ratio is OpenBLAS's time over ours. OpenBLAS picks its kernels at start: see openblas_core, and \
            OPENBLAS_CORETYPE=SkylakeX where `annulus doctor` advises it. It is loaded when this runs, from ANNULUS_OPENBLAS where \
            that names its file. Where a rank has none, a line says so, our product is measured alone, and the fields openblas_* \
            and ratio are null in JSON, empty in CSV, and not in the table.
            """)

    @OptionGroup var bench: BenchOptions

    @Option(help: "Rows of the product.")
    var tokens: Int = 4096

    @Option(
        help:
            "Terms of each element. Default, with --outputs: the layers \(BenchGemm.published.map { "\($0.inputs) → \($0.outputs)" }.joined(separator: ", ")), one row each."
    )
    var inputs: Int?

    @Option(help: "Columns of the product.")
    var outputs: Int?

    /// The feed-forward layers of BERT-base and the first of MiniLM.
    static let published = [
        Layer(inputs: 768, outputs: 3072), Layer(inputs: 3072, outputs: 768), Layer(inputs: 384, outputs: 1536),
    ]

    struct Layer: Sendable {
        let inputs: Int
        let outputs: Int
    }

    private var layers: [Layer] {
        guard let inputs, let outputs else { return Self.published }
        return [Layer(inputs: inputs, outputs: outputs)]
    }

    mutating func validate() throws {
        for (name, value) in [("--tokens", tokens), ("--inputs", inputs ?? 1), ("--outputs", outputs ?? 1)]
        where !(1...1 << 24).contains(value) {
            throw ValidationError("\(name) takes 1 to \(1 << 24), not \(value)")
        }
        if (inputs == nil) != (outputs == nil) {
            throw ValidationError("give --inputs and --outputs together, or neither")
        }
    }

    func run() throws {
        let command = self
        try Session.run(self, bench.run) { session in
            let openBLAS = try Self.openBLASOfAll(session)
            let rows = try command.layers.map { try command.measure($0, session, openBLAS) }
            try session.agree { try session.printLines(BenchRow.text(rows, command.bench.format)) }
        }
    }

    /// OpenBLAS where every rank has it, since they all take turns with it; else nil, and rank 0 says so. Collective.
    private static func openBLASOfAll(_ session: Session) throws -> OpenBLAS? {
        let openBLAS = try session.agree { try OpenBLAS.load() }
        let hosts = try session.transport.allGather(openBLAS == nil ? Array(LocalHost.name.utf8) : [])
        guard let rank = hosts.firstIndex(where: { !$0.isEmpty }) else { return openBLAS }
        let place =
            hosts.contains { $0.isEmpty } ? "on \(String(decoding: hosts[rank], as: UTF8.self)) (rank \(rank))" : "here"
        session.log.warning("there is no OpenBLAS \(place), so our product is measured alone: \(OpenBLAS.advice)")
        return nil
    }

    private func measure(_ layer: Layer, _ session: Session, _ openBLAS: OpenBLAS?) throws -> BenchRow {
        let transport = session.transport
        let sharding = Sharding(
            lengths: [tokens], layout: session.settings.layout, rankCount: transport.size,
            speeds: try session.relativeSpeeds())
        let product = DenseProduct(layer, sharding: sharding, rank: transport.rank, seed: bench.seed, session: session)
        openBLAS?.setThreads(session.threads.threads)

        var peaks = [try session.presentPeak()]
        var seconds: [Double] = []
        var openBLASSeconds: [Double] = []
        for _ in 0..<bench.repetitions {
            seconds.append(try session.slowest { product.multiply() })
            peaks.append(try session.presentPeak())
            if let openBLAS { openBLASSeconds.append(try session.slowest { product.multiply(by: openBLAS) }) }
            session.monitor.progress()
        }
        try session.agree {
            if openBLAS != nil, let difference = product.disagreement() {
                throw JobError(.internal, "the product and OpenBLAS's disagree: \(difference)")
            }
        }
        let rowBytes = layer.outputs * 4
        let sha256 = try session.digest(sharding, rowBytes: rowBytes) { first, count in
            UnsafeRawBufferPointer(start: product.y.pointer + first * layer.outputs, count: count * rowBytes)
        }
        withExtendedLifetime(product) {}
        let flop = 2 * Double(tokens) * Double(layer.inputs) * Double(layer.outputs)
        let measurement = Measurement(seconds: seconds, exposed: 0, bytesSent: 0, peaks: means(peaks))
        let theirs = openBLAS.map { _ in Pipelines.median(openBLASSeconds) }
        func number(_ value: Double?) -> BenchValue { value.map { .number($0) } ?? .absent }
        return BenchRow(
            fields: [
                ("bench", .text("gemm")), ("tokens", .integer(tokens)), ("inputs", .integer(layer.inputs)),
                ("outputs", .integer(layer.outputs)), ("dtype", .text(session.settings.element.rawValue)),
            ] + measurement.fields(session: session, flop: flop, sha256: sha256) + [
                ("openblas_core", openBLAS.map { .text($0.core) } ?? .absent), ("openblas_seconds", number(theirs)),
                ("openblas_seconds_all", openBLAS.map { _ in .numbers(openBLASSeconds) } ?? .absent),
                ("openblas_gflops", number(theirs.map { flop / $0 * 1e-9 })),
                ("ratio", number(theirs.map { $0 / measurement.median })),
            ])
    }
}

/// One rank's rows of y = x·Wᵀ, by our kernels and by OpenBLAS.
private final class DenseProduct {
    private let layer: BenchGemm.Layer
    private let session: Session
    private let rows: Int
    /// (rows, inputs)
    private let x: AlignedBuffer
    /// (outputs, inputs), as checkpoints store it and OpenBLAS takes it.
    private let weights: AlignedBuffer
    private let packed: PackedMatrix
    /// (rows, outputs)
    let y: AlignedBuffer
    private let openBLASOutput: AlignedBuffer
    private let blocks: [Range<Int>]

    init(_ layer: BenchGemm.Layer, sharding: Sharding, rank: Rank, seed: UInt64, session: Session) {
        self.layer = layer
        self.session = session
        rows = sharding.tokenCount(of: rank)
        x = AlignedBuffer(count: max(1, rows * layer.inputs))
        y = AlignedBuffer(count: max(1, rows * layer.outputs))
        openBLASOutput = AlignedBuffer(count: max(1, rows * layer.outputs))
        weights = AlignedBuffer(count: layer.outputs * layer.inputs)
        for index in 0..<weights.count {
            weights[index] = CountedNormal.value(key: seed &+ Stride.stream, index: index) * 0.02
        }
        var row = 0
        for tile in sharding.tiles(of: rank) {
            for token in sharding.numbering.tokens(of: tile) {
                for column in 0..<layer.inputs {
                    x[row * layer.inputs + column] = CountedNormal.value(
                        key: seed, index: token * layer.inputs + column)
                }
                row += 1
            }
        }
        packed = PackedMatrix(
            weights: UnsafeBufferPointer(start: weights.pointer, count: weights.count), inputs: layer.inputs,
            outputs: layer.outputs,
            element: session.settings.element, kernels: session.kernels)
        blocks = Self.blocks(rows: rows, threads: session.threads.threads)
    }

    /// Blocks of 96 rows, as the encoder's, as many as every thread gets equally; what is left in equal parts, so that
    /// no thread works alone at the end.
    private static func blocks(rows: Int, threads: Int) -> [Range<Int>] {
        let whole = rows / 96 / threads * threads
        var blocks = (0..<whole).map { 96 * $0..<96 * ($0 + 1) }
        let left = rows - 96 * whole
        // Whole register blocks, which hold at most 12 rows.
        let share = max(12, ((left + threads - 1) / threads + 11) / 12 * 12)
        for first in stride(from: 96 * whole, to: rows, by: min(share, 96)) {
            blocks.append(first..<min(first + min(share, 96), rows))
        }
        return blocks
    }

    func multiply() {
        session.threads.forEach(blocks.count) { index, _ in
            let block = blocks[index]
            packed.multiply(
                rows: block.count, x: x.pointer + block.lowerBound * layer.inputs, xStride: layer.inputs,
                y: y.pointer + block.lowerBound * layer.outputs, yStride: layer.outputs, kernels: session.kernels)
        }
    }

    func multiply(by openBLAS: OpenBLAS) {
        if rows == 0 { return }
        openBLAS.multiply(
            rows: rows, inputs: layer.inputs, outputs: layer.outputs, x: x.pointer, weights: weights.pointer,
            y: openBLASOutput.pointer)
    }

    /// Where the two results differ by more than twice what either may be off, nil where nowhere: n terms in float32
    /// are off by at most γ(n)·Σ|x·w| (Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1), and the sum is
    /// at most |x|·|w|; rounding both factors to bfloat16 moves a term by at most 2·2⁻⁸ + 2⁻¹⁶ of itself.
    func disagreement() -> String? {
        func norms(_ rows: Int, _ matrix: AlignedBuffer) -> [Double] {
            (0..<rows).map { row in
                (0..<layer.inputs).reduce(0.0) { sum, column in
                    let value = Double(matrix[row * layer.inputs + column])
                    return sum + value * value
                }.squareRoot()
            }
        }
        let ofRows = norms(rows, x)
        let ofColumns = norms(layer.outputs, weights)
        let unit = Double(layer.inputs) * 0x1p-24
        let bound = 2 * unit / (1 - unit) + (session.settings.element == .bfloat16 ? 2 * 0x1p-8 + 0x1p-16 : 0)
        for row in 0..<rows {
            for column in 0..<layer.outputs {
                let place = row * layer.outputs + column
                let difference = abs(Double(y[place]) - Double(openBLASOutput[place]))
                if !(difference <= bound * ofRows[row] * ofColumns[column]) {
                    return "row \(row), column \(column): \(y[place]) and \(openBLASOutput[place])"
                }
            }
        }
        return nil
    }
}

extension Session {
    /// Runs `work` on all ranks at once, uncounted and then counted, and returns the slowest rank's time. Collective.
    fileprivate func slowest(_ work: () -> Void) throws -> Double {
        // OpenBLAS's threads poll for some 20 ms before they sleep, and would take the cores from the other side.
        Thread.sleep(forTimeInterval: 0.05)
        work()
        try transport.barrier()
        let start = ContinuousClock.now
        work()
        return try maximum((ContinuousClock.now - start).inSeconds)
    }
}
