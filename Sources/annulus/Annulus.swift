// The `annulus` command: one entry for one process, for mpirun and for virtual ranks.

import ArgumentParser
import Foundation
import MPI
import Pipelines

@main
struct Annulus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "annulus",
        abstract: "Exact attention over sequences that no single process could hold, on ordinary CPU clusters.",
        discussion: """
            Alone, `annulus …` is one rank; `mpirun -np N annulus …` shards the sequence over N ranks, on one \
            host or a --hostfile; `--virtual-ranks P` runs P ranks in one process. The output has the same bytes \
            whichever way it is run.

            Exit statuses: 0 done, 64 usage, 65 bad model or input, 66 missing file, 70 internal, 71 memory, \
            73 and 74 cannot write, 75 interrupted, 78 environment. Every error is one line that begins `annulus:`. A crash \
            keeps its signal's status, behind such a line and the call stack.
            """,
        version: Release.description,
        subcommands: [
            Embed.self, Search.self, Classify.self, NER.self, FillMask.self, Answer.self, Train.self, Tokenize.self,
            Attend.self, Observe.self, Init.self,
            Inspect.self, Verify.self, Doctor.self, PlanCommand.self, Bench.self,
        ])

    static func main() {
        CrashReport.prepare()
        StandardStream.openClosed()
        // A reader that goes away (`annulus … | head`) is a write error, not a silent death.
        signal(SIGPIPE, SIG_IGN)
        // Nor is a file that outgrows its limit (ulimit -f).
        signal(SIGXFSZ, SIG_IGN)
        do {
            var command = try parseAsRoot()
            try command.run()
            leave(0)
        } catch let ended as EndedJob {
            leave(ended.status)
        } catch {
            leave(Self.report(error))
        }
    }

    /// Ends the process, without the time that libraries take to put themselves away.
    private static func leave(_ status: Int32) -> Never {
        fflush(nil)
        // MPICH 5 takes leave of its launcher when the process exits, and not before: a launcher that hears nothing kills
        // the ranks that are still ending.
        if MPIEnvironment.wasFinalized, !Launch.isOpenMPI(MPIEnvironment.libraryVersion) { Foundation.exit(status) }
        _exit(status)
    }

    /// Prints help where it was asked for, or one error line on the first rank, and returns the status.
    private static func report(_ error: any Error) -> Int32 {
        let code = exitCode(for: error)
        if code == .success {
            do {
                if Launch.isFirstProcess() { try StandardStream.write(fullMessage(for: error) + "\n") }
                return 0
            } catch {
                let error = JobError(error)
                StandardError.writeFailure(error.message)
                return error.status.rawValue
            }
        }
        guard Launch.isFirstProcess() else {
            Launch.letFirstProcessSpeak()
            return EX_USAGE
        }
        // A fault in an expression is shown with a caret below it; everything else is one line.
        let lines = message(for: error).split(separator: "\n", omittingEmptySubsequences: false)
        let caret = lines.firstIndex { $0.hasSuffix("^") }
        let message = lines[..<(caret.map { $0 - 1 } ?? lines.count)].filter { !$0.isEmpty }.joined(separator: " ")
        let picture = caret.map { lines[$0 - 1] + "\n" + lines[$0] + "\n" } ?? ""
        StandardError.writeFailure(
            "\(message); see `annulus --help`" + (picture.isEmpty ? "" : "\n" + picture.dropLast()))
        return EX_USAGE
    }
}
