// Theorems about the Swift wrapper of MPI.

import MPI

func registerCommunicatorChecks(_ checks: inout Checks) {
    checks.registerForMPI("world knows its ranks") { context in
        let ranks = try context.world.allGather([UInt8(context.world.rank)])
        try expectEqual(ranks, (0..<context.world.size).map { UInt8($0) })
        try expect(MPIEnvironment.isRunning && !MPIEnvironment.wasFinalized)
        try expect(!MPIEnvironment.libraryVersion.isEmpty)
        try expect(MPIEnvironment.standardVersion.major >= 3)
    }

    checks.registerForMPI("initialising twice is an error, not an abort") { _ in
        do {
            try MPIEnvironment.run { _ in }
        } catch let error as MPIError {
            return try expectEqual(error.operation, "MPI_Init_thread")
        }
        throw CheckFailure("a second environment started")
    }

    checks.registerForMPI("a request gives its buffer back when complete") { context in
        let world = (rank: context.world.rank, size: context.world.size)
        let next = (world.rank + 1) % world.size
        let previous = (world.rank + world.size - 1) % world.size
        for count in [0, 1, 3, 4097, 1_000_003] {
            let incoming = try context.world.receive(
                into: Buffer(repeating: UInt8(0), count: count), from: previous, tag: 7)
            let outgoing = try context.world.send(
                Buffer(pattern(from: world.rank, to: next, step: count, count: count)), to: next, tag: 7)
            let received = try incoming.wait()
            let sent = try outgoing.wait()
            try expectEqual(received.elements(), pattern(from: previous, to: world.rank, step: count, count: count))
            try expectEqual(sent.elements(), pattern(from: world.rank, to: next, step: count, count: count))
        }
    }

    checks.registerForMPI("tags keep messages apart") { context in
        let world = (rank: context.world.rank, size: context.world.size)
        let next = (world.rank + 1) % world.size
        let previous = (world.rank + world.size - 1) % world.size
        let first = try context.world.send(Buffer([Int32(1)]), to: next, tag: 1)
        let second = try context.world.send(Buffer([Int32(2)]), to: next, tag: 2)
        let two = try context.world.receive(into: Buffer([Int32(0)]), from: previous, tag: 2).wait()
        let one = try context.world.receive(into: Buffer([Int32(0)]), from: previous, tag: 1).wait()
        _ = try first.wait()
        _ = try second.wait()
        try expectEqual([one[0], two[0]], [1, 2])
    }

    checks.registerForMPI("a dropped receive is taken back") { context in
        for _ in 0..<100 {
            _ = try context.world.receive(into: Buffer([UInt8(0)]), from: context.world.rank, tag: 9)
        }
        let memory = Bytes(count: 1)
        do {
            var requests = RequestSet()
            try requests.receive([memory.all], from: context.world.rank, tag: 9, over: context.world)
            try expectEqual(requests.active, 1)
        }
        // Were one of them left, it would swallow this message.
        let sent = try context.world.send(Buffer([UInt8(5)]), to: context.world.rank, tag: 9)
        var pending = try context.world.receive(into: Buffer([UInt8(0)]), from: context.world.rank, tag: 9)
        _ = try sent.wait()
        var polls = 0
        while polls < 1_000_000, try !pending.test() { polls += 1 }
        try expect(polls < 1_000_000, "the message went to a receive that was dropped")
        try expectEqual(try pending.wait()[0], 5)
    }

    checks.registerForMPI("a dropped send is completed") { context in
        let count = 300_001
        let incoming = try context.world.receive(
            into: Buffer(repeating: UInt8(0), count: count), from: context.world.rank, tag: 10)
        do {
            _ = try context.world.send(
                Buffer(pattern(from: 1, to: 2, step: 3, count: count)), to: context.world.rank, tag: 10)
        }
        try expectEqual(try incoming.wait().elements(), pattern(from: 1, to: 2, step: 3, count: count))
    }

    checks.registerForMPI("a shorter message, or a longer one already there, is an error on the receiver") { context in
        for (sent, expected) in [(3, 4), (5, 4), (0, 1)] {
            let outgoing = try context.world.send(
                Buffer(repeating: UInt8(1), count: sent), to: context.world.rank, tag: 11)
            let incoming = try context.world.receive(
                into: Buffer(repeating: UInt8(0), count: expected), from: context.world.rank, tag: 11)
            do {
                _ = try incoming.wait()
                throw CheckFailure("\(sent) bytes passed for \(expected)")
            } catch let error as MPIError {
                try expectEqual(error.errorClass, .truncate, "\(error)")
            }
            _ = try outgoing.wait()
        }
    }

    checks.registerForMPI("an exchange moves both ways while its body runs") { context in
        let world = (rank: context.world.rank, size: context.world.size)
        let next = (world.rank + 1) % world.size
        let previous = (world.rank + world.size - 1) % world.size
        let count = 2_000_003
        let outgoing = Buffer(pattern(from: world.rank, to: next, step: 1, count: count))
        var incoming = Buffer(repeating: UInt8(0), count: count)
        var polls = 0
        try context.world.exchange(sending: outgoing, to: next, receiving: &incoming, from: previous, tag: 3) { poll in
            while polls < 200 {
                try poll()
                polls += 1
            }
        }
        try expectEqual(polls, 200)
        try expectEqual(incoming.elements(), pattern(from: previous, to: world.rank, step: 1, count: count))
    }

    checks.registerForMPI("an error in an exchange's body comes out of it") { context in
        let outgoing = Buffer([UInt8(1)])
        var incoming = Buffer([UInt8(0)])
        do {
            try context.world.exchange(
                sending: outgoing, to: context.world.rank, receiving: &incoming, from: context.world.rank, tag: 4
            ) { _ in throw Skipped("inner") }
        } catch let error as Skipped {
            return try expectEqual(error.reason, "inner")
        }
        throw CheckFailure("the error was lost")
    }

    checks.registerForMPI("communicators do not mix their messages") { context in
        let other = try context.world.duplicate()
        let me = context.world.rank
        try expectEqual(other.rank, me)
        let first = try context.world.send(Buffer([UInt8(1)]), to: me, tag: 5)
        let second = try other.send(Buffer([UInt8(2)]), to: me, tag: 5)
        try expectEqual(try other.receive(into: Buffer([UInt8(0)]), from: me, tag: 5).wait()[0], 2)
        try expectEqual(try context.world.receive(into: Buffer([UInt8(0)]), from: me, tag: 5).wait()[0], 1)
        _ = try first.wait()
        _ = try second.wait()
    }

    checks.registerForMPI("splitting groups ranks by color, ordered by key") { context in
        let me = context.world.rank
        let part = try context.world.split(color: me % 2, key: -me)
        let members = (0..<context.world.size).filter { $0 % 2 == me % 2 }
        try expectEqual(part.size, members.count)
        try expectEqual(part.rank, members.count - 1 - members.firstIndex(of: me)!)
        let ranks = try part.allGather([UInt8(me)]).map { Int($0) }
        try expectEqual(ranks, members.reversed())
        let node = try context.world.splitBySharedMemory()
        try expect(node.size >= 1 && node.size <= context.world.size)
    }

    checks.registerForMPI("broadcast and gathers move bytes of any length") { context in
        let me = context.world.rank
        let size = context.world.size
        for root in 0..<size {
            var bytes = pattern(from: me, to: 0, step: root, count: 77)
            try context.world.broadcast(&bytes, from: root)
            try expectEqual(bytes, pattern(from: root, to: 0, step: root, count: 77))
            let counts = (0..<size).map { $0 * 3 % 5 }
            let gathered = try context.world.gather(
                pattern(from: me, to: 1, step: 0, count: counts[me]), counts: counts, to: root)
            let expected = (0..<size).map { pattern(from: $0, to: 1, step: 0, count: counts[$0]) }
            try expectEqual(gathered, me == root ? expected : nil)
            try expectEqual(
                try context.world.allGather(pattern(from: me, to: 1, step: 0, count: counts[me]), counts: counts),
                expected)
        }
    }
}
