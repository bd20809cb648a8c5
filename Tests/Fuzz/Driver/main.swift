// Runs libFuzzer on one target: FUZZ_TARGET=json fuzz [libFuzzer's options] [folders of inputs].

import FuzzTargets

if Chosen.target == nil {
    print("fuzz: FUZZ_TARGET must be one of " + FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))
} else {
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    _ = runDriver(&count, &arguments, callback)
}
