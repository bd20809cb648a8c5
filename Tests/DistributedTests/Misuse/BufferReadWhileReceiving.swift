// A buffer handed to a receive cannot be read until the receive gives it back.
// expected-error: 'buffer' used after consume

import MPI

func misuse(_ communicator: borrowing Communicator) throws -> UInt8 {
    let buffer = Buffer(repeating: UInt8(0), count: 8)
    let pending = try communicator.receive(into: buffer, from: 0, tag: 1)
    #if CORRECTED
    let received = try pending.wait()
    return received[0]
    #else
    let early = buffer[0]
    _ = try pending.wait()
    return early
    #endif
}
