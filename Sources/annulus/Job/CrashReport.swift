// What a crash of the program says, before it takes the course that crashes take.

import CMPI
import Foundation
import Pipelines
import Synchronization

/// The report of a crash: one line that begins as all failures do, then the call stack.
///
/// Behind them the signal takes its usual course (a core dump, the status of a process that the signal ended), and
/// unfinished outputs are removed. The call stack is plain addresses, which addr2line(1) resolves, and is written at
/// once. The Swift runtime's own report has names and lines, but takes seconds, or for ever where a thread does not let
/// itself be stopped: it comes where `SWIFT_BACKTRACE` asks for it. A handler may neither wait for a lock nor take
/// memory (signal-safety(7)): all it needs is made beforehand.
enum CrashReport {
    private static let signals = [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT]
    /// The watchdog, which knows who this is; never freed once it is here.
    private static let watchdog = Atomic<UInt>(0)
    /// The actions of before, by number of the signal.
    private static let previous = Memory(of: sigaction(), count: 32)
    private static let wantsRuntimeReport = Atomic<Bool>(true)
    private static let isOneOfMany = Atomic<Bool>(false)
    /// Where the line is put together.
    private static let line = Memory(of: UInt8(0), count: 1024)

    /// Reports crashes from here on. Call before all else, and before MPI starts, which leaves handlers alone that are
    /// there: until then a crash that was only sent is one that the Swift runtime reports for seconds, and goes on.
    static func prepare() {
        wantsRuntimeReport.store(getenv("SWIFT_BACKTRACE") != nil, ordering: .relaxed)
        isOneOfMany.store(Launch.rankVariables.contains { getenv($0) != nil }, ordering: .relaxed)
        _ = line
        TemporaryFiles.prepare()
        for number in signals {
            var action = sigaction()
            action.setHandler { number, info, context in CrashReport.report(number, info, context) }
            action.sa_flags = SA_SIGINFO | SA_ONSTACK
            sigaction(number, &action, previous.pointer + Int(number))
        }
        cmpi_write_backtrace(-1)
    }

    /// From here on reports say which rank this is and what it was busy with.
    static func know(_ watchdog: Watchdog) {
        _ = watchdog.crashPlace
        self.watchdog.store(UInt(bitPattern: Unmanaged.passRetained(watchdog).toOpaque()), ordering: .releasing)
    }

    private static func report(
        _ number: Int32, _ info: UnsafeMutablePointer<siginfo_t>?, _ context: UnsafeMutableRawPointer?
    ) {
        // First of all, so that a fault in here is no second report.
        for number in signals { sigaction(number, previous.pointer + Int(number), nil) }
        // The kernel's own signals have positive codes; others were sent.
        let isSent = info.map { $0.pointee.si_code <= 0 } ?? true
        if let watchdog = UnsafeRawPointer(bitPattern: watchdog.load(ordering: .acquiring)) {
            let watchdog = Unmanaged<Watchdog>.fromOpaque(watchdog).takeUnretainedValue()
            watchdog.ending.speak { say(number, info, isSent: isSent, watchdog) }
            watchdog.noteCrash()
        } else if !isOneOfMany.load(ordering: .relaxed) {
            // Of many, the others will say why they are ended.
            say(number, info, isSent: isSent, nil)
        }
        TemporaryFiles.close()
        if let report = previous.pointer[Int(number)].reporter, wantsRuntimeReport.load(ordering: .relaxed) {
            // For a signal that was sent it would return to the work.
            report(number, info, context)
        } else {
            cmpi_write_backtrace(2)
        }
        signal(number, SIG_DFL)
        // A fault happens again as soon as this returns; what was sent, or would be stepped over, is sent again.
        if isSent || number == SIGTRAP { pthread_kill(pthread_self(), number) }
    }

    private static func say(
        _ number: Int32, _ info: UnsafeMutablePointer<siginfo_t>?, isSent: Bool, _ watchdog: Watchdog?
    ) {
        var text = FixedText(line)
        text.append(StandardError.endOfTransientLine)
        text.append("annulus: ")
        if let watchdog { text.append(watchdog.crashPlace) } else { text.append("the process") }
        text.append(" crashed: ")
        text.append(Signals.name(number))
        if isSent {
            let sender = info.map { cmpi_signal_sender($0) } ?? 0
            if sender != getpid() && sender != 0 {
                text.append(", sent by process ")
                text.append(Int(sender))
            }
        } else if number == SIGSEGV || number == SIGBUS {
            text.append(" at address 0x")
            text.append(hexadecimal: info.map { cmpi_fault_address($0) } ?? 0)
        }
        let position = watchdog?.position ?? Position(phase: .starting, layer: -1, tile: -1)
        text.append(", at phase '")
        text.append(position.phase.name)
        text.append("'")
        if position.layer >= 0 {
            text.append(", layer ")
            text.append(position.layer)
        }
        text.append("; a fault of the program unless somebody sent it, so please report it with what follows\n")
        text.write(to: 2)
    }
}

extension sigaction {
    /// The function that is called, where it is one that reports; nil for what the system does by itself.
    fileprivate var reporter:
        (@convention(c) (Int32, UnsafeMutablePointer<siginfo_t>?, UnsafeMutableRawPointer?) -> Void)?
    {
        guard sa_flags & SA_SIGINFO != 0 else { return nil }
        #if canImport(Darwin)
        return __sigaction_u.__sa_sigaction
        #else
        return __sigaction_handler.sa_sigaction
        #endif
    }
}

/// Memory that is there as long as the process, for code that can take none.
struct Memory<Element>: Sendable {
    private let address: UInt
    let count: Int

    init(of value: Element, count: Int) {
        let memory = UnsafeMutablePointer<Element>.allocate(capacity: count)
        memory.initialize(repeating: value, count: count)
        address = UInt(bitPattern: memory)
        self.count = count
    }

    // It came from a pointer and is never zero.
    var pointer: UnsafeMutablePointer<Element> { UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped }
}

/// Text put together in memory that is there already; what does not fit is left out.
struct FixedText {
    private let memory: UnsafeMutablePointer<UInt8>
    private let capacity: Int
    private(set) var count = 0

    init(_ memory: Memory<UInt8>) {
        self.memory = memory.pointer
        capacity = memory.count
    }

    var bytes: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(start: memory, count: count) }

    mutating func append(_ text: StaticString) {
        append(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) {
        var index = 0
        while index < bytes.count {
            append(byte: bytes[index])
            index += 1
        }
    }

    mutating func append(_ number: Int) { append(number.magnitude, base: 10) }
    mutating func append(hexadecimal number: UInt) { append(number, base: 16) }

    private mutating func append(_ number: UInt, base: UInt) {
        var unit: UInt = 1
        while number / unit >= base { unit *= base }
        while unit > 0 {
            let digit = UInt8(truncatingIfNeeded: number / unit % base)
            append(byte: digit < 10 ? 48 + digit : 87 + digit)
            unit /= base
        }
    }

    private mutating func append(byte: UInt8) {
        guard count < capacity else { return }
        memory[count] = byte
        count += 1
    }

    func write(to descriptor: Int32) {
        var done = 0
        while done < count {
            let written = Foundation.write(descriptor, memory + done, count - done)
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { return }
            done += written
        }
    }
}
