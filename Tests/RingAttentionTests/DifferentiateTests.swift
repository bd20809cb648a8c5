// Gradients of attention: within the oracle's bound, the same bits however the work is spread, and no byte more than the formula
// says.

import Attention
import Matrices
import Plans
import RingAttention
import TestSupport
import Testing
import Tiles

@Suite struct DifferentiateTests {
  /// Runs a case on virtual ranks and holds what was sent against the plans and the formula.
  private func run(
    _ ringCase: RingCase, ranks: Int, threads: Int = 1, inputs: RingCase.GradientInputs? = nil
  ) throws -> RingCase.Gradients {
    let given = inputs ?? ringCase.gradientInputs()
    let outcomes = try VirtualRanks.run(count: ranks, seed: ringCase.seed, fillsReceives: true) {
      try ringCase.differentiate(on: $0, threads: threads, inputs: given)
    }
    #expect(
      outcomes.allSatisfy { $0.bits == outcomes[0].bits }, "the ranks gathered different results")
    let problem = ringCase.gradientProblem(ranks: ranks)
    let planner = ringCase.strategy.planner(TileDependencies(problem))
    let plans = (0..<ranks).map { planner.plan(Rank($0)) }
    try Plan.validate(plans)
    #expect(outcomes.map(\.bytesSent) == plans.map(\.bytesSent), "\(ranks) ranks, \(ringCase)")
    #expect(
      outcomes.map(\.messagesSent) == plans.map(\.messagesSent), "\(ranks) ranks, \(ringCase)")
    #expect(
      outcomes.reduce(0) { $0 + $1.bytesSent } == ByteFormula(problem).bytes(ringCase.strategy),
      "\(ranks) ranks, \(ringCase)")
    return outcomes[0]
  }

  @Test(arguments: 0..<8) func generatedCasesAgreeWithTheOracle(part: Int) throws {
    for number in 0..<GeneratedCaseTests.casesPerPart {
      let seed =
        GeneratedCaseTests.firstSeed &* 3_000_017
        &+ UInt64(part * GeneratedCaseTests.casesPerPart + number)
      // Mostly about a tile, at times more than two.
      var ringCase = RandomCase.ringCase(seed: seed, longest: number % 4 == 0 ? 540 : 290)
      let ranks = 1 + Int(seed % 16)
      let gradients = try run(ringCase, ranks: ranks, threads: 1 + ranks % 2)
      if let disagreement = ringCase.disagreement(gradients) {
        Issue.record("\(disagreement) on \(ranks) ranks in \(ringCase)")
        continue
      }
      // Another strategy, layout and rank count each time, every fourth time a single rank: the same bits.
      ringCase.strategy = Strategy.allCases[number % Strategy.allCases.count]
      ringCase.layout = Layout.allCases[number % Layout.allCases.count]
      let others = number % 4 == 1 ? 1 : 1 + (ranks + 4 + number) % 16
      #expect(
        try run(ringCase, ranks: others).bits == gradients.bits, "\(others) ranks, \(ringCase)")
    }
  }

  /// Panels that are full, heads wider than a panel, and groups of heads, in both kinds of storage.
  @Test(arguments: [ElementKind.float32, .bfloat16]) func wideHeads(element: ElementKind) throws {
    for (index, (width, valueWidth)) in [(64, 64), (128, 80), (33, 130), (96, 17)].enumerated() {
      for mask in [Mask.full, .causal, .window(left: 70, right: 10)] {
        var ringCase = RingCase(
          [SequenceShape(queries: 300, keys: 330)],
          heads: HeadShape(
            queryHeads: 2, keyValueHeads: 1 + index % 2, headDimension: width,
            valueDimension: valueWidth),
          mask: mask, seed: UInt64(width))
        ringCase.element = element
        ringCase.modifiers.softcap = index % 2 == 0 ? nil : 3
        let gradients = try run(ringCase, ranks: 1, threads: 2)
        if let disagreement = ringCase.disagreement(gradients) {
          Issue.record("\(disagreement) in \(ringCase)")
        }
        for (ranks, strategy) in zip([2, 3, 5, 4, 7, 8], Strategy.allCases) {
          ringCase.strategy = strategy
          #expect(
            try run(ringCase, ranks: ranks).bits == gradients.bits, "\(ranks) ranks, \(ringCase)")
        }
      }
    }
  }

  /// A NaN in a key, a value, a query or a gradient reaches exactly what meets it, also where a tile holds several documents.
  @Test func aNotANumberReachesOnlyWhatMeetsIt() throws {
    let lengths = [40, 100, 7, 200]
    let length = lengths.reduce(0, +)
    let documents = DocumentMask(queries: lengths, keys: lengths)
    // Not cut into its documents, whose tiles then hold several.
    let mask = Mask.or(.and(.documents(documents), .causal), .not(.full))
    let ringCase = RingCase(
      [SequenceShape(length: length)], heads: HeadShape(heads: 1, headDimension: 16), mask: mask,
      layout: .zigzag)
    #expect(mask.pieces(of: ringCase.sequences[0]).pieces.count == 1)
    let (first, poisoned) = (40, 60)
    for place in 0..<4 {
      var inputs = ringCase.gradientInputs()
      switch place {
      case 0: inputs.queries[poisoned * 16 + 3] = .nan
      case 1: inputs.keys[poisoned * 16 + 3] = .nan
      case 2: inputs.values[poisoned * 16 + 3] = .nan
      default: inputs.outputGradients[poisoned * 16 + 3] = .nan
      }
      let gradients = try run(ringCase, ranks: 3, inputs: inputs)
      // A row is poisoned alone, a column all later rows of its document; those poison what they see.
      let rows = place == 0 || place == 3 ? poisoned..<poisoned + 1 : poisoned..<first + 100
      for token in 0..<length {
        #expect(
          gradients.queries[token * 16..<token * 16 + 16].contains { $0.isNaN }
            == rows.contains(token),
          "dQ of \(token), place \(place)")
        let seen = first..<rows.upperBound
        #expect(
          gradients.keys[token * 16..<token * 16 + 16].contains { $0.isNaN }
            == seen.contains(token),
          "dK of \(token), place \(place)")
        // dV of weights, which V does not go into.
        #expect(
          gradients.values[token * 16..<token * 16 + 16].contains { $0.isNaN }
            == (place != 2 && seen.contains(token)),
          "dV of \(token), place \(place)")
      }
    }
  }

  /// What nothing meets has zeros for gradients.
  @Test func rowsAndKeysThatMeetNothing() throws {
    let shape = SequenceShape(queries: 700, keys: 300)
    let ringCase = RingCase(
      [shape], heads: HeadShape(heads: 2, headDimension: 8), mask: .window(left: 10, right: -1),
      layout: .zigzag)
    for ranks in [1, 2, 5] {
      let gradients = try run(ringCase, ranks: ranks)
      if let disagreement = ringCase.disagreement(gradients) { Issue.record("\(disagreement)") }
    }
    let unseen = RingCase(
      [SequenceShape(queries: 5, keys: 700)], heads: HeadShape(heads: 2, headDimension: 8),
      mask: .window(left: 10, right: 0), layout: .zigzag)
    for ranks in [1, 2, 5] {
      let gradients = try run(unseen, ranks: ranks)
      if let disagreement = unseen.disagreement(gradients) { Issue.record("\(disagreement)") }
      #expect(gradients.keys[..<(16 * 600)].allSatisfy { $0.bitPattern == 0 })
      #expect(gradients.values[..<(16 * 600)].allSatisfy { $0.bitPattern == 0 })
    }
  }

  /// A row all of whose scores are −∞ gives zeros, as it attends to nothing, whatever it is told to have gained.
  @Test func rowsThatSeeOnlyMinusInfinity() throws {
    var ringCase = RingCase(
      [SequenceShape(length: 90)], heads: HeadShape(heads: 1, headDimension: 16),
      mask: .window(left: 0, right: 1)
    )
    // Neighbours to the right only: the last row sees itself alone, at −∞.
    ringCase.modifiers.relativeBias = .init(table: [0, -.infinity, 0], reach: 1)
    let gradients = try run(ringCase, ranks: 2)
    #expect(gradients.queries[(89 * 16)...].allSatisfy { $0 == 0 })
    #expect(
      gradients.queries.allSatisfy { $0.isFinite } && gradients.keys.allSatisfy { $0.isFinite })
    #expect(gradients.values[..<16].allSatisfy { abs($0) < 1e-30 })
  }
}
