// What a job leaves behind: no handles of MPI, no shared segments, no temporary files or folders; however it is spread
// and ends.

import Foundation
import Testing

@Suite(.serialized) struct LeakTests {
    enum End: CaseIterable { case good, agreedFailure }

    /// Folders of a job's own, so that what other jobs of this machine make does not count.
    private final class Places {
        let folder: TemporaryFolder
        /// What Open MPI and the command put aside while they run, and what they keep in shared memory.
        let (temporary, shared, output): (String, String, String)

        init() throws {
            folder = try TemporaryFolder()
            (temporary, shared, output) = (folder.path("temporary"), folder.path("shared"), folder.path("output"))
            for path in [temporary, shared, output] {
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            }
        }

        var environment: [String: String] {
            [
                "TMPDIR": temporary, "ANNULUS_SHOW_HANDLES": "1", "OMPI_MCA_btl_vader_backing_directory": shared,
                "OMPI_MCA_osc_sm_backing_directory": shared, "OMPI_MCA_osc_rdma_backing_directory": shared,
            ]
        }

        func names(_ path: String) -> [String] {
            ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
        }
    }

    /// The numbers of a line of `ANNULUS_SHOW_HANDLES`: handles left and made, kind by kind.
    private func handles(_ errors: String) -> [[(left: Int, made: Int)]] {
        errors.split(separator: "\n").filter { $0.hasPrefix("handles: rank") }.map { line in
            line.split(separator: ",").map { part in
                let words = part.split(separator: " ")
                let of = words.firstIndex(of: "of") ?? 1
                return (Int(words[of - 1]) ?? -1, Int(words[of + 1]) ?? -1)
            }
        }
    }

    @Test(arguments: [Spread.alone, .virtual(3), .mpirun(1), .mpirun(2), .mpirun(3)], End.allCases)
    func nothingIsLeft(_ spread: Spread, _ end: End) throws {
        let places = try Places()
        let input = places.folder.path("input.txt")
        try (Data("one line\nand another\n".utf8) + (end == .good ? Data() : Data([0xFF]))).write(
            to: URL(fileURLWithPath: input))
        let run = try CommandRun.annulus(
            ["embed", "-m", checkpoint("tiny-bert"), "-i", input, "-o", places.output + "/out.npy", "--quiet"], spread,
            environment: places.environment)
        #expect(run.status == (end == .good ? 0 : 65), "\(run.errors)")
        #expect(places.names(places.output) == (end == .good ? ["out.npy"] : []))
        #expect(places.names(places.temporary) == [])
        #expect(places.names(places.shared) == [])
        let handles = handles(run.errors)
        // One rank is a rank alone, under mpirun too, and needs no MPI.
        guard case .mpirun(let ranks) = spread, ranks > 1 else { return #expect(handles.isEmpty) }
        #expect(handles.count == ranks, "\(run.errors)")
        #expect(handles.allSatisfy { $0.allSatisfy { $0.left == 0 } }, "\(run.errors)")
        // Neighbours have communicators, a window of weights, and messages.
        #expect(handles.allSatisfy { $0[0].made > 0 && $0[1].made > 0 && $0[3].made > 0 }, "\(run.errors)")
    }

    /// A rank that fails by itself ends the job at once, and MPI's own files go all the same.
    @Test(arguments: [2, 3]) func nothingIsLeftWhereOneRankFails(_ ranks: Int) throws {
        let places = try Places()
        let process = CommandRun.process(
            ["--scenario", "failsLater", places.output], .mpirun(ranks), environment: places.environment,
            folder: places.folder)
        process.arguments = (process.arguments ?? []).map {
            $0.hasSuffix("/annulus") ? String($0.dropLast("annulus".count)) + "distributed-tests" : $0
        }
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus != 0)
        for path in [places.output, places.temporary, places.shared] { #expect(places.names(path) == []) }
    }
}
