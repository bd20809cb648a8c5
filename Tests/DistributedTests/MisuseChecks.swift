// Misuse of the MPI module does not compile: each file of Misuse/ is refused with the error it names, and its
// corrected twin (compiled with CORRECTED defined) is accepted.

import Foundation
import MPI

func registerMisuseChecks(_ checks: inout Checks) {
    checks.registerForMPI("misuse does not compile") { context in
        let compiler = try Compiler()
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Misuse")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "swift" }
            .sorted { $0.path < $1.path }
        try expect(!files.isEmpty, "no file in \(folder.path)")
        for file in files {
            let marker = "// expected-error: "
            let lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
            guard let line = lines.first(where: { $0.hasPrefix(marker) }) else {
                throw CheckFailure("\(file.lastPathComponent) names no expected error")
            }
            let expected = String(line.dropFirst(marker.count))
            let misused = try compiler.compile(file, corrected: false)
            try expect(misused.status != 0, "\(file.lastPathComponent) compiles")
            let errors = misused.output.split(separator: "\n").filter { $0.contains("error: ") }
            try expect(
                errors.contains { $0.contains(expected) }, "\(file.lastPathComponent): \(misused.output)")
            let corrected = try compiler.compile(file, corrected: true)
            try expect(corrected.status == 0, "corrected \(file.lastPathComponent): \(corrected.output)")
        }
    }
}

/// The Swift compiler, set up to see the modules of this build.
private struct Compiler {
    private let executable: String
    private let arguments: [String]

    init() throws {
        guard let swiftc = Self.find("swiftc") else { throw Skipped("no swiftc on the path") }
        executable = swiftc
        let binary = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        let modules = binary.deletingLastPathComponent().appendingPathComponent("Modules")
        guard FileManager.default.fileExists(atPath: modules.appendingPathComponent("MPI.swiftmodule").path) else {
            throw Skipped("no built modules beside the executable")
        }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        var arguments = ["-swift-version", "6", "-I", modules.path]
        arguments += ["-Xcc", "-fmodule-map-file=\(root.path)/Sources/CMPI/module.modulemap"]
        if let pkgConfig = Self.find("pkg-config") {
            let mpi = ProcessInfo.processInfo.environment["ANNULUS_MPI"] ?? "ompi-c"
            let flags = try Self.run(pkgConfig, ["--cflags", mpi]).output
            for flag in flags.split(whereSeparator: \.isWhitespace) where flag.hasPrefix("-I") {
                arguments += ["-Xcc", String(flag)]
            }
        }
        self.arguments = arguments
    }

    /// Compiles as far as the checks of ownership and exclusivity go, which `-typecheck` leaves out.
    func compile(_ file: URL, corrected: Bool) throws -> (status: Int32, output: String) {
        try Self.run(
            executable,
            arguments + ["-emit-sil", "-o", "/dev/null", "-parse-as-library"] + (corrected ? ["-D", "CORRECTED"] : [])
                + [file.path])
    }

    private static func run(_ executable: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    private static func find(_ name: String) -> String? {
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
            .map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }
}
