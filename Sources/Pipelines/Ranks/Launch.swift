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
    /// How many of them are on this host, where it says so.
    var localRanks: Int?
    /// Whether Slurm's own launcher started this process.
    package var isSlurmStep: Bool

    /// Reads `environment` as Open MPI's mpirun, PMIx, PMI (MPICH's launcher, Slurm) and Slurm leave it.
    /// - Parameter library: the MPI library's own name, which tells whether it speaks PMI: Open MPI speaks PMIx alone.
    /// - Throws: `JobError` with status `environment` where Slurm started several tasks and gave them no way to find
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
        let hasRendezvous = hasPMIx || hasPMI
        let ranks = number("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") ?? slurmTasks
        let localRanks = Self.number(environment, Self.localSizes)

        if let slurmTasks, slurmTasks > 1, !hasPMIx {
            if !hasPMI { throw worldOfOne(slurmTasks, isSlurmStep: true) }
            // Left alone, Open MPI would fill a page and end with 1.
            if library.hasPrefix("Open MPI") {
                throw JobError(
                    .environment,
                    "Slurm started \(slurmTasks) tasks that are to meet through PMI, and Open MPI speaks PMIx: start them with "
                        + "'srun --mpi=pmix', or use mpirun inside the allocation")
            }
        }
        let isAlone = ranks.map { $0 <= 1 } ?? !hasRendezvous
        if let virtualRanks {
            guard virtualRanks > 0 else { throw JobError(.usage, "--virtual-ranks needs a positive number") }
            guard isAlone else {
                throw JobError(
                    .usage, "--virtual-ranks runs all ranks in one process; start it without mpirun or srun")
            }
            return Launch(kind: .virtual(virtualRanks), expectedRanks: 1, localRanks: 1, isSlurmStep: isSlurmStep)
        }
        return Launch(
            kind: isAlone ? .single : .mpi, expectedRanks: ranks, localRanks: localRanks, isSlurmStep: isSlurmStep)
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
    package func check(worldSize: Int) throws(JobError) {
        if let expectedRanks, expectedRanks > 1, worldSize == 1 {
            throw Self.worldOfOne(expectedRanks, isSlurmStep: isSlurmStep)
        }
    }

    private static func worldOfOne(_ tasks: Int, isSlurmStep: Bool) -> JobError {
        JobError(
            .environment,
            isSlurmStep
                ? "Slurm started \(tasks) tasks, and each finds itself alone: start them with 'srun --mpi=pmix', "
                    + "or use mpirun inside the allocation"
                : "\(tasks) processes were started, and each finds itself alone: the launcher belongs to another MPI "
                    + "than the one annulus was built with; use that one's mpirun")
    }

    /// How Open MPI moves messages over TCP.
    package static let tcpFlags = "OMPI_MCA_btl_tcp_flags"

    /// Chooses the environment that MPI will read, where it was not chosen before. Call before MPI starts.
    ///
    /// Open MPI's shared memory moves messages by reading the other process, which containers may forbid; it then
    /// complains on every rank. Only where that is so is the mechanism turned off, since it is the fast one.
    package static func prepareEnvironment() {
        // Over TCP, Open MPI moves a large contiguous message by a "put" that its receiver asks for, in the stream that
        // its own data fills: two ranks that send to each other then take turns (`annulus bench exchange`, pattern
        // `both`, beside `bandwidth`). Sent outright both go at once.
        setenv(tcpFlags, "send,inplace,need-ack,need-csum", 0)
        if !HostProcess.mayReadNeighboursMemory { setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0) }
    }
}
