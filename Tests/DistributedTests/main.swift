// The distributed tests: run as `mpirun -np N distributed-tests [--times] [NAME]`, with any number of ranks; with a
// name, the checks whose names contain it.

import MPI
import Plans
import RingAttention

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

if CommandLine.arguments.count > 2, CommandLine.arguments[1] == "--scenario" {
    guard let scenario = Scenario(rawValue: CommandLine.arguments[2]) else { exit(64) }
    CrashReport.prepare()
    exit(scenario.run(folder: CommandLine.arguments.dropFirst(3).first ?? ""))
}

if CommandLine.arguments.count == 6, CommandLine.arguments[1] == "--traffic",
    let strategy = Strategy(rawValue: CommandLine.arguments[2]), let length = Int(CommandLine.arguments[4]),
    let ranksPerNode = Int(CommandLine.arguments[5])
{
    try reportTraffic(strategy, mask: CommandLine.arguments[3], length: length, ranksPerNode: ranksPerNode)
    exit(0)
}

if CommandLine.arguments.count == 4, CommandLine.arguments[1] == "--start-together",
    let strategy = Strategy(rawValue: CommandLine.arguments[2]), let ranks = Int(CommandLine.arguments[3]), ranks > 0
{
    exit(try startTogether(strategy, ranks: ranks) ? 0 : 1)
}

let showsTimes = CommandLine.arguments.dropFirst().first == "--times"
let filter = CommandLine.arguments.dropFirst(showsTimes ? 2 : 1).first

let succeeded = try MPIEnvironment.run { world in
    let context = CheckContext(transport: try MPITransport(world), world: try world.duplicate())
    var checks = Checks()
    registerCommunicatorChecks(&checks)
    registerTransportChecks(&checks)
    registerJobChecks(&checks)
    registerRingChecks(&checks)
    registerGeneratedChecks(&checks)
    registerFamilyChecks(&checks)
    if world.size == 1 {
        // These compile, or start whole jobs of their own: once is enough.
        registerMisuseChecks(&checks)
        registerScenarioChecks(&checks)
    }
    return try checks.run(on: context, matching: filter, showsTimes: showsTimes)
}
exit(succeeded ? 0 : 1)
