// What a training takes of memory is what it tells beforehand.

import Files
import Foundation
import Testing

@Suite(.serialized) struct TrainMemoryTests {
    /// The peak of a rank's memory, as the system keeps it, within 15 % of what is told: weights and their gradients weigh most for
    /// short documents, rows for long ones.
    @Test(
        .enabled(if: FileManager.default.fileExists(atPath: "/proc/self/status")),
        arguments: zip([256, 1500, 5000], [1, 2, 1]))
    func isWhatWasTold(length: Int, documents: Int) throws {
        try check(
            ["--length", "\(length)", "--documents", "\(documents)", "--threads", "2"], .alone,
            // A process that has ended has no peak any more.
            script: #""$@" & while grep VmHWM "/proc/$!/status" >&2; do sleep 0.02; done; wait $!"#)
    }

    /// Of the fullest of two ranks that share no memory, by every strategy.
    @Test(
        .enabled(if: FileManager.default.fileExists(atPath: "/proc/self/status")),
        arguments: ["pass-kv", "pass-q", "all-gather", "head-exchange", "hybrid", "tree"])
    func isWhatWasToldOfAStrategy(strategy: String) throws {
        try check(
            ["--length", "2000", "--threads", "1", "--ranks-per-node", "1", "--strategy", strategy], .mpirun(2),
            script: #"""
                "$@" & while kill -0 $! 2>/dev/null; do
                  for rank in $(cat /proc/$!/task/*/children 2>/dev/null); do grep -s VmHWM /proc/$rank/status >&2; done
                  sleep 0.02
                done; wait $!
                """#)
    }

    private func check(_ options: [String], _ spread: Spread, script: String) throws {
        let run = try CommandRun.annulus(
            ["bench", "train", "--shape", "minilm", "--repetitions", "1", "--format", "json", "--quiet"] + options,
            spread,
            script: script)
        #expect(run.status == 0, "\(run.errors)")
        let peaks = run.errors.split(separator: "\n").compactMap { line -> Double? in
            guard line.hasPrefix("VmHWM:") else { return nil }
            return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Double($0) }.map { 1024 * $0 }
        }
        let row = try JSON.parse([UInt8](run.output), path: "bench train")
        let (peak, told) = (try #require(peaks.max()), try #require(row["predicted_bytes"]?.double))
        #expect(abs(told - peak) <= 0.15 * peak, "told \(Int(told) >> 20) MiB, took \(Int(peak) >> 20) MiB")
    }
}
