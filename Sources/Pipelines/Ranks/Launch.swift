// How this process was started, read from the environment that launchers leave.

import Foundation
import MPI

/// How this process was started, and what that asks of it.
package struct Launch: Equatable {
    package enum Kind: Equatable {
        /// The only process of its job: MPI is not started at all.
        case single
        /// One of several processes, which meet through MPI.
        case mpi
        /// The only process, with several virtual ranks.
        case virtual(Int)
    }

    package var kind: Kind
    /// How many processes the launcher started, where it says so.
    var expectedRanks: Int?
    /// Whether Slurm's own launcher started this process.
    package var isSlurmStep: Bool
    /// The launcher, by the names of its variables.
    var launcher: String

    /// Reads `environment` as Open MPI's mpirun, PMIx, PMI (the launchers of MPICH and Intel MPI, Slurm) and Slurm leave
    /// it.
    /// - Parameter library: the MPI library's own name, which tells what it speaks: Open MPI PMIx alone, others PMI.
    /// - Throws: `JobError` with status `environment` where several processes were started that have no way to find
    ///   each other; with `usage` where virtual ranks are asked for in a job of several processes.
    package static func detect(
        environment: [String: String], virtualRanks: Int? = nil, library: String = MPIEnvironment.libraryVersion
    ) throws(JobError) -> Launch {
        func number(_ names: String...) -> Int? { Self.number(environment, names) }
        let isSlurmStep = environment["SLURM_STEP_ID"] != nil && environment["OMPI_COMM_WORLD_SIZE"] == nil
        // A batch script sets SLURM_NTASKS too, for a process that it runs alone: only a step's tasks are a job.
        let slurmTasks = isSlurmStep ? number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") : nil
        let hasPMIx = environment["PMIX_RANK"] != nil
        let hasPMI = ["PMI_RANK", "PMI_SIZE", "PMI_FD", "PMI2_FD"].contains { environment[$0] != nil }
        let ranks = number("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") ?? slurmTasks
        let isAlone = ranks.map { $0 <= 1 } ?? !(hasPMIx || hasPMI)
        var launch = Launch(
            kind: isAlone ? .single : .mpi, expectedRanks: ranks, isSlurmStep: isSlurmStep,
            launcher: launcher(environment))
        // Left alone, Open MPI would fill a page and end with 1.
        let isUnderstood = hasPMIx || (hasPMI ? !isOpenMPI(library) : slurmTasks == nil)
        // MPICH 5 would end with 16, without a word of this.
        let isForeign = environment["OMPI_COMM_WORLD_SIZE"] != nil && !hasPMI && !isOpenMPI(library)
        if !isAlone, !isUnderstood || isForeign || isUnusable(environment, by: library) {
            throw launch.worldOfOne(library, hasPMI: hasPMI)
        }
        if let virtualRanks {
            guard virtualRanks > 0 else { throw JobError(.usage, "--virtual-ranks needs a positive number") }
            guard isAlone else {
                throw JobError(
                    .usage, "--virtual-ranks runs all ranks in one process; start it without mpirun or srun")
            }
            launch.kind = .virtual(virtualRanks)
        }
        return launch
    }

    /// Whether a library is Open MPI, which speaks PMIx alone.
    package static func isOpenMPI(_ library: String) -> Bool { library.hasPrefix("Open MPI") }

    /// Whether the launcher is known to be one that this library cannot start under: it would end within MPI.
    private static func isUnusable(_ environment: [String: String], by library: String) -> Bool {
        // Open MPI 4 under Open MPI 5, which leads it to its own files; Intel MPI under MPICH's hydra, whose release 4 it
        // cannot use, and release 5 can.
        if library.hasPrefix("Open MPI v4") { return environment[openMPIVersion].map { !$0.hasPrefix("4") } ?? false }
        return library.hasPrefix("Intel") && environment[hydra] != nil
    }

    /// Set by the launcher of Open MPI 5 and later, and by MPICH's, Intel's not included.
    private static let openMPIVersion = "OMPI_VERSION", hydra = "HYDI_CONTROL_FD"

    private static func launcher(_ environment: [String: String]) -> String {
        if environment["OMPI_COMM_WORLD_SIZE"] != nil {
            return "Open MPI\(environment[openMPIVersion].map { " \($0)" } ?? "")'s launcher"
        }
        if environment["SLURM_STEP_ID"] != nil { return "Slurm" }
        if environment["I_MPI_HYDRA_UUID"] != nil { return "Intel MPI's launcher" }
        if environment[hydra] != nil { return "MPICH's launcher" }
        return environment["PMIX_RANK"] != nil ? "a launcher that speaks PMIx" : "a launcher of MPICH's kind"
    }

    /// Where launchers say how many processes they have started on this host.
    package static let localSizes = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"]

    /// The first of some variables that is a number.
    package static func number(_ environment: [String: String], _ names: [String]) -> Int? {
        for name in names { if let value = environment[name].flatMap({ Int($0) }) { return value } }
        return nil
    }

    /// The rank of this process, as far as the launcher tells.
    package static func rank(_ environment: [String: String]) -> Int? {
        number(environment, rankVariables)
    }

    package static let rankVariables = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"]

    /// Whether this process is the one to speak before ranks are known, as far as the launcher tells.
    package static func isFirstProcess(_ environment: [String: String] = ProcessInfo.processInfo.environment) -> Bool {
        (rank(environment) ?? 0) == 0
    }

    /// Waits, on a process that says nothing of a failure before MPI starts: a launcher ends all processes as soon as
    /// one has failed, so the one that speaks must be the first to leave.
    package static func letFirstProcessSpeak() { sleep(2) }

    /// Checks the size of the world that MPI found against what the launcher said.
    package func check(worldSize: Int, library: String = MPIEnvironment.libraryVersion) throws(JobError) {
        if let expectedRanks, expectedRanks > 1, worldSize == 1 { throw worldOfOne(library, hasPMI: false) }
    }

    /// Why each of several processes would be a job of its own.
    private func worldOfOne(_ library: String, hasPMI: Bool) -> JobError {
        let count = expectedRanks.map(String.init) ?? "several"
        let name = Release.library(library)
        guard isSlurmStep else {
            return JobError(
                .environment,
                "\(launcher) started \(count) processes that do not find each other: annulus runs with \(name); use the mpirun "
                    + "of that MPI")
        }
        let flag = Self.isOpenMPI(library) ? "--mpi=pmix" : "--mpi=pmi2"
        return JobError(
            .environment,
            "Slurm started \(count) tasks"
                + (hasPMI ? " that are to meet through PMI, and Open MPI speaks PMIx" : ", and each finds itself alone")
                + ": start them with 'srun \(flag)', or use mpirun inside the allocation")
    }

    /// How Open MPI moves messages over TCP.
    package static let tcpFlags = "OMPI_MCA_btl_tcp_flags"

    /// Chooses the environment that MPI will read, where it was not chosen before. Call before MPI starts.
    ///
    /// Open MPI's shared memory moves messages by reading the other process, which containers may forbid; it then
    /// complains on every rank. Only where that is so is the mechanism turned off, since it is the fast one.
    package static func prepareEnvironment() {
        guard isOpenMPI(MPIEnvironment.libraryVersion) else { return }
        // Over TCP, Open MPI moves a large contiguous message by a "put" that its receiver asks for, in the stream that
        // its own data fills: two ranks that send to each other then take turns (`annulus bench exchange`, pattern
        // `both`, beside `bandwidth`). Sent outright both go at once.
        setenv(tcpFlags, "send,inplace,need-ack,need-csum", 0)
        if !HostProcess.mayReadNeighboursMemory { setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0) }
    }
}
