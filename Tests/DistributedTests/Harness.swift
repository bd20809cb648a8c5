// A tiny harness for checks that run on every rank of an MPI job at once.

import MPI
import RingAttention
import Tiles

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Writes a line to standard output at once and in one piece, so that ranks' lines do not mix.
func say(_ line: String) {
    var text = line + "\n"
    text.withUTF8 { _ = write(1, $0.baseAddress, $0.count) }
}

/// What a check is given.
struct CheckContext: ~Copyable {
    let transport: MPITransport
    let world: Communicator
}

/// Thrown by a check that this machine or this number of ranks cannot run.
struct Skipped: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

/// What a check found wrong on this rank.
struct CheckFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Throws unless `condition` holds.
func expect(
    _ condition: Bool, _ message: @autoclosure () -> String = "does not hold", line: Int = #line, file: String = #fileID
) throws {
    if !condition { throw CheckFailure("\(file):\(line): \(message())") }
}

/// Throws unless both are equal.
func expectEqual<Value: Equatable>(
    _ found: Value, _ expected: Value, _ message: @autoclosure () -> String = "", line: Int = #line,
    file: String = #fileID
) throws {
    if found != expected {
        let text = message()
        throw CheckFailure(
            "\(file):\(line): \(text.isEmpty ? "" : text + ": ")found \(brief(found)), expected \(brief(expected))")
    }
}

private func brief<Value>(_ value: Value) -> String {
    let text = String(describing: value)
    return text.count <= 200 ? text : text.prefix(200) + "…"
}

/// The checks of a run, each run by all ranks in the order in which they were registered.
struct Checks: ~Copyable {
    private var checks: [(name: String, body: (borrowing CheckContext) throws -> Void)] = []

    /// Adds a check that only needs the transport.
    mutating func register(_ name: String, _ body: @escaping (MPITransport) throws -> Void) {
        checks.append((name, { try body($0.transport) }))
    }

    /// Adds a check that also needs the communicator.
    mutating func registerForMPI(_ name: String, _ body: @escaping (borrowing CheckContext) throws -> Void) {
        checks.append((name, body))
    }

    /// Runs all checks. Prints a line per failure and rank, and on rank 0 the totals. Returns whether none failed.
    ///
    /// A check fails where it throws on any rank; an agreement follows each, so that ranks stay together and every
    /// rank knows the outcome.
    ///
    /// - Parameter showsTimes: print what each took on rank 0.
    consuming func run(on context: borrowing CheckContext, matching filter: String?, showsTimes: Bool = false) throws
        -> Bool
    {
        var passed = 0
        var failed = 0
        var skipped = 0
        for check in checks where filter.map(check.name.contains) ?? true {
            let start = ContinuousClock.now
            defer {
                if showsTimes, context.world.rank == 0 {
                    let seconds = (ContinuousClock.now - start) / .seconds(1)
                    say("\(Double(Int(seconds * 1000)) / 1000) s: \(check.name)")
                }
            }
            var outcome: [UInt8] = [0]
            do {
                try check.body(context)
            } catch let skip as Skipped {
                outcome = [1]
                if context.world.rank == 0 { say("skipped: \(check.name): \(skip.reason)") }
            } catch {
                outcome = [2]
                say("failed on rank \(context.world.rank) of \(context.world.size): \(check.name): \(error)")
            }
            switch try context.world.allGather(outcome).max() {
            case 0: passed += 1
            case 1: skipped += 1
            default: failed += 1
            }
        }
        if context.world.rank == 0 { say("\(passed) passed, \(failed) failed, \(skipped) skipped") }
        return failed == 0
    }
}

/// A byte that depends on every coordinate of a message, so that a message in the wrong place is noticed.
func pattern(from: Int, to: Int, step: Int, count: Int) -> [UInt8] {
    (0..<count).map { offset in
        UInt8(truncatingIfNeeded: from &* 31 &+ to &* 57 &+ step &* 101 &+ offset &* 7 &+ (offset >> 8))
    }
}

/// Memory of a fixed address, whole or in pieces.
final class Bytes {
    let all: UnsafeMutableRawBufferPointer

    init(count: Int) {
        all = .allocate(byteCount: count, alignment: 64)
        all.initializeMemory(as: UInt8.self, repeating: 0xEE)
    }

    convenience init(_ bytes: [UInt8]) {
        self.init(count: bytes.count)
        all.copyBytes(from: bytes)
    }

    deinit { all.deallocate() }

    /// The memory cut into `count` pieces of uneven length, one of them empty.
    func pieces(_ count: Int) -> [UnsafeMutableRawBufferPointer] {
        var cuts = (0...count).map { $0 * $0 * all.count / (count * count) }
        if count > 2 { cuts[1] = 0 }
        return zip(cuts, cuts.dropFirst()).map { UnsafeMutableRawBufferPointer(rebasing: all[$0..<$1]) }
    }

    func sendPieces(_ count: Int) -> [UnsafeRawBufferPointer] { pieces(count).map { UnsafeRawBufferPointer($0) } }
    var elements: [UInt8] { Array(all) }
}
