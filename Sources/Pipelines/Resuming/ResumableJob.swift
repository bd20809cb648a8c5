// A job that is saved as it goes on, and that another run of the command continues.

import Crypto
import Files
import Foundation
import RingAttention
import Tiles
import Transformers

/// What the command line says of a job that can be resumed.
package struct ResumeRequest: Sendable {
    /// What of the command line changes the output.
    package var facts: [Journal.Fact]
    /// The files that are read beside the model's, with what errors call them.
    package var inputs: [(name: String, paths: [String])]
    /// How long the work of one document may go unsaved, in seconds.
    package var saveSeconds: Double

    package init(facts: [Journal.Fact], inputs: [(name: String, paths: [String])], saveSeconds: Double) {
        self.facts = facts
        self.inputs = inputs
        self.saveSeconds = saveSeconds
    }
}

/// The output, the journal and the saved states of a job that can be resumed. All its functions are collective unless
/// they say otherwise.
///
/// Beside an output `vectors.npy` there are, until it is whole:
/// - `vectors.npy.partial`, the output so far;
/// - `vectors.npy.journal`, a ``Journal``, replaced as a whole: written under another name, synchronised, renamed;
/// - `vectors.npy.states`, where ranks share a document, or have none but it: the batch's rows between two layers, at two
///   places in turn, so that the newest states are kept until newer ones are whole.
///
/// What the journal says is done is on the disk before the journal says so. A job that is continued may be spread over
/// other ranks, since no bit depends on them.
package final class ResumableJob {
    package let file: ParallelFile
    private let session: Session
    private let output: OutputFile
    private let saveSeconds: Double
    private var journal: Journal
    private var lastSave = ContinuousClock.now
    private var saveTime = Duration.zero
    private var states: ParallelFile?
    /// What the rows add up to that this rank has written, and those that were there before, on rank 0.
    private var rowDigest: UInt64 = 0
    private var lineDigest = SHA256()
    private var isLines = false

    /// Saving may take one part of the time in so many.
    private static let shareOfSaving = 50.0

    // MARK: - Beginning

    /// Begins a job, or continues the one that the journal beside its output is of.
    /// - Throws: `AgreedFailure`: with status 65 where the journal is damaged or of another job, 73 where a folder is
    ///   not one that all hosts share, where another job is at work on the output, or where an output cannot be made.
    /// - Returns: nil where the job was complete but for the output's name, which it has now.
    static func begin(_ output: OutputFile, _ request: ResumeRequest, _ session: Session) throws -> ResumableJob? {
        let journalPath = Journal.path(for: output.path)
        let facts = try Self.facts(request, session)
        // It says all that is wrong with the output's place, and finds out who can reach it.
        let found = try session.agree { () -> [UInt8] in
            guard session.isRoot else { return [] }
            if output.mayReplace {
                try ParallelFile.checkKeptIsFree(output.path)
                try removeAll(output.path)
            }
            guard FileBytes.exists(journalPath) else {
                if !output.mayReplace && FileBytes.exists(output.path) {
                    throw JobError(
                        .cannotCreate,
                        "\(output.path): the output exists and has no journal, so the job that wrote it is through; use --force to "
                            + "make it anew, or name another output")
                }
                let partial = ParallelFile.keptPath(for: output.path)
                if FileBytes.exists(partial) {
                    throw JobError(
                        .cannotCreate, "\(partial): exists without a journal, so it is no part of this job; remove it")
                }
                return []
            }
            let journal = try Journal(FileBytes.read(path: journalPath), path: journalPath)
            if let difference = journal.difference(from: facts, path: journalPath) {
                throw JobError(.badInput, difference)
            }
            return Array(journal.text.utf8)
        }
        let told = try session.transport.allGather(found)[0]
        let journal =
            told.isEmpty
            ? Journal(facts: facts, mayReplace: output.mayReplace) : try Journal(told, path: journalPath)
        var output = output
        output.mayReplace = journal.mayReplace
        let partial = ParallelFile.keptPath(for: output.path)
        let isWhole = try session.agree {
            guard session.isRoot, journal.isComplete, FileBytes.exists(output.path) else { return false }
            // For a moment a file has both names.
            return try !FileBytes.exists(partial)
                || FileBytes.identity(path: partial) == FileBytes.identity(path: output.path)
        }
        if try session.transport.allGather([isWhole ? 1 : 0])[0] == [1] {
            try session.agree { if session.isRoot { try removeAll(output.path) } }
            return nil
        }
        let isShared = try ParallelFile.isFolderShared(output.path, force: journal.mayReplace, session.transport)
        try session.agree {
            if !isShared {
                throw JobError(
                    .cannotCreate,
                    "\(output.path): not all hosts share its folder, as --resume needs; name an output that they do")
            }
        }
        if told.isEmpty {
            try session.agree { if session.isRoot { try write(journal, to: journalPath) } }
        }
        let file = try ParallelFile.keep(
            output.path, force: journal.mayReplace, isNew: journal.isEmpty, transport: session.transport)
        // The job that held the file until now may have gone on.
        try session.agree {
            if session.isRoot, try FileBytes.read(path: journalPath) != Array(journal.text.utf8) {
                throw JobError(
                    .cannotCreate, "\(journalPath): another job has gone on with it meanwhile; run the command again")
            }
        }
        if journal.isComplete {
            try file.commit()
            try session.agree { if session.isRoot { try removeAll(output.path) } }
            return nil
        }
        if !journal.isEmpty { session.log.notice("resuming: \(journal.progress) done") }
        return ResumableJob(file, session, output, request, journal)
    }

    private init(
        _ file: ParallelFile, _ session: Session, _ output: OutputFile, _ request: ResumeRequest, _ journal: Journal
    ) {
        self.file = file
        self.session = session
        self.output = output
        self.journal = journal
        saveSeconds = request.saveSeconds
    }

    /// What the job is.
    static func facts(_ request: ResumeRequest, _ session: Session) throws -> [Journal.Fact] {
        var facts = request.facts
        facts.append(Journal.Fact("the kernels", session.kernels.name))
        for (name, digest) in session.readings { facts.append(Journal.Fact(name, hexadecimal(digest))) }
        #if os(Linux)
        let program = "/proc/self/exe"
        #else
        let program = Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
        let monitor = session.monitor
        let digests = try session.agree { () -> [Journal.Fact] in
            guard session.isRoot else { return [] }
            return try (request.inputs + [("the program", [program])]).map { name, paths in
                Journal.Fact(
                    name,
                    try paths.map { path in
                        var status = stat()
                        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
                            throw JobError(
                                .usage,
                                "\(path): --resume reads the input again, and this is no regular file: put it into one")
                        }
                        let identity = try FileBytes.identity(path: path)
                        let digest = try FileBytes.digest(path: path, part: 0, of: 1) { monitor.progress() }
                        return "\(identity.byteCount):\(hexadecimal(digest))"
                    }.joined(separator: " "))
            }
        }
        return facts + digests
    }

    // MARK: - What is done

    /// Documents that are done. Not collective.
    var documents: Int { journal.documents }
    /// Bytes of lines that are written. Not collective.
    var lineBytes: Int { journal.bytes }

    /// Of a corpus of all documents, how many items are done. Not collective.
    func finished(of corpus: Corpus) -> Int {
        (corpus.items.firstIndex { $0.document >= journal.documents } ?? corpus.items.count) + journal.passages
    }

    /// Of the items of some documents, how many are done. Not collective.
    /// - Parameter first: the first of the documents, behind those that are done or the one that is begun.
    func finished(from first: Int) -> Int { first == journal.documents ? journal.passages : 0 }

    /// What the items that are done of a begun document have given: rows of three numbers. Not collective.
    var carried: [[Int]] {
        get { journal.carried }
        set { journal.carried = newValue }
    }

    /// Tells how many documents there are. Not collective.
    func note(total: Int) { journal.total = total }

    /// Takes note of rows that this rank has written, by where they are in the output. Not collective.
    func note(rows: [(offset: Int, bytes: UnsafeRawBufferPointer)]) {
        for row in rows { rowDigest &+= FileBytes.digest(row.bytes, firstWord: row.offset / 4) }
    }

    /// Takes note of what the rows add up to that this rank has written of finished documents. Not collective.
    func note(digest: UInt64) { rowDigest &+= digest }

    /// Takes note of lines that rank 0 has written. Not collective.
    func note(lines: UnsafeRawBufferPointer) {
        lineDigest.update(bufferPointer: lines)
        journal.bytes += lines.count
    }

    /// Goes on behind the lines that are done.
    /// - Throws: `AgreedFailure` with status 65 where they are not those that the journal is of.
    func continueLines() throws {
        isLines = true
        try session.agree {
            guard session.isRoot else { return }
            try file.forEachPiece(at: 0, count: journal.bytes) { _, bytes in
                lineDigest.update(bufferPointer: bytes)
                session.monitor.progress()
            }
        }
        try check()
        try file.truncate(to: journal.bytes)
    }

    /// Goes on with an output of rows.
    /// - Parameter rows: where those are that are done.
    /// - Throws: `AgreedFailure` with status 65 where they are not those that the journal is of.
    func check(rows: [(offset: Int, count: Int)]) throws {
        let (rank, size) = (session.transport.rank.index, session.transport.size)
        rowDigest = try session.agree { () -> UInt64 in
            var digest: UInt64 = 0
            for row in rows {
                // Each rank reads its part, of whole words.
                let words = row.count / 4
                let part = rank * words / size..<(rank + 1) * words / size
                try file.forEachPiece(at: row.offset + 4 * part.lowerBound, count: 4 * part.count) { offset, bytes in
                    digest &+= FileBytes.digest(bytes, firstWord: offset / 4)
                    session.monitor.progress()
                }
            }
            return digest
        }
        try check()
    }

    private func check() throws {
        let digest = try outputDigest()
        try session.agree {
            if session.isRoot, !journal.digest.isEmpty, digest != journal.digest {
                throw JobError(
                    .badInput,
                    "\(ParallelFile.keptPath(for: output.path)): is not as the journal beside it says; begin anew with --force"
                )
            }
        }
    }

    private func outputDigest() throws -> String {
        if isLines { return lineDigest.finalize().map { hexadecimal(UInt64($0), digits: 2) }.joined() }
        return hexadecimal(try sum(rowDigest))
    }

    /// The sum of every rank's number, on all of them.
    private func sum(_ mine: UInt64) throws -> UInt64 {
        try session.transport.allGather(withUnsafeBytes(of: mine) { Array($0) }).reduce(0) { sum, bytes in
            sum &+ bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        }
    }

    // MARK: - Saving

    /// To be called where some items of a corpus are done and written: saves if it is time, and ends the job if it was
    /// told to.
    /// - Parameter upTo: the items before this one are done.
    func finish(_ corpus: Corpus, upTo item: Int) throws {
        if item == corpus.items.count {
            (journal.documents, journal.passages) = (corpus.documentsBefore + corpus.sources.count, 0)
        } else {
            let document = corpus.items[item].document
            let first = corpus.items.firstIndex { $0.document == document } ?? item
            journal.documents = corpus.documentsBefore + document
            journal.passages = item - first
        }
        try saveIfDue()
    }

    /// To be called where some documents are done and written: saves if it is time, and ends the job if it was told to.
    /// - Parameter documents: those before this one are done.
    func finish(documents: Int) throws {
        (journal.documents, journal.passages) = (documents, 0)
        try saveIfDue()
    }

    /// To be called amid the work on some documents: ends the job if it was told to, with what was done before them.
    func stopIfAsked() throws {
        guard try vote(isDue: false).stop else { return }
        try save()
        throw interrupted()
    }

    private func saveIfDue() throws {
        // What follows may take the place of states that are saved, so nothing may count on them any more.
        let hadLayers = journal.layers != nil
        journal.layers = nil
        let cost = saveTime * Self.shareOfSaving
        let due = try vote(isDue: hadLayers || lastSave + min(cost, .seconds(saveSeconds)) <= .now)
        if due.save || due.stop { try save() }
        if due.stop { throw interrupted() }
    }

    /// Writes down what is done.
    private func save() throws {
        let start = ContinuousClock.now
        session.monitor.progress(.writing)
        try file.synchronize()
        journal.digest = try outputDigest()
        try session.agree { if session.isRoot { try Self.write(journal, to: Journal.path(for: output.path)) } }
        lastSave = .now
        saveTime = lastSave - start
    }

    /// Gives the output its name, and leaves nothing else behind.
    func finish() throws {
        journal.isComplete = true
        journal.layers = nil
        try save()
        states?.abandon()
        states = nil
        try file.commit()
        try session.agree { if session.isRoot { try Self.removeAll(output.path) } }
    }

    /// Whether it is time to save, by rank 0's clock, and whether any rank was told to stop.
    private func vote(isDue: @autoclosure () -> Bool) throws -> (save: Bool, stop: Bool) {
        let mine: UInt8 = (session.isRoot && isDue() ? 1 : 0) | (Interruption.isAsked ? 2 : 0)
        let all = try session.transport.allGather([mine])
        return (all[0][0] & 1 == 1, all.contains { $0[0] & 2 == 2 })
    }

    private func interrupted() -> AgreedFailure {
        AgreedFailure(
            status: .interrupted,
            message: "interrupted by SIGUSR1, with \(journal.progress) done; run the same command again to go on")
    }

    // MARK: - Layers of a batch

    /// The bytes that saved states of a batch take on disk, with those before them.
    package static func stateBytes(tokens: Int, width: Int) -> Int { 2 * tokens * width * MemoryLayout<Float>.stride }

    /// How many items of a corpus the batch behind those that are done has, where states of it are saved; 0 where none
    /// are. Not collective.
    func itemsBegun(in corpus: Corpus) -> Int {
        guard let layers = journal.layers, corpus.finished < corpus.items.count,
            corpus.documentsBefore + corpus.items[corpus.finished].document == journal.documents
        else { return 0 }
        return min(layers.items, corpus.items.count - corpus.finished)
    }

    /// Makes room for a batch's states, and loads those that are saved.
    /// - Parameter isBegun: whether the batch is the one of which some are.
    /// - Returns: how many layers are done, whose states `run` now holds.
    func loadLayers(into run: EncoderRun, isBegun: Bool) throws -> Int {
        let (tokens, configuration) = (run.sharding.numbering.lengths.reduce(0, +), run.encoder.configuration)
        // Whoever opens it waits for those that hold it.
        states?.abandon()
        let states = try ParallelFile.keep(
            output.path, suffix: ".states", force: true, isNew: !isBegun,
            size: Self.stateBytes(tokens: tokens, width: configuration.hiddenSize), transport: session.transport)
        self.states = states
        guard isBegun, let layers = journal.layers else { return 0 }
        try session.agree {
            if layers.tokens != tokens || layers.of != configuration.layerCount {
                throw JobError(
                    .badInput,
                    "\(Journal.path(for: output.path)): its layers are of other documents; begin anew with --force")
            }
            for piece in pieces(run, place: layers.place) { try states.read(piece.bytes, at: piece.offset) }
        }
        let digest = try digest(run)
        try session.agree {
            if digest != layers.digest {
                throw JobError(
                    .badInput, "\(output.path).states: is not as the journal beside it says; begin anew with --force")
            }
        }
        return layers.done
    }

    /// To be called where a layer of a batch is done, on all ranks in step: saves if it is time, and ends the job if it was
    /// told to.
    func finish(layer: Int, of run: EncoderRun) throws {
        let layerCount = run.encoder.configuration.layerCount
        guard let states, layer < layerCount else { return }
        let due = try vote(isDue: lastSave + .seconds(saveSeconds) <= .now)
        guard due.save || due.stop else { return }
        let place = journal.layers.map { 1 - $0.place } ?? 0
        session.monitor.progress(.writing, layer: layer)
        try states.write(pieces(run, place: place).map { ($0.offset, UnsafeRawBufferPointer($0.bytes)) })
        try states.synchronize()
        let lengths = run.sharding.numbering.lengths
        journal.layers = Journal.Layers(
            done: layer, of: layerCount, items: lengths.count, tokens: lengths.reduce(0, +), place: place,
            digest: try digest(run))
        try save()
        if due.stop { throw interrupted() }
    }

    /// Where this rank's rows of a batch are in the file of states: its documents one behind another, twice.
    private func pieces(_ run: EncoderRun, place: Int) -> [(offset: Int, bytes: UnsafeMutableRawBufferPointer)] {
        let rowBytes = run.encoder.configuration.hiddenSize * MemoryLayout<Float>.stride
        var starts = [0]
        for length in run.sharding.numbering.lengths { starts.append((starts.last ?? 0) + length) }
        let first = place * (starts.last ?? 0)
        return run.tiles.map { tile in
            (
                (first + starts[tile.sequence] + tile.tokens.lowerBound) * rowBytes,
                UnsafeMutableRawBufferPointer(
                    start: UnsafeMutableRawPointer(run.hidden.pointer) + tile.firstRow * rowBytes,
                    count: tile.tokens.count * rowBytes)
            )
        }
    }

    /// A digest of a batch's rows, whichever rank has them.
    private func digest(_ run: EncoderRun) throws -> UInt64 {
        try sum(
            pieces(run, place: 0).reduce(0) {
                $0 &+ FileBytes.digest(UnsafeRawBufferPointer($1.bytes), firstWord: $1.offset / 4)
            })
    }

    // MARK: - The file system

    /// Replaces the journal: whoever reads it finds the old one or the new one, whole. Not collective.
    private static func write(_ journal: Journal, to path: String) throws(JobError) {
        try ParallelFile.replace(path, with: Array(journal.text.utf8))
    }

    /// Removes all that a job has beside its output; the journal last, which says what the rest is. Not collective.
    private static func removeAll(_ path: String) throws(JobError) {
        let journal = Journal.path(for: path)
        for name in [ParallelFile.keptPath(for: path), path + ".states", journal + ".new", journal] {
            if unlink(name) != 0 && errno != ENOENT {
                throw JobError(.cannotCreate, "\(name): cannot remove it: \(systemMessage(errno))")
            }
        }
        ParallelFile.synchronizeFolder(of: path)
    }
}
