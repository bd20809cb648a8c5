// The plain float64 pass that `verify` relies on: right by transformers, and what is held against it is not let
// through.

import Checkpoints
import Files
import Matrices
import Testing
import Transformers

@Suite struct ReferenceTests {
    static let names = ["tiny-bert"] + FamilyTests.names

    /// The documents of a golden, and the rows of its states that are kept.
    private func documents(_ name: String) throws -> (file: TensorFile, names: [String], ids: [[Int32]]) {
        let file = try TensorFile(path: golden(name) + "/goldens.safetensors")
        let names = file.names.filter { $0.hasSuffix(".input_ids") }.map { String($0.dropLast(10)) }
            .filter { Int($0).map { $0 <= 300 } ?? true }
        return (file, names, try names.map { try file.readIntegers("\($0).input_ids").map { Int32($0) } })
    }

    private func reference(_ name: String) throws -> (EncoderConfiguration, ReferenceEncoder) {
        let checkpoint = try Checkpoint(folder: golden(name))
        let configuration = try EncoderConfiguration(checkpoint.config, path: "config.json")
        return (configuration, ReferenceEncoder(configuration, parameters: checkpoint, threads: ThreadPool(threads: 2)))
    }

    @Test(arguments: names) func doubleStatesAreThoseOfTransformersInDouble(name: String) throws {
        let (file, names, ids) = try documents(name)
        let (configuration, reference) = try reference(name)
        let states = try reference.exactStates(ids: ids, typeIds: ids.map { $0.map { _ in 0 } })
        let width = configuration.hiddenSize
        var worst = 0.0
        for (states, document) in zip(states, names) {
            let expected = try file.readFloat32("\(document).last_hidden_state")
            let rows =
                expected.count == states.count
                ? Array(0..<states.count / width) : try file.readIntegers("\(document).rows")
            for (place, row) in rows.enumerated() {
                for column in 0..<width {
                    let (found, stored) = (states[row * width + column], Double(expected[place * width + column]))
                    // The goldens are rounded to float32, and so are the angles of rotary positions.
                    worst = max(worst, abs(found - stored) / max(1, abs(stored)))
                }
            }
        }
        print("\(name): float64 differs by \(worst)")
        #expect(worst <= 4 * Double(Float.ulpOfOne))
    }

    @Test(arguments: names) func theEncoderAgreesAndNoFaultDoes(name: String) throws {
        let (_, _, ids) = try documents(name)
        let (configuration, reference) = try reference(name)
        // Where there are types, the second ones count too.
        let types = ids.map { ids in
            ids.indices.map { configuration.tokenTypeCount > 1 && 2 * $0 >= ids.count ? Int32(1) : 0 }
        }
        let exact = try reference.exactStates(ids: ids, typeIds: types)
        let plain = try reference.plainStates(ids: ids, typeIds: types)
        let encoder = try Encoder(Checkpoint(folder: golden(name)), kernels: .best)
        let states = try hiddenStates(encoder, ids, ranks: 3, typeIds: types)
        let agreement = Agreement(states: states, exact: exact, plain: plain)
        print("\(name): off by \(agreement.error) of \(agreement.scale), plain float32 by \(agreement.plainError)")
        #expect(agreement.holds)
        // One number of one state, off by a hundred thousandth of the largest one, or none at all.
        for fault in [Float(1e-5 * agreement.scale), .nan, -.infinity] {
            var broken = states
            broken[ids.count / 2][configuration.hiddenSize / 2] += fault
            #expect(!Agreement(states: broken, exact: exact, plain: plain).holds, "\(fault)")
        }
        // States of other weights: what a kernel that is wrong somewhere gives.
        let shifted = try Encoder(
            configuration, parameters: Shifted(checkpoint: Checkpoint(folder: golden(name))), kernels: .best)
        #expect(!Agreement(states: try hiddenStates(shifted, ids, typeIds: types), exact: exact, plain: plain).holds)
    }

    /// A checkpoint of which one number in a dense layer is off by a thousandth.
    private struct Shifted: ParameterSource {
        let checkpoint: Checkpoint

        func has(_ name: String) -> Bool { checkpoint.has(name) }

        func check(_ name: String, shape: [Int]) throws(FileError) { try checkpoint.check(name, shape: shape) }

        func read(_ name: String, shape: [Int], range: Range<Int>, into floats: UnsafeMutablePointer<Float>)
            throws(FileError)
        {
            try checkpoint.read(name, shape: shape, range: range, into: floats)
            let middle = shape.reduce(1, *) / 2
            if shape.count == 2, name.contains("layer"), !name.contains("embed"), range.contains(middle) {
                floats[middle - range.lowerBound] += 1e-3
            }
        }
    }
}

@Suite struct CheckpointAuditTests {
    @Test(arguments: ReferenceTests.names) func soundCheckpointsPass(name: String) throws {
        let checkpoint = try Checkpoint(folder: golden(name))
        let audit = try CheckpointAudit(checkpoint)
        #expect(audit.unreadable.isEmpty && audit.unused.isEmpty && audit.parameters.count > 10)
        #expect(try checkpoint.notFinite().isEmpty)
    }

    @Test(arguments: TaskHeadTests.names) func headsAreFound(name: String) throws {
        let audit = try CheckpointAudit(Checkpoint(folder: golden(name)))
        #expect(
            audit.tasks
                == Task.allCases.filter { !TaskHeadTests.withoutQuestions.contains(name) || $0 != .questionAnswering })
        #expect(audit.unused.isEmpty && audit.unreadable.isEmpty)
    }
}
