// Theorems about agreements, launches, thread shares and outputs: over the ranks of this run and, at one rank, over
// virtual ranks.

import Foundation
import MPI
import Pipelines
import RingAttention
import Tiles

/// Registers a check that holds over any transport.
private func registerOverAll(
    _ checks: inout Checks, _ name: String, _ body: @escaping @Sendable (any Transport) throws -> Void
) {
    checks.register(name) { transport in
        try body(transport)
        guard transport.size == 1 else { return }
        for count in [2, 3, 5, 16] { _ = try VirtualRanks.run(count: count, seed: UInt64(count)) { try body($0) } }
    }
}

func registerJobChecks(_ checks: inout Checks) {
    registerOverAll(&checks, "ranks that all succeed keep their values") { transport in
        let value = try Failure.agree(transport) { transport.rank.index * 3 }
        try expectEqual(value, transport.rank.index * 3)
    }

    registerOverAll(&checks, "an error on one rank is the same error on all, with its rank") { transport in
        let last = transport.size - 1
        let error = try agreedFailure {
            try Failure.agree(transport) {
                if transport.rank.index == last { throw JobError(.missingFile, "poem.txt: no such file") }
            }
        }
        try expectEqual(error.status, .missingFile)
        try expectEqual(
            error.message,
            last == 0 ? "poem.txt: no such file" : "poem.txt: no such file (rank \(last) on \(LocalHost.name))")
    }

    registerOverAll(&checks, "an error of all ranks names none of them") { transport in
        let error = try agreedFailure {
            try Failure.agree(transport) { throw JobError(.badInput, "Zeile 3: kein UTF-8 — é") }
        }
        try expectEqual(error, AgreedFailure(status: .badInput, message: "Zeile 3: kein UTF-8 — é"))
    }

    registerOverAll(&checks, "of several errors the lowest rank's is the job's") { transport in
        guard transport.size > 1 else { return }
        let error = try agreedFailure {
            try Failure.agree(transport) {
                if transport.rank.index > 0 { throw JobError(.memory, "needs \(transport.rank.index) GiB") }
            }
        }
        try expectEqual(error.message, "needs 1 GiB (rank 1 on \(LocalHost.name))")
    }

    registerOverAll(&checks, "a parallel file holds every rank's pieces, wherever they are written from") { transport in
        let me = transport.rank.index
        let count = transport.size
        // Which ranks reach the file: all, the even ones, rank 0 alone.
        let reaches: [(Int) -> Bool] = [{ _ in true }, { $0 % 2 == 0 }, { _ in false }]
        for (round, seeks) in reaches.enumerated() {
            let folder = try sharedFolder(transport)
            let path = folder + "/out.bin"
            try ParallelFile.checkWritable(path, force: false, transport: transport)
            try expectEqual(try list(folder, transport), [])
            let file = try ParallelFile.create(path, force: false, transport: transport, seeksFile: seeks(me))
            // Blocks of 1,001 bytes dealt to the ranks in turn, in two calls, the second one of uneven length.
            let blocks = 3 * count + 1
            let expected = (0..<blocks).flatMap { pattern(from: $0, to: round, step: 0, count: 1001) }
            let mine = (0..<blocks).filter { $0 % count == me }
            let memory = mine.map { Bytes(pattern(from: $0, to: round, step: 0, count: 1001)) }
            let pieces = zip(mine, memory).map { (offset: $0 * 1001, bytes: UnsafeRawBufferPointer($1.all)) }
            try file.write(Array(pieces.dropLast()))
            try file.write(Array(pieces.suffix(1)))
            try expect(!FileManager.default.fileExists(atPath: path), "the name is there before the end")
            try transport.barrier()
            try file.commit()
            let found = FileManager.default.contents(atPath: path) ?? Data()
            try expect(found.elementsEqual(expected), "round \(round): \(found.count) bytes of \(expected.count)")
            try expectEqual(try list(folder, transport), ["out.bin"])
            withExtendedLifetime(memory) {}

            // A second one is refused, and replaces the first where that is asked for.
            let error = try agreedFailure {
                try ParallelFile.checkWritable(path, force: false, transport: transport)
            }
            try expectEqual(error.status, .cannotCreate)
            try expect(error.message.contains(path) && error.message.contains("--force"), error.message)
            let second = try ParallelFile.create(path, force: true, transport: transport)
            let byte = Bytes([7])
            try second.write(me == count - 1 ? [(offset: 2, bytes: UnsafeRawBufferPointer(byte.all))] : [])
            try second.commit()
            try expectEqual(FileManager.default.contents(atPath: path).map(Array.init), [0, 0, 7])
            try remove(folder, transport)
        }
    }

    registerOverAll(&checks, "more than one round of pieces passes through rank 0") { transport in
        guard transport.size == 2 else { return }
        let folder = try sharedFolder(transport)
        let path = folder + "/large"
        let file = try ParallelFile.create(path, force: false, transport: transport, seeksFile: false)
        // Above the bytes of a round.
        let count = (40 << 20) + 13
        let memory = Bytes(count: transport.rank.index == 1 ? count : 0)
        for index in memory.all.indices { memory.all[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 16) }
        try file.write(transport.rank.index == 1 ? [(offset: 5, bytes: UnsafeRawBufferPointer(memory.all))] : [])
        try file.commit()
        if transport.rank.index == 1 {
            let found = FileManager.default.contents(atPath: path) ?? Data()
            try expectEqual(found.count, count + 5)
            try expect(found.dropFirst(5).elementsEqual(memory.all), "bytes differ")
        }
        try remove(folder, transport)
    }

    registerOverAll(&checks, "an abandoned file leaves nothing") { transport in
        let folder = try sharedFolder(transport)
        let file = try ParallelFile.create(folder + "/out", force: false, transport: transport)
        let byte = Bytes([1])
        try file.write([(offset: transport.rank.index, bytes: UnsafeRawBufferPointer(byte.all))])
        try expectEqual(try list(folder, transport).count, 1)
        file.abandon()
        try expectEqual(try list(folder, transport), [])
        try remove(folder, transport)
    }

    registerOverAll(&checks, "a file that comes into being meanwhile is not replaced") { transport in
        let folder = try sharedFolder(transport)
        let file = try ParallelFile.create(folder + "/out", force: false, transport: transport)
        if transport.rank.index == 0 {
            try expect(FileManager.default.createFile(atPath: folder + "/out", contents: Data([9])))
        }
        let error = try agreedFailure { try file.commit() }
        try expectEqual(error.status, .cannotCreate)
        try expectEqual(try list(folder, transport), ["out"])
        try expectEqual(FileManager.default.contents(atPath: folder + "/out").map(Array.init), [9])
        try remove(folder, transport)
    }

    registerOverAll(&checks, "an output that cannot be is refused with its reason") { transport in
        let folder = try sharedFolder(transport)
        for (path, words) in [
            (folder, "is a folder"), (folder + "/none/out", "does not exist"), ("/dev/null", "no regular file"),
            ("", "empty"),
        ] {
            let error = try agreedFailure { try ParallelFile.checkWritable(path, force: true, transport: transport) }
            try expectEqual(error.status, .cannotCreate)
            try expect(error.message.hasPrefix(path) && error.message.contains(words), error.message)
        }
        try remove(folder, transport)
    }

    checks.register("the share of processors is fair") { transport in
        let all = ProcessorMask(bytes: [0xFF])
        let low = ProcessorMask(bytes: [0x0F, 0])
        let high = ProcessorMask(bytes: [0xF0])
        try expectEqual(ThreadShare.share(of: all, among: [all]), 8)
        try expectEqual(ThreadShare.share(of: all, among: [all, all, all]), 2)
        try expectEqual(ThreadShare.share(of: low, among: [low, high]), 4)
        try expectEqual(ThreadShare.share(of: all, among: [all, low]), 6)
        try expectEqual(ThreadShare.share(of: low, among: Array(repeating: low, count: 9)), 1)
        // Three times a third of a processor is a processor, whatever the rounding.
        let three = ProcessorMask(bytes: [0b111])
        try expectEqual(ThreadShare.share(of: three, among: [three, three, three]), 1)
        let mine = try ThreadShare.fair(transport)
        let processors = ProcessorMask.current.processors.count
        try expect(mine >= 1 && mine <= processors, "\(mine) of \(processors)")
        let quota = ControlGroup.current("cpu").compactMap(\.processorQuota).min() ?? .infinity
        if transport.size == 1 { try expectEqual(mine, max(1, Int(min(Double(processors), quota)))) }
    }

    checks.register("a quota is shared by the ranks of its control group, on its host") { _ in
        let eight = ProcessorMask(bytes: [0xFF])
        func rank(_ quotas: [(group: UInt64, processors: Double)], on host: String = "a") -> ProcessorAllowance {
            ProcessorAllowance(
                host: host, mask: eight, quotas: quotas.map { .init(group: [7, $0.group], processors: $0.processors) })
        }
        func share(_ all: ProcessorAllowance...) -> Int { ThreadShare.share(of: all[0], among: all) }
        try expectEqual(share(rank([(1, 3)])), 3)
        // Rounded down, and never to nothing.
        try expectEqual(share(rank([(1, 2.99)])), 2)
        try expectEqual(share(rank([(1, 0.1)])), 1)
        try expectEqual(share(rank([(1, 1e300)])), 8)
        try expectEqual(share(rank([(1, 0.3)]), rank([(1, 0.3)]), rank([(1, 0.3)])), 1)
        // Two ranks in one group; in groups of their own; in groups of their own inside one.
        try expectEqual(share(rank([(1, 6)]), rank([(1, 6)])), 3)
        try expectEqual(share(rank([(1, 3)]), rank([(2, 6)])), 3)
        try expectEqual(share(rank([(1, 4), (2, 3)]), rank([(1, 4), (3, 3)])), 2)
        // The mask's share is smaller; a group of the same number on another host is another group.
        try expectEqual(share(rank([(1, 7)]), rank([]), rank([])), 2)
        try expectEqual(share(rank([(1, 6)]), rank([(1, 6)], on: "b")), 6)

        let all = [
            rank([]), rank([(1, 0.25), (.max, 1e300)], on: "ü"),
            ProcessorAllowance(host: "", mask: ProcessorMask(bytes: [])),
        ]
        for one in all { try expectEqual(ProcessorAllowance(one.bytes), one) }
        for count in 0..<all[1].bytes.count - 1 {
            if let cut = ProcessorAllowance(Array(all[1].bytes.prefix(count))) {
                try expect(cut != all[1], "\(count) bytes")
            }
        }
    }

    checks.register("control groups are found and their limits read, in either version") { _ in
        func folders(_ controller: String, _ text: String) -> [String] {
            ControlGroup.groups(of: controller, membership: text.split(separator: "\n")).map(\.folder)
        }
        let unified = "0::/user.slice/job:1.scope\n"
        try expectEqual(
            folders("cpu", unified),
            ["/sys/fs/cgroup", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/user.slice/job:1.scope"])
        try expectEqual(folders("memory", "0::/\n"), ["/sys/fs/cgroup"])
        let old = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/docker/7\n3:cpuset:/c\n"
        try expectEqual(folders("cpu", old), ["cpu", "cpu/docker", "cpu/docker/7"].map { "/sys/fs/cgroup/" + $0 })
        try expectEqual(folders("memory", old), ["memory", "memory/a", "memory/a/b"].map { "/sys/fs/cgroup/" + $0 })
        try expectEqual(folders("cpu", "0::/../../other\n"), ["/sys/fs/cgroup"])
        try expectEqual(folders("cpu", "nonsense\n1:2\n\n"), [])
        try expectEqual(ControlGroup.groups(of: "cpu", membership: ["0::/", "1:cpu:/"]).map(\.version), [.two, .one])

        for (text, quota) in [
            ("150000 100000", 1.5), ("max 100000", nil), ("100000 0", nil), ("", nil), ("1", nil), ("-1 100000", nil),
            ("a b", nil),
            ("1 2 3", nil), ("99999999999999999999 1", nil),
        ] as [(Substring, Double?)] { try expectEqual(ControlGroup.processorQuota(max: text), quota) }
        try expectEqual(ControlGroup.processorQuota(quota: "200000", period: "50000"), 4)
        try expectEqual(ControlGroup.processorQuota(quota: "-1", period: "100000"), nil)
        for (text, limit) in [
            ("1073741824", 0x1p30), ("0", 0), ("max", nil), ("9223372036854771712", nil), ("", nil), ("-1", nil),
            ("nan", nil),
        ] as [(Substring, Double?)] { try expectEqual(ControlGroup.memoryLimit(text), limit) }
    }

    checks.register("threads asked for come from the option, then from OMP_NUM_THREADS") { _ in
        try expectEqual(try ThreadShare.requested(option: 3, environment: ["OMP_NUM_THREADS": "5"]), 3)
        try expectEqual(try ThreadShare.requested(option: nil, environment: ["OMP_NUM_THREADS": "5,2"]), 5)
        try expectEqual(try ThreadShare.requested(option: nil, environment: [:]), nil)
        for (option, text) in [(0, nil), (-1, nil), (nil, "many"), (nil, "0")] as [(Int?, String?)] {
            do {
                _ = try ThreadShare.requested(option: option, environment: text.map { ["OMP_NUM_THREADS": $0] } ?? [:])
                throw CheckFailure("\(option as Any) \(text as Any) passed")
            } catch let error as JobError {
                try expectEqual(error.status, .usage)
            }
        }
    }

    checks.register("launchers are told apart by what they leave in the environment") { _ in
        let openMPI = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4"
        let mpich = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7 12:34:45 CDT 2022\n"
        func kind(_ environment: [String: String], _ virtual: Int? = nil, _ library: String = "") throws -> Launch.Kind
        {
            try Launch.detect(
                environment: environment, virtualRanks: virtual, library: library.isEmpty ? openMPI : library
            )
            .kind
        }
        func expectRefusal(_ words: [String], of status: ExitStatus = .environment, _ work: () throws -> Void) throws {
            do {
                try work()
            } catch let error as JobError {
                try expectEqual(error.status, status)
                for word in words { try expect(error.message.contains(word), error.message) }
                return
            }
            throw CheckFailure("accepted, and \(words) expected")
        }
        try expectEqual(try kind([:]), .single)
        try expectEqual(try kind([:], 4), .virtual(4))
        try expectEqual(try kind(["OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"]), .single)
        try expectEqual(try kind(["OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"]), .mpi)
        try expectEqual(try kind(["PMIX_RANK": "1"]), .mpi)
        let step = ["SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"]
        try expectEqual(try kind(step.merging(["PMIX_RANK": "1"]) { $1 }), .mpi)
        // A process that a batch script runs alone, in an allocation of several tasks.
        try expectEqual(try kind(["SLURM_NTASKS": "4", "SLURM_PROCID": "0"]), .single)
        // mpirun inside an allocation.
        try expectEqual(try kind(step.merging(["OMPI_COMM_WORLD_SIZE": "2"]) { $1 }), .mpi)
        try expectRefusal(["started 4 tasks", "--mpi=pmix"]) { _ = try kind(step) }
        try expectRefusal(["started 4 tasks", "--mpi=pmi2"]) { _ = try kind(step, nil, mpich) }
        try expectRefusal(["--virtual-ranks"], of: .usage) { _ = try kind(["OMPI_COMM_WORLD_SIZE": "3"], 2) }
        // PMI, of MPICH's launcher and of Slurm, is enough for MPICH; Open MPI is stopped before it starts.
        for meeting in [["PMI_RANK": "1", "PMI_SIZE": "4"], ["PMI_FD": "9", "PMI_JOBID": "7.0"], ["PMI2_FD": "9"]] {
            let tasks = step.merging(meeting) { $1 }
            try expectEqual(try kind(tasks, nil, mpich), .mpi)
            try expectRefusal(["--mpi=pmix", "PMI,"]) { _ = try kind(tasks) }
            try expectEqual(try kind(tasks.merging(["PMIX_RANK": "1"]) { $1 }), .mpi)
            try expectEqual(try kind(meeting, nil, mpich), .mpi)
            try expectRefusal(["MPICH's kind", "runs with Open MPI v4.1.4;"]) { _ = try kind(meeting) }
        }
        let intel = ["PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": "9", "I_MPI_HYDRA_UUID": "d61c"]
        try expectRefusal(["Intel MPI's launcher started 2 processes"]) { _ = try kind(intel) }
        // One task is no job that has to meet.
        let one = ["PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "9"]
        try expectEqual(try kind(one), .single)
        try expectEqual(try kind(one.merging(["SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"]) { $1 }), .single)
        // What only the size of the world tells.
        let met = try Launch.detect(environment: step.merging(["PMI_RANK": "1"]) { $1 }, library: mpich)
        try expectRefusal(["--mpi=pmi2"]) { try met.check(worldSize: 1, library: mpich) }
        try met.check(worldSize: 4, library: mpich)
        try expectRefusal(["Open MPI's launcher started 3 processes", "runs with MPICH 4.0.2;"]) {
            _ = try kind(["OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"], nil, mpich)
        }
        // Launchers under which MPI itself would fail.
        let five = ["OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0", "OMPI_VERSION": "5.0.11"]
        try expectRefusal(["Open MPI 5.0.11's launcher started 2", "runs with Open MPI v4.1.4;"]) { _ = try kind(five) }
        try expectEqual(try kind(five, nil, "Open MPI v5.0.11, package: Open MPI"), .mpi)
        let hydra = ["PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": "6", "HYDI_CONTROL_FD": "7"]
        let intelMPI = "Intel(R) MPI Library 2021.18.1 for Linux* OS"
        try expectRefusal(["MPICH's launcher started 2", "runs with Intel(R) MPI"]) {
            _ = try kind(hydra, nil, intelMPI)
        }
        try expectEqual(try kind(intel, nil, intelMPI), .mpi)
        try expectEqual(try kind(hydra, nil, mpich), .mpi)
    }

    checks.register("a progress line tells what is done, how fast, and what is left") { _ in
        try expectEqual(
            ProgressLine.text("embedding", done: 1200, total: 4000, unit: "tokens", seconds: 2),
            "embedding  1,200 of 4,000 tokens  30%  600 tokens/s  5 s left")
        try expectEqual(
            ProgressLine.text("reading", done: 1_234_567, total: 0, unit: "bytes", seconds: 1),
            "reading  1,234,567 bytes  1,234,567 bytes/s")
        try expectEqual(
            ProgressLine.text("layers", done: 1, total: 100, unit: "layers", seconds: 100),
            "layers  1 of 100 layers  1%  0.01 layers/s  2 h 45 min left")
        try expectEqual(
            ProgressLine.text("embedding", done: 0, total: 5, unit: "tokens", seconds: 2),
            "embedding  0 of 5 tokens  0%")
    }

    checks.register("text is put together without taking memory") { _ in
        let memory = Memory(of: UInt8(0), count: 20)
        var text = FixedText(memory)
        text.append("a ")
        text.append(0)
        text.append(" ")
        text.append(Int.min)
        try expectEqual(String(decoding: text.bytes, as: UTF8.self), "a 0 9223372036854775")
        text = FixedText(memory)
        text.append(hexadecimal: 0xDEAD_BEEF)
        text.append(1_000_000)
        try expectEqual(String(decoding: text.bytes, as: UTF8.self), "deadbeef1000000")
    }

    checks.register("unfinished outputs are removed once each, and not after they are forgotten") { transport in
        guard transport.rank.index == 0 else { return }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for name in ["a", "b", "c"] { try Data().write(to: URL(fileURLWithPath: "\(folder)/\(name)")) }
        for name in ["a", "b", "b"] { TemporaryFiles.register("\(folder)/\(name)") }
        TemporaryFiles.forget("\(folder)/b")
        TemporaryFiles.removeAll()
        try expectEqual(try FileManager.default.contentsOfDirectory(atPath: folder).sorted(), ["b", "c"])
        TemporaryFiles.removeAll()
        try FileManager.default.removeItem(atPath: folder)
    }

    checks.register("ranks of a host find each other without MPI, and one of them speaks") { transport in
        // A job of this process's own, of three ranks that stand for processes, and one that is gone.
        let space = ["PMIX_NAMESPACE": "test-\(getpid())-\(transport.rank.index)"]
        guard let first = Roster.join(rank: 7, expected: 3, environment: space),
            let second = Roster.join(rank: 8, expected: 3, environment: space)
        else { throw CheckFailure("no page to share") }
        try expectEqual(first.identity, second.identity)
        try expectEqual(first.others.map(\.rank), [8])
        second.note(Position(phase: .writing, layer: 3, tile: 2))
        try expectEqual(first.others.map(\.position), [Position(phase: .writing, layer: 3, tile: 2)])
        try expectEqual(first.lost.map(\.rank), [])
        try expectEqual(first.speech, .none)
        try expectEqual([first, second, first].map { $0.claimSpeech() }, [true, false, false])
        try expectEqual(second.speech, .claimed)
        first.finishSpeech()
        try expectEqual(second.speech, .done)
        second.enter(.finished)
        _ = first.finish(limit: nil)
        // The name goes with the last to come, so that the next finds nobody.
        let third = Roster.join(rank: 9, expected: 3, environment: space)
        try expectEqual(third?.others.map(\.rank), [7, 8])
        let stranger = Roster.join(rank: 9, expected: 3, environment: space)
        try expectEqual(stranger?.others.map(\.rank), [])
        stranger?.removeName()
        try expect(Roster.join(rank: 0, expected: 1, environment: [:]) == nil, "a page without a job's name")
    }

    checks.register("a heartbeat survives its message") { _ in
        let position = Position(phase: .attention, layer: 4, tile: 17)
        for kind in [.beat, .farewell, .crash, .failure(JobError(.memory, "né"))] as [Heartbeat.Kind] {
            let memory = Bytes(count: Heartbeat.byteCount)
            Heartbeat(kind: kind, count: -5, position: position).write(to: memory.all)
            let read = Heartbeat(memory.all)
            try expect(read.kind == kind && read.count == -5 && read.position == position, "\(read)")
        }
    }
}

private func agreedFailure(_ work: () throws -> Void) throws -> AgreedFailure {
    do {
        try work()
    } catch let error as AgreedFailure {
        return error
    }
    throw CheckFailure("the ranks agreed on success")
}

/// A new empty folder of rank 0's, known to all.
private func sharedFolder(_ transport: any Transport) throws -> String {
    var name: [UInt8] = []
    if transport.rank.index == 0 {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        name = Array(folder.path.utf8)
    }
    return String(decoding: try transport.allGather(name)[0], as: UTF8.self)
}

/// What is in a folder, once all ranks are done with what they did before.
private func list(_ folder: String, _ transport: any Transport) throws -> [String] {
    try transport.barrier()
    let names = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
    try transport.barrier()
    return names
}

private func remove(_ folder: String, _ transport: any Transport) throws {
    try transport.barrier()
    if transport.rank.index == 0 { try FileManager.default.removeItem(atPath: folder) }
}
