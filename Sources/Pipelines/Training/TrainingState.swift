// How far a training has come, as a snapshot says it.

import Files
import Foundation

/// The state of a training behind some steps: everything but the weights and the optimizer's state that what follows
/// depends on, and what was logged.
struct TrainingState: Sendable {
    static let fileName = "trainer_state.json"

    /// What the training is: options that change its bytes, and digests of what it reads.
    var facts: [Journal.Fact]
    /// Steps that are done.
    var step = 0
    /// What was logged, a JSON object each.
    var log: [JSON] = []
    /// Since the last line of the log: the sum of losses, and of how many steps.
    var lossSum = 0.0
    var lossCount = 0

    init(facts: [Journal.Fact]) { self.facts = facts }

    var text: String {
        var members = JSONObject()
        for fact in facts { members.set(fact.name, .string(fact.value)) }
        return JSONText.indented([
            "global_step": .integer(step), "annulus_training": .object(members),
            // Bits, so that what is read is what was written.
            "loss_sum": .string(hexadecimal(lossSum.bitPattern)), "loss_count": .integer(lossCount),
            "log_history": .array(log),
        ]) + "\n"
    }

    /// Reads a snapshot's state.
    /// - Throws: `FileError` where it is none.
    init(path: String) throws(FileError) {
        let json = try JSON.load(path: path)
        guard let step = json["global_step"]?.int, let facts = json["annulus_training"]?.object,
            let bits = json["loss_sum"]?.string.flatMap({ UInt64($0, radix: 16) }),
            let count = json["loss_count"]?.int, let log = json["log_history"]?.array
        else {
            throw FileError(
                .malformed, path: path, "is no snapshot of annulus, or a damaged one; begin anew with --force")
        }
        self.facts = facts.members.map { Journal.Fact($0.key, $0.value.string ?? "") }
        self.step = step
        self.log = log
        (lossSum, lossCount) = (Double(bitPattern: bits), count)
    }

    /// The steps of the whole snapshots in a folder, ascending.
    static func snapshots(in folder: String) -> [Int] {
        FileBytes.names(inFolder: folder).compactMap { name -> Int? in
            guard name.hasPrefix("checkpoint-"), let step = Int(name.dropFirst("checkpoint-".count)),
                FileBytes.exists("\(folder)/\(name)/\(fileName)")
            else { return nil }
            return step
        }.sorted()
    }
}
