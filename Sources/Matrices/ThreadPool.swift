// Threads that take units of work from one queue while the calling thread polls the exchange.

import CKernels
import CLibrary
import Synchronization

/// A fixed number of threads, the caller's among them, that share the units of one `forEach` at a time.
///
/// `@unchecked Sendable`, the only such type of the package. Why this is sound:
/// - `threads` and `state` never change after `init`.
/// - The job (`State.job`, `count`, `generation`, `inside`, `stopping`) is read and written under `State.mutex` alone.
///   The queue's head and the mirrored generation are atomics.
/// - `forEach` hands out each index exactly once (an atomic add), so two threads never run the same unit, and a
///   worker number is in use by one thread at a time. What the body writes for its own index or worker is
///   therefore written by one thread, and it is visible to the caller afterwards: a worker leaves the job under
///   the mutex that the caller takes before `forEach` returns.
/// - The body, though it is neither `Sendable` nor escaping, is called only between the start and the return of
///   `forEach`: the caller closes the job and waits until no worker is inside it.
/// - A pool serves one `forEach` at a time; a second one, nested or concurrent, traps.
public final class ThreadPool: @unchecked Sendable {
    /// Threads that run units, the caller of `forEach` included.
    public let threads: Int
    private let state: State
    private var handles: [pthread_t] = []

    /// Threads of all pools in this process: when they outnumber the cores, idle ones sleep at once.
    private static let running = Atomic<Int>(0)

    /// Starts `threads − 1` threads; they sleep until there is work.
    public init(threads: Int) {
        precondition(threads >= 1, "a pool has at least one thread")
        self.threads = threads
        state = State()
        Self.running.add(threads, ordering: .relaxed)
        for worker in 1..<max(threads, 1) {
            let start = Unmanaged.passRetained(Start(state: state, worker: worker))
            #if canImport(Darwin)
            var handle: pthread_t?
            #else
            var handle = pthread_t()
            #endif
            let status = pthread_create(
                &handle, nil,
                { argument in
                    #if canImport(Darwin)
                    let raw = argument
                    #else
                    guard let raw = argument else { return nil }
                    #endif
                    let start = Unmanaged<Start>.fromOpaque(raw).takeRetainedValue()
                    start.state.serve(worker: start.worker)
                    return nil
                }, start.toOpaque())
            if status != 0 {
                // Fewer threads change no result: units go to whoever asks.
                start.release()
                continue
            }
            #if canImport(Darwin)
            if let handle { handles.append(handle) }
            #else
            handles.append(handle)
            #endif
        }
    }

    deinit {
        state.stop()
        for handle in handles { pthread_join(handle, nil) }
        Self.running.subtract(threads, ordering: .relaxed)
    }

    /// Runs `body` for every index in 0..<count and returns when all have finished.
    ///
    /// Units start in ascending order and finish in any; the order must not matter to the result. The calling thread
    /// takes units as worker 0, calls `poll` after each of its own, and goes on calling it while it waits for the
    /// others.
    ///
    /// - Parameters:
    ///   - count: units of work; 0 is none.
    ///   - poll: moves a pending exchange along; called on the calling thread alone.
    ///   - body: gets the unit's index and the number of the worker that runs it, in 0..<threads, by which it
    ///     finds scratch space that no one else uses at that time. It runs on several threads at once.
    public func forEach(_ count: Int, poll: (() -> Void)? = nil, _ body: (_ index: Int, _ worker: Int) -> Void) {
        if handles.isEmpty || count <= 1 {
            var index = 0
            while index < count {
                body(index, 0)
                poll?()
                index += 1
            }
            return
        }
        withoutActuallyEscaping(body) { body in
            state.open(count: count, job: body)
            while let index = state.next() {
                body(index, 0)
                poll?()
            }
            state.close(poll: poll)
        }
    }

    /// Whether the threads of all pools together outnumber this process's cores.
    private static var oversubscribed: Bool { running.load(ordering: .relaxed) > cores }

    /// The cores this process may run on.
    public static let cores = Int(annulus_cores())

    /// What one thread needs to know when it starts.
    private final class Start {
        let state: State
        let worker: Int
        init(state: State, worker: Int) {
            self.state = state
            self.worker = worker
        }
    }

    /// What the threads share; they hold it, not the pool, so that the pool's `deinit` can stop them.
    private final class State {
        private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
        private let work = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
        private let left = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
        private var job: ((Int, Int) -> Void)?
        private var count = 0
        private var generation = 0
        private var inside = 0
        private var stopping = false
        private let head = Atomic<Int>(0)
        private let announced = Atomic<Int>(0)

        init() {
            mutex.initialize(to: pthread_mutex_t())
            work.initialize(to: pthread_cond_t())
            left.initialize(to: pthread_cond_t())
            pthread_mutex_init(mutex, nil)
            pthread_cond_init(work, nil)
            pthread_cond_init(left, nil)
        }

        deinit {
            pthread_cond_destroy(left)
            pthread_cond_destroy(work)
            pthread_mutex_destroy(mutex)
            left.deallocate()
            work.deallocate()
            mutex.deallocate()
        }

        func open(count: Int, job: @escaping (Int, Int) -> Void) {
            pthread_mutex_lock(mutex)
            precondition(self.job == nil, "a pool runs one forEach at a time")
            self.job = job
            self.count = count
            head.store(0, ordering: .relaxed)
            generation += 1
            announced.store(generation, ordering: .releasing)
            pthread_cond_broadcast(work)
            pthread_mutex_unlock(mutex)
        }

        /// The next unit of the open job, for a thread that is inside it.
        func next() -> Int? {
            let index = head.add(1, ordering: .relaxed).oldValue
            return index < count ? index : nil
        }

        /// Lets no more workers in and waits for those inside. A worker that wakes late finds nothing to do, so
        /// the caller never waits for a thread that has not started.
        func close(poll: (() -> Void)?) {
            pthread_mutex_lock(mutex)
            job = nil
            while inside > 0 {
                if let poll {
                    pthread_mutex_unlock(mutex)
                    poll()
                    sched_yield()
                    pthread_mutex_lock(mutex)
                } else {
                    pthread_cond_wait(left, mutex)
                }
            }
            pthread_mutex_unlock(mutex)
        }

        func stop() {
            pthread_mutex_lock(mutex)
            stopping = true
            announced.store(-1, ordering: .releasing)
            pthread_cond_broadcast(work)
            pthread_mutex_unlock(mutex)
        }

        func serve(worker: Int) {
            var seen = 0
            while true {
                spin(until: seen)
                pthread_mutex_lock(mutex)
                while !stopping && (job == nil || generation == seen) { pthread_cond_wait(work, mutex) }
                if stopping { break }
                seen = generation
                inside += 1
                runUnits(worker: worker)
                leave()
            }
            pthread_mutex_unlock(mutex)
        }

        /// Entered with the mutex held, left without it. A function of its own, so that the worker's reference to
        /// the body, which must not outlive `forEach`, is gone before the worker leaves the job.
        @inline(never)
        private func runUnits(worker: Int) {
            let body = job
            pthread_mutex_unlock(mutex)
            guard let body else { return }
            while let index = next() { body(index, worker) }
        }

        private func leave() {
            pthread_mutex_lock(mutex)
            inside -= 1
            if inside == 0 { pthread_cond_signal(left) }
            pthread_mutex_unlock(mutex)
        }

        /// A short wait for the next job before sleeping; waking a sleeper costs tens of microseconds. It yields
        /// at every turn and is left out where the cores are taken.
        private func spin(until seen: Int) {
            if ThreadPool.oversubscribed { return }
            var turns = 0
            while turns < 200 && announced.load(ordering: .acquiring) == seen {
                sched_yield()
                turns += 1
            }
        }
    }
}
