// The receive buffer of an exchange cannot be read while the message is under way.
// expected-error: overlapping accesses to 'incoming'

import MPI

func misuse(_ communicator: borrowing Communicator) throws -> UInt8 {
    let outgoing = Buffer(repeating: UInt8(0), count: 8)
    var incoming = Buffer(repeating: UInt8(0), count: 8)
    var seen: UInt8 = 0
    try communicator.exchange(sending: outgoing, to: 0, receiving: &incoming, from: 0, tag: 1) { poll in
        try poll()
        #if !CORRECTED
        seen = incoming[0]
        #endif
    }
    seen = incoming[0]
    return seen
}
