// What the launcher and the host allow this process: processors, and the memory of its neighbours.

import CMPI
import Foundation

/// This process as a guest of its host.
public enum HostProcess {
    /// The processors this process may run on: bit p of byte p / 8 stands for processor p.
    ///
    /// The corresponding C function is `sched_getaffinity`; elsewhere than on Linux, all active processors.
    public static var affinityMask: [UInt8] {
        #if os(Linux)
        var mask = [UInt8](repeating: 0, count: 1024)
        let length = cmpi_process_affinity(&mask, UInt(mask.count))
        if length > 0 { return Array(mask.prefix(length)) }
        #endif
        let count = ProcessInfo.processInfo.activeProcessorCount
        var all = [UInt8](repeating: 0, count: (count + 7) / 8)
        for processor in 0..<count { all[processor / 8] |= 1 << UInt8(processor % 8) }
        return all
    }

    /// Whether the processes of one user may read each other's memory, which MPI uses to move messages within a
    /// host. Where the kernel's Yama module limits that to children the answer is yes, because MPI asks for leave.
    ///
    /// The corresponding C function is `process_vm_readv`, tried on the launcher at an address that is never mapped.
    public static var mayReadNeighboursMemory: Bool {
        #if os(Linux)
        let yama = (try? String(contentsOfFile: "/proc/sys/kernel/yama/ptrace_scope", encoding: .utf8)) ?? "0"
        let isLimited = yama.trimmingCharacters(in: .whitespacesAndNewlines) != "0"
        let error = cmpi_process_read_error()
        return error != ENOSYS && (error != EPERM || isLimited)
        #else
        return true
        #endif
    }

    /// The bytes that are free where the library keeps memory that processes share, which containers often limit to 64
    /// MiB; nil where there is no such place.
    ///
    /// The corresponding C function is `statvfs`, asked of `/dev/shm`.
    public static var freeSharedMemory: Int? {
        #if os(Linux)
        var status = statvfs()
        guard statvfs("/dev/shm", &status) == 0 else { return nil }
        return Int(status.f_bavail) * Int(status.f_frsize)
        #else
        return nil
        #endif
    }
}
