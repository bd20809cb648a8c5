// The progress of long work on standard error: done, rate, time left.

import Foundation
import Pipelines
import Synchronization

/// When progress is shown.
enum ProgressMode: String, CaseIterable, Sendable {
    /// Where standard error is a terminal.
    case auto
    /// Also elsewhere, as plain lines every few seconds.
    case always
    case never
}

/// A line that tells how far some work is. Nothing is shown for work that takes less than a second.
final class ProgressLine: ProgressDisplay, Sendable {
    private struct State {
        var shown: ContinuousClock.Instant
        var isShowing = false
    }

    private enum Form {
        case redrawn, lines, hidden
    }

    private let title: String
    private let unit: String
    private let total: Int
    private let form: Form
    private let start = ContinuousClock.now
    private let state: Mutex<State>

    /// - Parameters:
    ///   - title: what is being done, for example `embedding`.
    ///   - total: how many units there are; 0 where that is not known.
    ///   - unit: the plural of what is counted, for example `tokens`.
    ///   - isVisible: whether this rank is the one to show it.
    init(_ title: String, total: Int, unit: String, mode: ProgressMode, isVisible: Bool = true) {
        self.title = title
        self.unit = unit
        self.total = total
        if !isVisible || mode == .never {
            form = .hidden
        } else if StandardError.isTerminal {
            form = .redrawn
        } else {
            form = mode == .always ? .lines : .hidden
        }
        state = Mutex(State(shown: start))
    }

    /// Tells that `done` units are done in all.
    func advance(to done: Int) {
        guard form != .hidden else { return }
        let now = ContinuousClock.now
        guard now - start >= .seconds(1) else { return }
        state.withLock { state in
            let interval: Duration = form == .redrawn ? .milliseconds(100) : .seconds(3)
            guard !state.isShowing || now - state.shown >= interval else { return }
            state.shown = now
            state.isShowing = true
            show(Self.text(title, done: done, total: total, unit: unit, seconds: (now - start).inSeconds))
        }
    }

    /// Takes a redrawn line away; elsewhere a last line tells the whole.
    func finish(done: Int) {
        state.withLock { state in
            guard state.isShowing else { return }
            state.isShowing = false
            if form == .redrawn {
                StandardError.showTransient("")
            } else {
                show(
                    Self.text(
                        title, done: done, total: total, unit: unit, seconds: (ContinuousClock.now - start).inSeconds))
            }
        }
    }

    private func show(_ text: String) {
        if form == .redrawn { StandardError.showTransient(text) } else { StandardError.writeLine(text) }
    }

    /// For example `embedding  1,200 of 4,000 tokens  30%  600 tokens/s  5 s left`.
    static func text(_ title: String, done: Int, total: Int, unit: String, seconds: Double) -> String {
        let rate = seconds > 0 ? Double(done) / seconds : 0
        var parts = [title]
        parts.append(total > 0 ? "\(grouped(done)) of \(grouped(total)) \(unit)" : "\(grouped(done)) \(unit)")
        if total > 0 { parts.append("\(done * 100 / total)%") }
        if rate > 0 {
            parts.append(rate >= 10 ? "\(grouped(Int(rate))) \(unit)/s" : String(format: "%.2f \(unit)/s", rate))
        }
        if total > done && rate > 0 { parts.append("\(duration(Double(total - done) / rate)) left") }
        return parts.joined(separator: "  ")
    }

    private static func grouped(_ number: Int) -> String {
        var digits = String(number)
        var end = digits.count - 3
        while end > 0 {
            digits.insert(",", at: digits.index(digits.startIndex, offsetBy: end))
            end -= 3
        }
        return digits
    }

    private static func duration(_ seconds: Double) -> String {
        let whole = Int(min(seconds.rounded(.up), 1e9))
        if whole < 60 { return "\(whole) s" }
        if whole < 3600 { return "\(whole / 60) min \(whole % 60) s" }
        return "\(whole / 3600) h \(whole % 3600 / 60) min"
    }
}
