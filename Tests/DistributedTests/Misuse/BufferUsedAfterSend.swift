// A buffer handed to a send cannot be touched until the send gives it back.
// expected-error: 'buffer' used after consume

import MPI

func misuse(_ communicator: borrowing Communicator) throws {
    var buffer = Buffer(repeating: UInt8(0), count: 8)
    let pending = try communicator.send(buffer, to: 0, tag: 1)
    #if CORRECTED
    buffer = try pending.wait()
    buffer[0] = 1
    #else
    buffer[0] = 1
    buffer = try pending.wait()
    #endif
}
