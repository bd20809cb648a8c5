// A request is waited for once.
// expected-error: 'pending' consumed more than once

import MPI

func misuse(_ communicator: borrowing Communicator) throws {
    let pending = try communicator.send(Buffer(repeating: UInt8(0), count: 8), to: 0, tag: 1)
    _ = try pending.wait()
    #if !CORRECTED
    _ = try pending.wait()
    #endif
}
