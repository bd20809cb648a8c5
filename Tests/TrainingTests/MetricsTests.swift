// Metrics of evaluations against scipy's and scikit-learn's.

import Files
import Testing
import Training

@Suite struct MetricsTests {
    private static func whole(_ json: JSON?) -> [Int] { (json?.array ?? []).compactMap(\.int) }
    private static func marks(_ json: JSON?) -> [[Bool]] { (json?.array ?? []).map { whole($0).map { $0 == 1 } } }

    @Test func metricsAreThoseOfTheField() throws {
        let cases = try Goldens.cases("metrics")
        #expect(cases.count == 3)
        for golden in cases {
            let (chosen, truth) = (Self.whole(golden["chosen"]), Self.whole(golden["truth"]))
            #expect(abs(Metrics.accuracy(chosen, truth) - (try golden.number("accuracy"))) <= 1e-15)
            #expect(abs(Metrics.macroF1(chosen, truth) - (try golden.number("f1_macro"))) <= 1e-14)
            let micro = Metrics.microF1(Self.marks(golden["chosen_marks"]), Self.marks(golden["marks"]))
            #expect(abs(micro - (try golden.number("f1_micro"))) <= 1e-14)
            let spearman = Metrics.spearman(try golden.numbers("x"), try golden.numbers("y"))
            #expect(abs(spearman - (try golden.number("spearman"))) <= 1e-13)
        }
    }

    @Test func ofNothingThereIsNoneRight() {
        #expect(Metrics.accuracy([], []) == 0 && Metrics.macroF1([], []) == 0 && Metrics.microF1([], []) == 0)
    }

    @Test func entitiesCountWhole() {
        let truth = [["B-a", "I-a", "O", "B-b"], ["O", "B-a", "B-a"]]
        #expect(Metrics.entityF1(truth, truth) == 1)
        // One entity too short, one of another kind: of four true ones two are found, with four said.
        let chosen = [["B-a", "O", "O", "B-c"], ["O", "B-a", "B-a"]]
        #expect(Metrics.entityF1(chosen, truth) == 0.5)
        // An I- that begins, as taggers give it.
        #expect(Metrics.entityF1([["I-a", "I-a"]], [["B-a", "I-a"]]) == 1)
        #expect(Metrics.entityF1([["O"]], [["O"]]) == 0)
    }

    @Test func whatDoesNotVaryCorrelatesWithNothing() {
        #expect(Metrics.spearman([1, 1, 1], [1, 2, 3]) == 0)
        #expect(Metrics.spearman([1, 2, 3], [10, 20, 40]) == 1)
        #expect(abs(Metrics.spearman([1, 2], [3, 5]) - 1) < 1e-15)
        #expect(abs(Metrics.spearman([1, 2, 3], [3, 2, 1]) + 1) < 1e-15)
    }
}
