// What libFuzzer calls for every input.

import FuzzTargets

/// libFuzzer's own `main`, as a function (FuzzerInterface.h).
@_silgen_name("LLVMFuzzerRunDriver")
func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// The target that the environment names: libFuzzer's processes start others of itself, with arguments of its own.
enum Chosen {
    static let target = FuzzTarget.named(environment: "FUZZ_TARGET")
}

func callback(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    // −1: an input that need not be kept.
    guard let target = Chosen.target else { return -1 }
    target.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}
