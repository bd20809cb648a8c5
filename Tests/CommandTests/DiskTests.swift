// Disks that are full or read-only, limits and quotas, files that are missing or shrink: the right line at the earliest
// moment it can be known, what was there before as it was, and nothing left behind.

import Checkpoints
import Files
import Foundation
import Testing

/// Whether this user may mount file systems where nobody else sees them.
private let mayMount: Bool = {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    process.standardError = FileHandle.nullDevice
    guard geteuid() == 0, (try? process.run()) != nil else { return false }
    process.waitUntilExit()
    return process.terminationStatus == 0
}()

/// A library that stands before the C library and fails where it is told to; nil without a compiler.
private let standIn: String? = {
    let source = #"""
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <limits.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/statvfs.h>
        #include <sys/types.h>
        #include <unistd.h>
        #include <stdio.h>

        static int asked(const char *fault) { const char *value = getenv("STAND_IN"); return value && strcmp(value, fault) == 0; }

        int fallocate(int file, int mode, off_t offset, off_t length) {
          if (asked("quota")) { errno = EDQUOT; return -1; }
          if (asked("unsupported")) { errno = EOPNOTSUPP; return -1; }
          int (*next)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate");
          return next(file, mode, offset, length);
        }
        int fallocate64(int file, int mode, off_t offset, off_t length) { return fallocate(file, mode, offset, length); }

        ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
          if (asked("quota") && count > 1000) { errno = EDQUOT; return -1; }
          ssize_t (*next)(int, const void *, size_t, off_t) = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
          return next(file, bytes, count, offset);
        }
        ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset) { return pwrite(file, bytes, count, offset); }

        // The file of weights loses its end while it is read.
        ssize_t pread(int file, void *bytes, size_t count, off_t offset) {
          ssize_t (*next)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
          if (asked("shrink") && offset > 8) {
            char link[64], path[PATH_MAX];
            snprintf(link, sizeof link, "/proc/self/fd/%d", file);
            const ssize_t length = readlink(link, path, sizeof path - 1);
            if (length > 0) { path[length] = 0; if (strstr(path, ".safetensors") && truncate(path, offset + 4) != 0) abort(); }
          }
          return next(file, bytes, count, offset);
        }
        ssize_t pread64(int file, void *bytes, size_t count, off_t offset) { return pread(file, bytes, count, offset); }

        int statvfs(const char *path, struct statvfs *status) {
          int (*next)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
          const int result = next(path, status);
          if (asked("roomy") && result == 0) status->f_bavail = 1UL << 40;
          return result;
        }
        """#
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("annulus-stand-in-\(getpid())")
    try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let (code, library) = (
        folder.appendingPathComponent("stand-in.c").path, folder.appendingPathComponent("stand-in.so").path
    )
    guard (try? source.write(toFile: code, atomically: false, encoding: .utf8)) != nil else { return nil }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["cc", "-shared", "-fPIC", "-O1", "-o", library, code, "-ldl"]
    guard (try? process.run()) != nil else { return nil }
    process.waitUntilExit()
    return process.terminationStatus == 0 ? library : nil
}()

private func failing(_ fault: String) -> [String: String] { ["LD_PRELOAD": standIn ?? "", "STAND_IN": fault] }

@Suite(.serialized) struct DiskTests {
    private let model = checkpoint("tiny-bert")
    /// A long document and a short one.
    private let text = String(repeating: "a b c d ", count: 1000) + "\none line\n"

    /// A script that runs the command with a small file system at `folder`/disk, in which a file lies already; what is
    /// there afterwards is in `left`.
    private func onDisk(_ folder: TemporaryFolder, options: String) throws -> String {
        try FileManager.default.createDirectory(atPath: folder.path("disk"), withIntermediateDirectories: true)
        let (disk, left) = (folder.path("disk"), folder.path("left"))
        return """
            mount -t tmpfs none '\(disk)' && printf before > '\(disk)/exists.npy' && mount -o 'remount,\(options)' '\(disk)' || exit 1
            "$@"
            status=$?
            { ls -A '\(disk)'; cat '\(disk)/exists.npy'; } > '\(left)'
            exit $status
            """
    }

    private func left(_ folder: TemporaryFolder) throws -> String {
        try String(contentsOfFile: folder.path("left"), encoding: .utf8)
    }

    @Test(
        .enabled(if: mayMount, "needs root and a mount namespace"), arguments: [Spread.alone, .virtual(3), .mpirun(3)],
        ["npy", "safetensors"])
    func aFullDiskIsFoundBeforeTheWork(spread: Spread, format: String) throws {
        let folder = try TemporaryFolder()
        let script = try onDisk(folder, options: "size=64k")
        let input = format == "npy" ? String(text.prefix { $0 != "\n" }) + "\n" : text
        let run = try CommandRun.annulus(
            [
                "embed", "-m", model, "--pooling", "none", "-o", folder.path("disk/out.\(format)"), "--progress",
                "always",
            ], spread, input: input, script: script, mounts: true)
        #expect(run.status == 74, "\(run.errors)")
        #expect(
            run.errorLines.count == 1 && run.errors.contains("out.\(format): cannot write: it takes ")
                && run.errors.contains(" are free"), "\(run.errors)")
        #expect(!run.errors.contains("encoding"), "the work had begun: \(run.errors)")
        #expect(try left(folder) == "exists.npy\nbefore")
    }

    @Test(.enabled(if: mayMount, "needs root and a mount namespace")) func theOutputsOfAttendAndInitAreReservedToo()
        throws
    {
        let folder = try TemporaryFolder()
        let layout = SafetensorsLayout(tensors: ["q", "k", "v"].map { ($0, .float32, [2, 700, 16]) })
        try Data(layout.headerBytes + Array(repeating: 0, count: 3 * 2 * 700 * 16 * 4)).write(
            to: URL(fileURLWithPath: folder.path("in.safetensors")))
        for arguments in [
            ["attend", "-i", folder.path("in.safetensors"), "-o", folder.path("disk/out.safetensors")],
            ["init", "--shape", "minilm", "-o", folder.path("disk")],
        ] {
            let run = try CommandRun.annulus(
                arguments, .mpirun(2), script: try onDisk(folder, options: "size=64k"), mounts: true)
            #expect(
                run.status == 74 && run.errorLines.count == 1 && run.errors.contains("cannot write: it takes "),
                "\(run.errors)")
            #expect(try left(folder) == "exists.npy\nbefore")
        }
    }

    /// Where nothing can be reserved, what is free is looked at; nothing is written to find out.
    @Test(.enabled(if: mayMount && standIn != nil, "needs root, a mount namespace and a compiler"))
    func freeSpaceIsLookedAtElsewhere() throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "--pooling", "none", "-o", folder.path("disk/out.safetensors")], input: text,
            environment: failing("unsupported"),
            script: try onDisk(folder, options: "size=64k"), mounts: true)
        #expect(
            run.status == 74 && run.errors.contains("it takes ") && run.errors.contains(" are free"), "\(run.errors)")
        #expect(try left(folder) == "exists.npy\nbefore")
        // A disk with room is written, with the same bytes.
        let roomy = try CommandRun.annulus(
            ["embed", "-m", model, "-o", folder.path("one.npy")], input: text, environment: failing("unsupported"))
        #expect(roomy.status == 0, "\(roomy.errors)")
        let plain = try CommandRun.annulus(["embed", "-m", model, "-o", folder.path("two.npy")], input: text)
        #expect(plain.status == 0, "\(plain.errors)")
        #expect(FileManager.default.contentsEqual(atPath: folder.path("one.npy"), andPath: folder.path("two.npy")))
    }

    /// The size of lines is not known beforehand: the write fails, and what was written goes.
    @Test(.enabled(if: mayMount, "needs root and a mount namespace"), arguments: [Spread.alone, .mpirun(3)])
    func linesOnAFullDiskGo(spread: Spread) throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "--pooling", "none", "-o", folder.path("disk/out.jsonl")], spread, input: text,
            script: try onDisk(folder, options: "size=64k"), mounts: true)
        #expect(
            run.status == 74 && run.errorLines.count == 1 && run.errors.contains("out.jsonl: cannot write"),
            "\(run.errors)")
        #expect(try left(folder) == "exists.npy\nbefore")
    }

    @Test(.enabled(if: mayMount, "needs root and a mount namespace"), arguments: ["npy", "jsonl"])
    func aReadOnlyFolderIsRefused(format: String) throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "-o", folder.path("disk/out.\(format)")], .mpirun(2), input: text,
            script: try onDisk(folder, options: "ro"), mounts: true)
        #expect(run.status == 73 && run.errorLines.count == 1 && run.errors.contains("out.\(format)"), "\(run.errors)")
        #expect(try left(folder) == "exists.npy\nbefore")
    }

    /// `ulimit -f`: no death by a signal, and no partial file.
    @Test(arguments: [Spread.alone, .virtual(2)], ["npy", "jsonl"]) func aLimitOfFileSizeIsAnError(
        spread: Spread, format: String
    ) throws {
        let folder = try TemporaryFolder()
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "--pooling", "none", "-o", folder.path("out.\(format)")], spread,
            input: String(text.prefix { $0 != "\n" }) + "\n", script: #"ulimit -f 64; exec "$@""#)
        #expect(run.status == 74 && run.errorLines.count == 1, "\(run.errors)")
        #expect(run.errors.contains("out.\(format): cannot write") && run.errors.contains("ulimit -f"), "\(run.errors)")
        #expect(folder.names.isEmpty, "\(folder.names)")
    }

    @Test(.enabled(if: standIn != nil, "needs a compiler"), arguments: ["npy", "jsonl"]) func aQuotaIsAnError(
        format: String
    ) throws {
        let folder = try TemporaryFolder()
        try Data("before".utf8).write(to: URL(fileURLWithPath: folder.path("out.\(format)")))
        let run = try CommandRun.annulus(
            ["embed", "-m", model, "--pooling", "none", "-o", folder.path("out.\(format)"), "--force"],
            input: String(text.prefix { $0 != "\n" }) + "\n", environment: failing("quota"))
        #expect(
            run.status == 74 && run.errorLines.count == 1 && run.errors.lowercased().contains("quota"), "\(run.errors)")
        #expect(folder.names == ["out.\(format)"])
        #expect(try String(contentsOfFile: folder.path("out.\(format)"), encoding: .utf8) == "before")
    }

    // MARK: Inputs

    @Test(arguments: [Spread.alone, .mpirun(2)]) func aMissingShardIsNamed(spread: Spread) throws {
        let folder = try TemporaryFolder()
        let broken = folder.path("model")
        try FileManager.default.copyItem(atPath: model, toPath: broken)
        let names = try TensorFile(path: broken + "/model.safetensors").names
        try FileManager.default.moveItem(
            atPath: broken + "/model.safetensors", toPath: broken + "/model-00001-of-00002.safetensors")
        let map = names.enumerated().map { "\"\($1)\": \"model-0000\($0 == 0 ? 2 : 1)-of-00002.safetensors\"" }
        try Data("{\"weight_map\": {\(map.joined(separator: ", "))}}".utf8).write(
            to: URL(fileURLWithPath: broken + "/model.safetensors.index.json"))
        let run = try CommandRun.annulus(["embed", "-m", broken, "-o", folder.path("out.npy")], spread, input: text)
        #expect(
            run.status == 66 && run.errorLines.count == 1 && run.errors.contains("model-00002-of-00002.safetensors"),
            "\(run.errors)")
        #expect(folder.names == ["model"])
    }

    @Test(.enabled(if: standIn != nil, "needs a compiler"), arguments: [Spread.alone, .virtual(2)])
    func weightsThatShrinkAreNamed(spread: Spread) throws {
        let folder = try TemporaryFolder()
        let copy = folder.path("model")
        try FileManager.default.copyItem(atPath: model, toPath: copy)
        let run = try CommandRun.annulus(
            ["embed", "-m", copy, "-o", folder.path("out.npy")], spread, input: text, environment: failing("shrink"))
        #expect(run.status == 65 && run.errorLines.count == 1, "\(run.errors)")
        // Some of it is read while the tensors are counted: then it has shrunk by the time it is opened again.
        #expect(run.errors.contains("model.safetensors: "), "\(run.errors)")
        #expect(run.errors.contains("shrank") || run.errors.contains("the file is truncated"), "\(run.errors)")
        #expect(folder.names == ["model"])
    }

    // MARK: Memory

    /// `ulimit -v` is memory too: refused beforehand where it can be known, and with the same status where it cannot.
    @Test(arguments: [Spread.alone, .virtual(2), .mpirun(2)]) func aLimitOfTheAddressSpaceIsMemory(spread: Spread)
        throws
    {
        let bench = [
            "bench", "attention", "--heads", "16", "--head-dim", "128", "--repetitions", "1", "--threads", "1",
        ]
        let run = try CommandRun.annulus(
            bench + ["--length", "400000"], spread, script: #"ulimit -v 4000000; exec "$@""#)
        #expect(run.status == 71 && run.errorLines.count == 1, "\(run.errors)")
        #expect(run.errors.contains("free") || run.errors.contains("refused"), "\(run.errors)")
    }

    @Test func weightsBeyondALimitAreRefused() throws {
        let folder = try TemporaryFolder()
        let made = try CommandRun.annulus([
            "init", "--shape", "bert-base", "--positions", "64", "-o", folder.path("model"),
        ])
        #expect(made.status == 0, "\(made.errors)")
        for limit in [1_000_000, 1_300_000] {
            let run = try CommandRun.annulus(
                ["embed", "-m", folder.path("model"), "--input-format", "ids", "--threads", "1"], input: "[101, 102]\n",
                script: "ulimit -d \(limit / 4); exec \"$@\"")
            #expect(
                run.status == 71 && run.errorLines.count == 1 && run.errors.contains("ulimit"),
                "\(limit): \(run.errors)")
        }
    }

    /// Shared memory that is promised and not there: each rank keeps its own, with a line, and the bytes are the same.
    @Test(.enabled(if: mayMount && standIn != nil, "needs root, a mount namespace and a compiler"))
    func sharedMemoryThatIsNotThereIsDoneWithout() throws {
        let arguments = ["embed", "-m", model, "--pooling", "none"]
        let alone = try CommandRun.annulus(arguments, input: text)
        // The library's own segments have room; the weights and keys of the ranks do not.
        for size in ["40k", "120k"] {
            let run = try CommandRun.annulus(
                arguments, .mpirun(2), input: text,
                environment: failing("roomy").merging(["SIZE": size, "OMPI_MCA_btl_vader_backing_directory": "/tmp"]) {
                    $1
                },
                script: #"mount -t tmpfs -o "size=$SIZE" none /dev/shm && exec "$@""#, mounts: true)
            #expect(run.status == 0 && run.output == alone.output, "\(size): \(run.errors)")
            #expect(run.errors.contains("warning: ranks 0 to 1 "), "\(size): \(run.errors)")
        }
    }

    /// Two jobs that race for shared memory which is enough for one: both end well.
    @Test(.enabled(if: mayMount, "needs root and a mount namespace")) func jobsThatRaceForSharedMemoryEndWell() throws {
        let arguments = [
            "bench", "encoder", "--shape", "minilm", "--length", "600", "--repetitions", "1", "--threads", "1",
            "--format", "json",
        ]
        let script = #"""
            mount -t tmpfs -o size=140m none /dev/shm || exit 1
            "$@" &
            "$@"
            status=$?
            wait $! && exit $status
            """#
        for _ in 0..<3 {
            let run = try CommandRun.annulus(arguments, .mpirun(2), script: script, mounts: true)
            #expect(run.status == 0, "\(run.errors)")
            let digests = try run.output.split(separator: UInt8(ascii: "\n")).map { line in
                try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])["sha256"] as? String
            }
            #expect(digests.count == 2 && digests[0] == digests[1], "\(run.errors)")
        }
    }

    /// A job that goes on may be spread over other hosts: they must all reach what is kept.
    @Test(.enabled(if: mayMount, "needs root and a mount namespace")) func aFolderThatOneHostHasForItselfIsRefused()
        throws
    {
        let folder = try TemporaryFolder()
        try "hello my dog is cute\n".write(toFile: folder.path("a.txt"), atomically: true, encoding: .utf8)
        try FileManager.default.createDirectory(atPath: folder.path("out"), withIntermediateDirectories: true)
        let apart = folder.path("apart")
        try """
        #!/bin/sh
        exec unshare -m sh -c 'mount --make-rprivate / && mount -t tmpfs none "$0" && exec "$@"' \
            '\(folder.path("out"))' '\(CommandRun.products.appendingPathComponent("annulus").path)' "$@"
        """.write(toFile: apart, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: apart)
        let run = try CommandRun.annulus(
            [
                "embed", "-m", checkpoint("tiny-bert"), "-i", folder.path("a.txt"), "-o", folder.path("out/v.npy"),
                "--resume",
            ], .lastBeing(apart, ranks: 3))
        #expect(run.status == 73, "\(run.errors)")
        #expect(
            run.errorLines.count == 1 && run.errorLines[0].contains("not all hosts share its folder"), "\(run.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path("out")).isEmpty)
    }
}
