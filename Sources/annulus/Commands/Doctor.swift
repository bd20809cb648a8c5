// `annulus doctor`: what this machine, MPI and BLAS will really do, with the mend for each fault.

import ArgumentParser
import COpenBLAS
import Foundation
import MPI
import Attention
import Matrices
import RingAttention

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Tell what this machine, MPI and BLAS will really do, and how to mend what is wrong.",
        discussion: "Run it as you run the job: alone, or under the same mpirun or srun with the same options.")

    @OptionGroup var spread: RunOptions

    func run() throws {
        let command = self
        try Session.run(self, spread) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let mine = Findings(session).text
        let all = try session.transport.allGather(Array(mine.utf8))
        let peak = try session.peakGFLOPs()
        let heads = HeadShape(heads: 1, headDimension: 64)
        let measured = try session.machine(heads, hosts: session.hostNames(), isFresh: true)
        try session.agree {
            guard session.isRoot else { return }
            var text = common(session, peak: peak, measured)
            for (rank, bytes) in all.enumerated() { text += "rank \(rank)\n" + String(decoding: bytes, as: UTF8.self) }
            try session.printLines(text)
        }
    }

    /// What is one for the whole job.
    private func common(_ session: Session, peak: Double, _ measured: Measurements) -> String {
        var rows = Rows()
        rows.add("annulus", Annulus.version)
        let environment = ProcessInfo.processInfo.environment
        rows.add("started as", session.transport.size == 1 ? "one rank (no MPI)" : spread.virtualRanks != nil
            ? "\(session.transport.size) virtual ranks in one process" : "\(session.transport.size) ranks over MPI")
        rows.add("MPI", "\(MPIEnvironment.libraryVersion.split(separator: ",").first ?? "unknown") (MPI \(MPIEnvironment.standardVersion.major).\(MPIEnvironment.standardVersion.minor))")
        if let flags = environment[Launch.tcpFlags] { rows.add("MPI over TCP", "\(Launch.tcpFlags)=\(flags)") }
        let sets = KernelSet.available.map(\.name)
        let asked = environment["ANNULUS_KERNEL"].flatMap { $0.isEmpty ? nil : $0 }
        rows.add("kernel set", "\(session.kernels.name), " + (asked == nil ? "the best that every rank can run" : "as ANNULUS_KERNEL asks")
            + "; this processor can run: \(sets.joined(separator: ", "))")
        if asked == nil, session.kernels.name == "reference" {
            rows.mend("only the portable kernels run here, far below what a processor with AVX2, AVX-512 or NEON reaches")
        }
        rows.add("bfloat16", session.kernels.hasNativeBFloat16
            ? "by the processor's own dot products (VDPBF16PS)" : "computed in float32: the same bits, and slower than --dtype float32")
        rows.add("peak", String(format: "%.0f GFLOP/s over all threads (fused multiply-adds, \(spread.dtype.rawValue))", peak))
        let core = String(cString: openblas_get_corename())
        rows.add("OpenBLAS", "\(String(cString: openblas_get_config())), kernels for \(core); a baseline for `bench`, no result passes through it")
        if core.lowercased() == "haswell" || core.lowercased() == "zen", sets.contains("avx512") {
            rows.mend("OpenBLAS runs its \(core) kernels on a processor with AVX-512: set OPENBLAS_CORETYPE=SkylakeX before the process starts")
        }
        rows.add("layout", session.options.layout.rawValue)
        rows.add("strategy", session.options.strategy.name)
        rows.add("attention", "GFLOP/s of each rank while all compute, heads of 64: "
            + measured.flops.map { String(format: "%.0f", $0 * 1e-9) }.joined(separator: " "))
        for (name, link) in [("within hosts", measured.inside), ("across hosts", measured.between)] {
            if let link {
                rows.add(name, String(format: "%.3g µs a message, %.3g GB/s in each direction", link.latency * 1e6, link.bandwidth * 1e-9))
            }
        }
        rows.add("kept in", session.measurementCache(HeadShape(heads: 1, headDimension: 64), hosts: [])?.folder ?? "no folder: HOME is not set")
        rows.add("watchdog", session.options.watchdog == 0 ? "off" : "\(session.options.watchdog) s")
        return rows.text
    }

    /// What each rank finds for itself.
    private struct Findings {
        let text: String

        init(_ session: Session) {
            var rows = Rows(indent: "  ")
            let mask = ProcessorMask.current.processors
            rows.add("host", LocalHost.name)
            rows.add("processors", "\(mask.count) of \(ProcessInfo.processInfo.processorCount) may be used")
            rows.add("threads", "\(session.context.threads)")
            if session.context.threads > mask.count {
                rows.mend("\(session.context.threads) threads share \(mask.count) processors: start with `mpirun --bind-to none`, "
                    + "`--map-by slot:PE=\(session.context.threads)`, or fewer --threads")
            } else if session.transport.size > 1, mask.count == 1, ProcessInfo.processInfo.processorCount > session.transport.size {
                rows.mend("mpirun bound this rank to one processor: `--map-by slot:PE=n` gives it n, `--bind-to none` all")
            }
            rows.add("memory", String(format: "%.1f GiB", Double(ProcessInfo.processInfo.physicalMemory) / 0x1p30))
            text = rows.text
        }
    }

    private struct Rows {
        var indent = ""
        var text = ""

        mutating func add(_ name: String, _ value: String) {
            text += indent + name.padding(toLength: 13, withPad: " ", startingAt: 0) + value + "\n"
        }

        mutating func mend(_ advice: String) { text += indent + "  ! " + advice + "\n" }
    }
}
