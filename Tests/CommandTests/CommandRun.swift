// Runs the built command as a user does: alone, on virtual ranks, or under mpirun.

import Foundation
import Testing

/// How the command is spread.
enum Spread: CustomStringConvertible {
    case alone
    case virtual(Int)
    case mpirun(Int)
    /// Under mpirun, the last rank with other arguments behind them.
    case lastWith([String], ranks: Int)
    /// Under mpirun, the last rank being another program.
    case lastBeing(String, ranks: Int)
    /// Under mpirun, the last rank being stopped three quarters of the time.
    case lastSlowed(Int)

    var description: String {
        switch self {
        case .alone: "alone"
        case .virtual(let ranks): "\(ranks) virtual ranks"
        case .mpirun(let ranks): "mpirun -np \(ranks)"
        case .lastWith(let arguments, let ranks): "mpirun -np \(ranks), the last one with \(arguments)"
        case .lastBeing(_, let ranks): "mpirun -np \(ranks), the last one another program"
        case .lastSlowed(let ranks): "mpirun -np \(ranks), the last one slow"
        }
    }
}

/// What a run left behind.
struct CommandRun {
    let status: Int32
    let output: Data
    let errors: String

    /// The lines that the command itself wrote on standard error; mpirun adds its own.
    var errorLines: [String] { errors.split(separator: "\n").map(String.init).filter { $0.hasPrefix("annulus:") } }

    /// The folder of the test's own executable, where `annulus` is built too.
    static let products = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        .deletingLastPathComponent()

    /// The command, ready to run but for its standard streams.
    /// - Parameters:
    ///   - script: what a shell does with the command, `"$@"`, instead of running it.
    ///   - mounts: whether the shell may mount file systems, which nobody else sees.
    static func process(
        _ arguments: [String], _ spread: Spread, environment: [String: String] = [:], folder: TemporaryFolder,
        script: String? = nil,
        mounts: Bool = false
    ) -> Process {
        let process = Process()
        let command = products.appendingPathComponent("annulus").path
        var words = [command] + arguments
        switch spread {
        case .alone: break
        case .virtual(let ranks): words += ["--virtual-ranks", "\(ranks)"]
        case .mpirun(let ranks):
            words = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "\(ranks)"] + words
        case .lastWith(let more, let ranks):
            words =
                ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "\(ranks - 1)"] + words + [":", "-np", "1"]
                + words + more
        case .lastBeing(let program, let ranks):
            words =
                ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "\(ranks - 1)"] + words + [
                    ":", "-np", "1", program,
                ] + arguments
        case .lastSlowed(let ranks):
            let slowly =
                #""$@" & while kill -STOP $! 2>/dev/null; do sleep 0.03; kill -CONT $!; sleep 0.01; done; wait $!"#
            words =
                ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "\(ranks - 1)"] + words
                + [":", "-np", "1", "sh", "-c", slowly, "slowly"] + words
        }
        if let script {
            words =
                (mounts ? ["unshare", "-m"] : []) + [
                    "sh", "-c", (mounts ? "mount --make-rprivate /\n" : "") + script, "script",
                ] + words
        }
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        var variables = ProcessInfo.processInfo.environment
        variables["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        variables["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
        variables["ANNULUS_KERNEL"] = nil
        // What a run measures, it keeps for nobody else.
        variables["XDG_CACHE_HOME"] = folder.path("cache")
        variables.merge(environment) { $1 }
        process.environment = variables
        return process
    }

    static func annulus(
        _ arguments: [String], _ spread: Spread = .alone, input: String? = nil, environment: [String: String] = [:],
        script: String? = nil,
        mounts: Bool = false
    ) throws -> CommandRun {
        let folder = try TemporaryFolder()
        let process = process(
            arguments, spread, environment: environment, folder: folder, script: script, mounts: mounts)
        // Files, not pipes: nothing can block on a full one.
        func file(_ name: String, _ content: String = "") throws -> FileHandle {
            let path = folder.path(name)
            try content.write(toFile: path, atomically: false, encoding: .utf8)
            return try FileHandle(forUpdating: URL(fileURLWithPath: path))
        }
        process.standardInput = try file("input", input ?? "")
        process.standardOutput = try file("output")
        process.standardError = try file("errors")
        try process.run()
        process.waitUntilExit()
        return CommandRun(
            status: process.terminationStatus,
            output: try Data(contentsOf: URL(fileURLWithPath: folder.path("output"))),
            errors: String(decoding: try Data(contentsOf: URL(fileURLWithPath: folder.path("errors"))), as: UTF8.self))
    }
}

/// A folder that goes when its owner does.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ name: String) -> String { url.appendingPathComponent(name).path }

    /// Everything in it, by name.
    var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []).sorted() }
}

/// A committed checkpoint of the encoder tests.
func checkpoint(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("TransformersTests/Goldens/\(name)").path
}

/// What damages a file of a copied checkpoint: the first place of some bytes becomes others.
func replace(_ file: String, _ old: String, _ new: String) -> @Sendable (String) throws -> Void {
    { folder in
        let url = URL(fileURLWithPath: folder + "/" + file)
        // Bytes, not text: a safetensors file is not UTF-8.
        var data = try Data(contentsOf: url)
        let range = try #require(data.range(of: Data(old.utf8)), "\(file) has no '\(old)' to damage")
        data.replaceSubrange(range, with: Data(new.utf8))
        try data.write(to: url)
    }
}
