// The thread pool: every unit once, polling from the caller alone, many pools side by side.

import Matrices
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

struct ThreadPoolTests {
    @Test("every index runs exactly once and its writes are visible afterwards", arguments: [1, 2, 3, 8])
    func everyIndexOnce(threads: Int) {
        let pool = ThreadPool(threads: threads)
        #expect(pool.threads == threads)
        let repetitions = isDebug ? 200 : 2000
        for count in [0, 1, 2, 3, 7, 64, 1000] {
            for _ in 0..<(count > 100 ? repetitions / 20 : repetitions) {
                let buffer = AlignedBuffer(count: count)
                let busy = AlignedBuffer(count: threads * 16)
                var clash = false
                pool.forEach(count) { index, worker in
                    // A worker number belongs to one thread at a time.
                    busy.pointer[worker * 16] += 1
                    buffer.pointer[index] += 1
                    if busy.pointer[worker * 16] != 1 || worker < 0 || worker >= threads { clash = true }
                    busy.pointer[worker * 16] -= 1
                }
                #expect(!clash)
                for index in 0..<count where buffer[index] != 1 {
                    Issue.record("index \(index) of \(count) ran \(buffer[index]) times on \(threads) threads")
                    return
                }
            }
        }
    }

    @Test("all threads take part when units last long enough")
    func sharing() {
        let pool = ThreadPool(threads: 3)
        let seen = AlignedBuffer(count: 3)
        // Each unit waits until three are running at once, which needs three threads.
        let running = Atomic<Int>(0)
        pool.forEach(3) { _, worker in
            running.add(1, ordering: .relaxed)
            while running.load(ordering: .relaxed) < 3 { sched_yield() }
            seen.pointer[worker] += 1
        }
        #expect((0..<3).allSatisfy { seen[$0] == 1 })
    }

    @Test("poll runs on the calling thread, after each of its units and while it waits", arguments: [1, 2, 4])
    func polling(threads: Int) {
        let pool = ThreadPool(threads: threads)
        let caller = pthread_self()
        var polls = 0, elsewhere = 0
        let own = AlignedBuffer(count: 1)
        pool.forEach(
            50,
            poll: {
                polls += 1
                if pthread_equal(pthread_self(), caller) == 0 { elsewhere += 1 }
            }
        ) { _, worker in
            if worker == 0 { own.pointer[0] += 1 }
        }
        #expect(elsewhere == 0)
        #expect(polls >= Int(own[0]))
        if threads == 1 { #expect(polls == 50) }

        // The last unit waits for a poll: it ends only if the caller goes on polling.
        guard threads > 1 else { return }
        let polled = Atomic<Bool>(false), started = Atomic<Int>(0)
        pool.forEach(2, poll: { if started.load(ordering: .relaxed) == 2 { polled.store(true, ordering: .relaxed) } }) {
            _, worker in
            started.add(1, ordering: .relaxed)
            while started.load(ordering: .relaxed) < 2 { sched_yield() }
            if worker != 0 {
                while !polled.load(ordering: .relaxed) { sched_yield() }
            }
        }
        let wasPolled = polled.load(ordering: .relaxed)
        #expect(wasPolled)
    }

    @Test("pools of several virtual ranks work side by side, one inside another's unit")
    func coexistence() {
        let outer = ThreadPool(threads: 3)
        let totals = AlignedBuffer(count: 6 * 16)
        outer.forEach(6) { rank, _ in
            let pool = ThreadPool(threads: 2)
            for _ in 0..<20 {
                let units = AlignedBuffer(count: 40)
                pool.forEach(40) { index, _ in units.pointer[index] = Float(index) }
                totals.pointer[rank * 16] += (0..<40).reduce(0) { $0 + units[$1] }
            }
        }
        #expect((0..<6).allSatisfy { totals[$0 * 16] == 20 * 780 })
    }

    @Test("a pool that never worked, or just did, ends")
    func ending() {
        for round in 0..<(isDebug ? 50 : 500) {
            let pool = ThreadPool(threads: 4)
            if round % 2 == 0 { pool.forEach(3) { _, _ in } }
        }
    }
}
