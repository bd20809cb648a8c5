// A communicator has one owner, so that it is freed once.
// expected-error: 'owned' consumed more than once

import MPI

func misuse(_ world: borrowing Communicator) throws -> (Int, Int) {
    let owned = try world.duplicate()
    let first = owned
    #if CORRECTED
    let second = try first.duplicate()
    #else
    let second = owned
    #endif
    return (first.size, second.size)
}
