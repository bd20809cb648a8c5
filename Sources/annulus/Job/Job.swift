// One run of the command over however many ranks it was started with, from launch to exit status.

import Foundation
import MPI
import Pipelines
import RingAttention
import Tiles

/// What the command line says about how a job runs.
struct JobOptions: Sendable {
    /// `--virtual-ranks`: ranks within this process.
    var virtualRanks: Int?
    /// `--threads`: threads per rank.
    var threads: Int?
    /// `--watchdog`: seconds that a job may stand still; 0: for ever.
    var watchdogSeconds = 300.0
}

/// What the work of one rank is given.
struct JobContext {
    let group: RankGroup
    /// How many threads this rank may use.
    let threads: Int
    let watchdog: Watchdog
}

/// One run of the command.
enum Job {
    /// Runs `body` on every rank and returns the status to exit with. Called once, at the start of the process.
    ///
    /// An error that the ranks agreed on ends all of them in good order, with one line from rank 0. Any other error
    /// ends the job at once: rank 0 says so in one line and aborts it, and this function does not return.
    static func run(_ options: JobOptions, body: @escaping @Sendable (JobContext) throws -> Void) -> Int32 {
        let environment = ProcessInfo.processInfo.environment
        // First of all, so that whatever happens is told once.
        let isOneOfMany = (try? Launch.detect(environment: environment).kind) == .mpi
        let rank = isOneOfMany ? Launch.rank(environment) : nil
        let expected = Launch.number(environment, Launch.localSizes)
        let ending = Ending(
            roster: rank.flatMap { Roster.join(rank: $0, expected: expected, environment: environment) })
        let isLimitUsable = options.watchdogSeconds > 0 && options.watchdogSeconds <= 1e9
        let watchdog = Watchdog(
            limit: isLimitUsable ? .milliseconds(Int(options.watchdogSeconds * 1000)) : nil, rank: rank,
            expected: expected, ending: ending)
        Signals.handle(watchdog, ending)
        CrashReport.know(watchdog)
        // A signal that has come by then ends the process, after it has said so.
        defer { if !ending.decide() { while true { sleep(1) } } }
        do {
            guard isLimitUsable || options.watchdogSeconds == 0 else {
                throw JobError(.usage, "--watchdog needs a number of seconds, or 0 for none")
            }
            watchdog.start()
            // Read on every rank, so an error here is the same on all: rank 0 alone says so.
            let launch = try Launch.detect(environment: environment, virtualRanks: options.virtualRanks)
            let threads = try ThreadShare.requested(option: options.threads, environment: environment)
            switch launch.kind {
            case .mpi:
                let status = try runMPI(launch, options, threads: threads, watchdog: watchdog, body: body)
                if let last = watchdog.whileWaiting({ ending.roster?.finish(limit: watchdog.limit) }) {
                    ending.end(watchdog.unended(last, status: status))
                }
                return status
            case .single, .virtual:
                let count = if case .virtual(let count) = launch.kind { count } else { 1 }
                _ = try VirtualRanks.run(count: count) { transport in
                    let share = try threads ?? ThreadShare.fair(transport)
                    let group = RankGroup(transport, monitor: watchdog, isVirtual: options.virtualRanks != nil)
                    try body(JobContext(group: group, threads: share, watchdog: watchdog))
                }
                return ExitStatus.done.rawValue
            }
        } catch {
            ending.standAside()
            let error = JobError(error)
            if Launch.isFirstProcess(environment) {
                ending.speak(error)
            } else {
                Launch.letFirstProcessSpeak()
            }
            ending.abandon()
            return error.status.rawValue
        }
    }

    private static func runMPI(
        _ launch: Launch, _ options: JobOptions, threads: Int?, watchdog: Watchdog,
        body: @Sendable (JobContext) throws -> Void
    ) throws -> Int32 {
        Launch.prepareEnvironment()
        return try MPIEnvironment.run(threadSupport: .multiple) { world in
            try launch.check(worldSize: world.size)
            let transport = try MPITransport(world)
            let control = world.size > 1 ? try ControlChannel(world, watchdog: watchdog) : nil
            var status = ExitStatus.done
            do {
                // Collective, so also where this rank has no use for it: others may have been given no number.
                let fair = try ThreadShare.fair(transport)
                let group = RankGroup(transport, monitor: watchdog, isVirtual: false)
                try body(JobContext(group: group, threads: threads ?? fair, watchdog: watchdog))
            } catch let failure as AgreedFailure {
                watchdog.ending.standAside()
                if world.rank == 0 { watchdog.ending.speak(JobError(failure)) }
                TemporaryFiles.removeAll()
                status = failure.status
            } catch {
                guard let control else { throw error }
                watchdog.ending.standAside()
                control.fail(JobError(error))
            }
            watchdog.progress(.finishing)
            // Every rank comes here or none: `body` has returned on all of them, or thrown the same.
            try transport.close()
            control?.stop()
            return status.rawValue
        }
    }
}
