// What the ranks of one host know of each other without MPI: who is there, who still lives, and whether anybody has
// spoken.

import Foundation
import Pipelines
import Synchronization

/// A page of memory that the ranks of a host share from before MPI starts until they are gone.
///
/// MPI cannot tell of a rank that is stopped or killed while others are busy, or before it has started, or after it has
/// ended. Here every rank has a place, in which its timer counts beats and notes how far the rank is; all others can
/// look. The page also holds the right to speak, so that a failure that several ranks notice makes one line.
///
/// It is a file, in the folder that the launcher keeps for the job where there is one, and loses its name as soon as
/// all ranks of the host have come: nothing is left of it, however the job ends.
final class Roster: Sendable {
    /// What a rank has come to.
    enum State: Int {
        case absent = 0
        case working
        /// It has nothing more to do: MPI has ended.
        case finished
        /// It has said or heard why the job ends, and leaves.
        case leaving
    }

    /// How far it is with the one line that says why the job ends. Callable in a signal's handler.
    enum Speech: Int {
        case none = 0
        /// Somebody has the right to speak, and is about to.
        case claimed
        /// It stands there, written here or by a host that this one was told of.
        case done

        init(_ word: borrowing Atomic<Int>) { self = Speech(rawValue: word.load(ordering: .acquiring)) ?? .done }

        static func claim(_ word: borrowing Atomic<Int>) -> Bool {
            word.compareExchange(expected: none.rawValue, desired: claimed.rawValue, ordering: .acquiringAndReleasing)
                .exchanged
        }

        static func finish(_ word: borrowing Atomic<Int>) { word.store(done.rawValue, ordering: .releasing) }
    }

    /// What is known of a rank.
    struct Entry {
        let rank: Int
        let process: Int32
        let state: State
        let beats: Int
        let position: Position
    }

    /// The page, an integer so that any thread may be handed it.
    private let address: UInt
    /// This rank's place.
    private let place: Int
    private let path: String
    /// Whether the launcher removes the folder that the page is in.
    private let isLaunchers: Bool
    private let hasName = Atomic<Bool>(true)

    /// The page in words of eight bytes: a head of eight, then as many for each rank.
    private enum Word {
        static let speech = 0, count = 1, identity = 2
        static let process = 0, rank = 1, state = 2, beats = 3, phase = 4, layer = 5, tile = 6, namespace = 7
        static let perRank = 8
        static let bytes = 1 << 18
        static let mostRanks = bytes / (8 * perRank) - 1
    }

    /// Joins the ranks of this host.
    /// - Parameter expected: how many they will be, where the launcher says so.
    /// - Returns: nil where no page can be shared; the job then does without.
    static func join(rank: Int, expected: Int?, environment: [String: String]) -> Roster? {
        guard let name = name(environment) else { return nil }
        // The launcher's own folder goes with the job, whatever happens.
        let folders = [environment["PMIX_SERVER_TMPDIR"], "/dev/shm", NSTemporaryDirectory()]
        for folder in folders.compactMap({ $0 }) where !folder.isEmpty {
            let path = (folder as NSString).appendingPathComponent(name)
            let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            guard ftruncate(descriptor, off_t(Word.bytes)) == 0,
                let page = mmap(nil, Word.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), page != MAP_FAILED
            else {
                unlink(path)
                continue
            }
            let roster = Roster(page, path: path, isLaunchers: folder == environment["PMIX_SERVER_TMPDIR"])
            if let roster { roster.enter(rank, expected: expected) }
            return roster
        }
        return nil
    }

    private init?(_ page: UnsafeMutableRawPointer, path: String, isLaunchers: Bool) {
        self.path = path
        self.isLaunchers = isLaunchers
        address = UInt(bitPattern: page)
        let count = page.assumingMemoryBound(to: Atomic<Int>.self) + Word.count
        place = count.pointee.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue
        guard place < Word.mostRanks else {
            munmap(page, Word.bytes)
            return nil
        }
        _ = head(Word.identity).pointee.compareExchange(
            expected: 0, desired: Int.random(in: 1 ... .max), ordering: .relaxed)
    }

    private func enter(_ rank: Int, expected: Int?) {
        word(place, Word.process).pointee.store(Int(getpid()), ordering: .relaxed)
        word(place, Word.rank).pointee.store(rank, ordering: .relaxed)
        word(place, Word.namespace).pointee.store(Self.processNamespace, ordering: .relaxed)
        note(Position(phase: .starting, layer: -1, tile: -1))
        word(place, Word.state).pointee.store(State.working.rawValue, ordering: .releasing)
        if let expected, head(Word.count).pointee.load(ordering: .relaxed) >= expected { removeName() }
    }

    /// A name that the ranks of a host agree on and that no other job has; nil where the launcher gives none.
    private static func name(_ environment: [String: String]) -> String? {
        // Open MPI and PMIx name the job; Slurm numbers it, its steps and its restarts.
        if let space = environment["PMIX_NAMESPACE"] ?? environment["OMPI_MCA_ess_base_jobid"] {
            return fileName([space])
        }
        guard let job = environment["SLURM_JOB_ID"], let step = environment["SLURM_STEP_ID"] else { return nil }
        return fileName([job, step, environment["SLURM_RESTART_COUNT"] ?? "0"])
    }

    private static func fileName(_ parts: [String]) -> String {
        let text = ([String(getuid())] + parts).joined(separator: "-")
        return "annulus-"
            + String(text.map { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") ? $0 : "_" }.suffix(120))
    }

    /// The number of the space in which process numbers mean something; 0 where there is but one.
    private static var processNamespace: Int {
        var status = stat()
        return stat("/proc/self/ns/pid", &status) == 0 ? Int(status.st_ino) : 0
    }

    // MARK: - This rank

    /// Tells that this process runs.
    func beat() { word(place, Word.beats).pointee.wrappingAdd(1, ordering: .relaxed) }

    /// Tells where this rank is in its work.
    func note(_ position: Position) {
        word(place, Word.phase).pointee.store(position.phase.rawValue, ordering: .relaxed)
        word(place, Word.layer).pointee.store(position.layer, ordering: .relaxed)
        word(place, Word.tile).pointee.store(position.tile, ordering: .relaxed)
    }

    /// Tells what this rank has come to.
    func enter(_ state: State) { word(place, Word.state).pointee.store(state.rawValue, ordering: .releasing) }

    /// Tells that this rank has nothing more to do, and returns once all others of the host have nothing either, or
    /// leave.
    ///
    /// A rank that stands still between the end of MPI and its own is noticed by those that wait for it here; without
    /// them nobody would be left to notice. So the rank that came first goes last: it waits for the others' processes
    /// too. One whose timer still beats is left to that timer, which knows where it stands.
    /// - Parameter limit: how long such a process may be silent; nil: for ever.
    /// - Returns: a rank whose process is still there then.
    func finish(limit: Duration?) -> Entry? {
        enter(.finished)
        while others.contains(where: { $0.state == .working }) { usleep(1000) }
        guard place == 0 else { return nil }
        var watched: Entry?
        var silence = Silence()
        while let last = neighbours.first(where: {
            $0.state == .finished && $0.process != getpid() && !Self.isGone($0.process)
        }) {
            silence.note(isAlive: last.process != watched?.process || last.beats != watched?.beats)
            watched = last
            if let limit, silence.length >= limit { return last }
            usleep(1000)
        }
        return nil
    }

    /// Takes the page's name away. To be called where all ranks of the host are known to have come.
    func removeName() {
        if hasName.exchange(false, ordering: .relaxed) { unlink(path) }
    }

    /// Tells that this rank leaves before its time. A rank that comes only now must hear of it, so that the page's name
    /// stays where the launcher will remove it.
    func leave() {
        enter(.leaving)
        if !isLaunchers { removeName() }
    }

    /// Takes the right to speak: true for one caller of all ranks of the host.
    func claimSpeech() -> Bool { Speech.claim(head(Word.speech).pointee) }

    /// Tells that who took the right to speak has used it.
    func finishSpeech() { Speech.finish(head(Word.speech).pointee) }

    /// How far the ranks of this host are in saying why the job ends.
    var speech: Speech { Speech(head(Word.speech).pointee) }

    // MARK: - The others

    /// Tells this page from those of other hosts.
    var identity: Int { head(Word.identity).pointee.load(ordering: .relaxed) }

    /// How many ranks have come.
    var count: Int { min(Word.mostRanks, head(Word.count).pointee.load(ordering: .relaxed)) }

    /// The other ranks of the host that have come.
    var others: [Entry] { (0..<count).filter { $0 != place }.compactMap(entry) }

    /// What is at a place, once somebody has taken it.
    private func entry(_ place: Int) -> Entry? {
        func load(_ index: Int) -> Int { word(place, index).pointee.load(ordering: .relaxed) }
        let state = word(place, Word.state).pointee.load(ordering: .acquiring)
        guard let state = State(rawValue: state), state != .absent else { return nil }
        return Entry(
            rank: load(Word.rank), process: Int32(truncatingIfNeeded: load(Word.process)), state: state,
            beats: load(Word.beats),
            position: Position(
                phase: Phase(rawValue: load(Word.phase)) ?? .starting, layer: load(Word.layer), tile: load(Word.tile)))
    }

    /// The ranks that were at work and whose process is no more: killed from outside, since all else leaves a word.
    var lost: [Entry] {
        neighbours.filter { $0.state == .working && Self.isGone($0.process) }
            // It may have left between the two looks.
            .filter { lost in others.contains { $0.process == lost.process && $0.state == .working } }
    }

    /// Whether a rank of this host is at work, and can be.
    var isAnyAtWork: Bool { neighbours.contains { $0.state == .working && !Self.isGone($0.process) } }

    /// The others whose process numbers mean something here.
    private var neighbours: [Entry] {
        (0..<count).filter {
            $0 != place && word($0, Word.namespace).pointee.load(ordering: .relaxed) == Self.processNamespace
        }
        .compactMap(entry)
    }

    private static func isGone(_ process: Int32) -> Bool {
        if kill(process, 0) != 0 { return errno == ESRCH }
        // A process that nobody has waited for yet: its state stands behind the name, which ends with the last
        // parenthesis.
        guard let text = FileManager.default.contents(atPath: "/proc/\(process)/stat"),
            let end = text.lastIndex(of: UInt8(ascii: ")"))
        else { return false }
        return text.dropFirst(end - text.startIndex + 1).first { $0 != UInt8(ascii: " ") } == UInt8(ascii: "Z")
    }

    private func head(_ index: Int) -> UnsafeMutablePointer<Atomic<Int>> { words + index }

    private func word(_ place: Int, _ index: Int) -> UnsafeMutablePointer<Atomic<Int>> {
        words + (Word.perRank * (1 + place) + index)
    }

    private var words: UnsafeMutablePointer<Atomic<Int>> {
        // It came from a pointer and is never zero. The page is the process's own until it ends.
        UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped.assumingMemoryBound(to: Atomic<Int>.self)
    }
}
