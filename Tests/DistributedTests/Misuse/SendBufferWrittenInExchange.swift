// The send buffer of an exchange cannot be written while the message is under way; reading it is fine.
// expected-error: overlapping accesses to 'outgoing'

import MPI

func misuse(_ communicator: borrowing Communicator) throws {
    var outgoing = Buffer(repeating: UInt8(0), count: 8)
    var incoming = Buffer(repeating: UInt8(0), count: 8)
    try communicator.exchange(sending: outgoing, to: 0, receiving: &incoming, from: 0, tag: 1) { poll in
        #if CORRECTED
        _ = outgoing[0]
        #else
        outgoing[0] = 1
        #endif
        try poll()
    }
    outgoing[0] = 2
}
