// The world communicator cannot leave the scope in which MPI runs; a duplicate may be owned inside it.
// expected-error: 'world' is borrowed and cannot be consumed

import MPI

func misuse() throws {
    try MPIEnvironment.run { world in
        #if CORRECTED
        let kept = try world.duplicate()
        #else
        let kept = world
        #endif
        try kept.barrier()
    }
}
