// `annulus doctor`: what this machine, MPI and BLAS will really do, with the mend for each fault.

import ArgumentParser
import Foundation
import MPI
import Attention
import Matrices
import Pipelines
import RingAttention

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Tell what this machine, MPI and BLAS will really do, and how to mend what is wrong.",
        discussion: """
            Run it as you run the job: alone, or under the same mpirun or srun with the same options. It measures ranks and links \
            anew, for heads of 64, and replaces what jobs of this kind have kept and corrected, in the folder that it names: \
            remove that to have all jobs measure anew.
            """)

    @OptionGroup var runOptions: RunOptions

    func run() throws {
        let command = self
        // What it prints is a summary already.
        var options = runOptions
        options.report.summary = options.report.summary ?? false
        try Session.run(self, options) { try command.run($0) }
    }

    private func run(_ session: Session) throws {
        let mine = Findings(session, isVirtual: runOptions.virtualRanks != nil).text
        let all = try session.transport.allGather(Array(mine.utf8))
        let peak = try session.peakGFLOPs()
        let heads = HeadShape(heads: 1, headDimension: 64)
        let measured = try session.machine(heads, isFresh: true)
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
        rows.add("annulus", Release.version + (Release.commit.map { " of commit \($0)" } ?? ""))
        let environment = ProcessInfo.processInfo.environment
        rows.add(
            "started as",
            session.transport.size == 1
                ? "one rank (no MPI)"
                : runOptions.virtualRanks != nil
                    ? "\(session.transport.size) virtual ranks in one process"
                    : "\(session.transport.size) ranks over MPI")
        rows.add(
            "MPI",
            "\(Release.library()) (MPI \(MPIEnvironment.standardVersion.major).\(MPIEnvironment.standardVersion.minor))"
        )
        if let flags = environment[Launch.tcpFlags] { rows.add("MPI over TCP", "\(Launch.tcpFlags)=\(flags)") }
        let sets = KernelSet.available.map(\.name)
        let asked = environment["ANNULUS_KERNEL"].flatMap { $0.isEmpty ? nil : $0 }
        rows.add(
            "kernel set",
            "\(session.kernels.name), " + (asked == nil ? "the best that every rank can run" : "as ANNULUS_KERNEL asks")
                + "; this processor can run: \(sets.joined(separator: ", "))")
        if asked == nil, session.kernels.name == "reference" {
            rows.mend(
                "only the portable kernels run here, far below what a processor with AVX2, AVX-512 or NEON reaches")
        }
        let products =
            switch session.kernels.bfloat16Products {
            case .instructions: "by the processor's own dot products (VDPBF16PS), faster than --dtype float32"
            case .widened: "widened to float32: the same bits, half the memory, about the speed of --dtype float32"
            case .compared: "computed in float32: the same bits, and slower than --dtype float32"
            }
        rows.add("bfloat16", products)
        rows.add(
            "peak",
            String(format: "%.0f GFLOP/s over all threads (fused multiply-adds, \(runOptions.dtype.rawValue))", peak))
        addOpenBLAS(to: &rows, sets)
        rows.add("layout", session.settings.layout.rawValue)
        rows.add("strategy", session.settings.strategyName)
        rows.add(
            "attention",
            "GFLOP/s of each rank while all compute, heads of 64: "
                + measured.flops.map { String(format: "%.0f", $0 * 1e-9) }.joined(separator: " "))
        for (name, link) in [("within hosts", measured.inside), ("across hosts", measured.between)] {
            if let link {
                rows.add(
                    name,
                    String(
                        format:
                            "%.3g µs a message, %.3g GB/s in each direction, a byte takes %.2g ns of a rank's computing",
                        link.latency * 1e6, link.bandwidth * 1e-9, link.processing * 1e9))
            }
        }
        if let folder = MeasurementCache.folder() {
            rows.add("kept in", folder)
        } else {
            rows.add("kept in", "no folder")
            rows.mend("HOME is not set, so every job measures anew: set it, or XDG_CACHE_HOME")
        }
        rows.add("watchdog", runOptions.watchdog == 0 ? "off" : "\(runOptions.watchdog) s")
        return rows.text
    }

    /// The baseline of `bench gemm`, which no result passes through.
    private func addOpenBLAS(to rows: inout Rows, _ sets: [String]) {
        do throws(JobError) {
            guard let openBLAS = try OpenBLAS.load() else {
                return rows.add("OpenBLAS", "none; only `bench gemm` compares with it: \(OpenBLAS.advice)")
            }
            let core = openBLAS.core
            rows.add(
                "OpenBLAS",
                "\(openBLAS.configuration), kernels for \(core); a baseline for `bench`, no result passes through it")
            if core.lowercased() == "haswell" || core.lowercased() == "zen", sets.contains("avx512") {
                rows.mend(
                    "OpenBLAS runs its \(core) kernels on a processor with AVX-512: set OPENBLAS_CORETYPE=SkylakeX before the process starts"
                )
            }
        } catch {
            rows.add("OpenBLAS", "none that can be used")
            rows.mend(error.message)
        }
    }

    /// What each rank finds for itself.
    private struct Findings {
        let text: String

        init(_ session: Session, isVirtual: Bool) {
            var rows = Rows(indent: "  ")
            let mask = ProcessorMask.current.processors
            rows.add("host", LocalHost.name)
            rows.add("processors", "\(mask.count) of \(ProcessInfo.processInfo.processorCount) may be used")
            let threads = session.threads.threads
            let isSrun = (try? Launch.detect(environment: ProcessInfo.processInfo.environment).isSlurmStep) ?? false
            for group in ControlGroup.current("cpu") {
                guard let quota = group.processorQuota else { continue }
                rows.add(
                    "quota",
                    String(format: "%.2f processors' time, for all that is in the control group ", quota) + group.folder
                )
                if Double(threads) > quota, threads > 1 {
                    rows.mend(
                        "this rank's \(threads) threads may take no more, and stand still for the rest of the time: fewer --threads, "
                            + "or a larger quota (docker run --cpus, Kubernetes limits.cpu, systemd CPUQuota)")
                }
            }
            rows.add("threads", "\(threads)")
            if threads > mask.count {
                rows.mend(
                    "\(threads) threads share \(mask.count) processors: start with "
                        + (isSrun
                            ? "`srun --cpus-per-task=\(threads)`"
                            : "`mpirun --bind-to none`, `--map-by slot:PE=\(threads)`")
                        + ", or fewer --threads")
            } else if session.transport.size > 1, mask.count == 1,
                ProcessInfo.processInfo.processorCount > session.transport.size
            {
                rows.mend(
                    isSrun
                        ? "srun gave this rank one processor: `--cpus-per-task=n` gives it n"
                        : "mpirun bound this rank to one processor: `--map-by slot:PE=n` gives it n, `--bind-to none` all"
                )
            }
            Self.addMemory(to: &rows)
            if session.transport.size > 1, !isVirtual { Self.addNeighbours(to: &rows) }
            text = rows.text
        }

        private static func addMemory(to rows: inout Rows) {
            let host = String(format: "%.1f GiB", Double(ProcessInfo.processInfo.physicalMemory) / 0x1p30)
            let most =
                MemoryOfHost.limit.map { limit in
                    String(format: "%.1f GiB, the limit of the control group ", limit.bytes / 0x1p30)
                        + "\(limit.folder); the host has \(host)"
                } ?? host
            do throws(JobError) {
                rows.add(
                    "memory",
                    try MemoryOfHost.available().map { most + String(format: "; %.1f GiB may be taken", $0 / 0x1p30) }
                        ?? most)
            } catch {
                rows.add("memory", most)
                rows.mend(error.message)
            }
        }

        /// How ranks of one host reach each other.
        private static func addNeighbours(to rows: inout Rows) {
            if let free = HostProcess.freeSharedMemory {
                rows.add(
                    "/dev/shm",
                    String(
                        format: "%.1f GiB free, for the weights and messages of this host's ranks",
                        Double(free) / 0x1p30))
                if free < 256 << 20 {
                    rows.mend(
                        "too little for the weights of most models, which every rank then holds for itself: docker run --shm-size=8g, "
                            + "or mount -o remount,size=50% /dev/shm")
                }
            }
            if !HostProcess.mayReadNeighboursMemory {
                rows.mend(
                    "ranks may not read each other's memory, so their messages are copied twice, in small pieces: "
                        + "docker run --cap-add=SYS_PTRACE, or --security-opt seccomp=unconfined")
            }
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
