// Decomposition and composition, canonical and compatible, that keep track of where scalars come from.

/// The scalars of a text in a normalization form (UAX #15), each with the number of scalars of the text that it takes
/// the place of.
///
/// Origins are then dealt out in order: a scalar that takes the place of n ≥ 1 gets the first of the next n, one that
/// takes none gets the one before. Where marks change places this gives each the origin of its new place, as the
/// reference implementation does.
private struct NormalForm {
    var scalars: [UInt32] = []
    var taken: [Int32] = []

    /// Marks behind the last starter, which wait for the next before they can be put in order.
    private var pending: [(combiningClass: UInt8, scalar: UInt32, taken: Int32)] = []

    /// - Parameter decomposing: ``ScalarFlags/decomposes``, and ``ScalarFlags/isCompatible`` for the forms KD and KC.
    init(of source: [UInt32], decomposing: ScalarFlags) {
        let affected = ScalarFlags(rawValue: decomposing.rawValue | ScalarFlags.reorders.rawValue)
        scalars.reserveCapacity(source.count + source.count / 4)
        taken.reserveCapacity(source.count + source.count / 4)
        ScalarProperties.withFlags { table in
            for scalar in source {
                let flags = table[Int(scalar)]
                if !flags.hasAny(affected) {
                    appendStarter(scalar, taken: 1)
                } else if flags.hasAny(decomposing) {
                    var taken: Int32 = 1
                    if Hangul.syllables.contains(scalar) {
                        Hangul.decompose(scalar) { jamo in
                            appendStarter(jamo, taken: taken)
                            taken = 0
                        }
                    } else {
                        let isCompatible = flags.hasAny(.isCompatible) && decomposing.hasAny(.isCompatible)
                        for part in ScalarProperties.decomposition(of: scalar, isCompatible: isCompatible) {
                            appendPart(part, taken: taken)
                            taken = 0
                        }
                    }
                } else {
                    appendPart(scalar, taken: 1)
                }
            }
        }
        flush()
    }

    private mutating func appendStarter(_ scalar: UInt32, taken count: Int32) {
        if !pending.isEmpty { flush() }
        scalars.append(scalar)
        taken.append(count)
    }

    private mutating func appendPart(_ scalar: UInt32, taken count: Int32) {
        if ScalarProperties.flags(of: scalar).hasAny(.reorders) {
            pending.append((ScalarProperties.combiningClass(of: scalar), scalar, count))
        } else {
            appendStarter(scalar, taken: count)
        }
    }

    /// Puts the waiting marks in order of their class, equal ones as they came: a counting sort, because a hostile
    /// text may pile up a million.
    private mutating func flush() {
        guard pending.count > 1 else {
            for mark in pending {
                scalars.append(mark.scalar)
                taken.append(mark.taken)
            }
            return pending.removeAll(keepingCapacity: true)
        }
        var starts = [Int](repeating: 0, count: 257)
        for mark in pending { starts[Int(mark.combiningClass) + 1] += 1 }
        for index in 1...256 { starts[index] += starts[index - 1] }
        let base = scalars.count
        scalars.append(contentsOf: repeatElement(0, count: pending.count))
        taken.append(contentsOf: repeatElement(0, count: pending.count))
        for mark in pending {
            let place = base + starts[Int(mark.combiningClass)]
            starts[Int(mark.combiningClass)] += 1
            scalars[place] = mark.scalar
            taken[place] = mark.taken
        }
        pending.removeAll(keepingCapacity: true)
    }

    /// Composes what was decomposed (Unicode Standard, definition D117).
    mutating func compose() {
        var kept = 0
        var starter: Int?
        var lastClass: UInt8?
        for index in scalars.indices {
            let scalar = scalars[index]
            let combiningClass =
                ScalarProperties.flags(of: scalar).hasAny(.reorders) ? ScalarProperties.combiningClass(of: scalar) : 0
            let isBlocked = lastClass.map { $0 >= combiningClass } ?? false
            if let starter, !isBlocked, let composed = ScalarProperties.composition(of: scalars[starter], scalar) {
                scalars[starter] = composed
                taken[starter] += taken[index]
                continue
            }
            scalars[kept] = scalar
            taken[kept] = taken[index]
            if combiningClass == 0 {
                starter = kept
                lastClass = nil
            } else if starter != nil {
                lastClass = combiningClass
            }
            kept += 1
        }
        scalars.removeLast(scalars.count - kept)
        taken.removeLast(taken.count - kept)
    }
}

extension NormalizedText {
    /// Decomposition: form D, or KD where `isCompatible`.
    mutating func decompose(isCompatible: Bool = false) {
        let decomposing = Self.decomposing(isCompatible)
        let affected = ScalarFlags(rawValue: decomposing.rawValue | ScalarFlags.reorders.rawValue)
        let isAffected = ScalarProperties.withFlags { table in
            scalars.contains { table[Int($0)].hasAny(affected) }
        }
        guard isAffected else { return }
        let form = NormalForm(of: scalars, decomposing: decomposing)
        adopt(form.scalars, taken: form.taken)
    }

    /// Decomposition and composition: form C, or KC where `isCompatible`.
    mutating func compose(isCompatible: Bool = false) {
        // Below U+0300 nothing composes with what stands before it, and everything is composed already.
        let isAffected = ScalarProperties.withFlags { table in
            scalars.contains { $0 >= 0x300 || isCompatible && table[Int($0)].hasAny(.isCompatible) }
        }
        guard isAffected else { return }
        var form = NormalForm(of: scalars, decomposing: Self.decomposing(isCompatible))
        form.compose()
        adopt(form.scalars, taken: form.taken)
    }

    private static func decomposing(_ isCompatible: Bool) -> ScalarFlags {
        isCompatible
            ? ScalarFlags(rawValue: ScalarFlags.decomposes.rawValue | ScalarFlags.isCompatible.rawValue) : .decomposes
    }

    /// Takes over other scalars, each with the number of scalars of this text that it takes the place of.
    mutating func adopt(_ scalars: [UInt32], taken: [Int32]) {
        var result = NormalizedText()
        result.reserve(scalars.count)
        var next = 0
        for (scalar, taken) in zip(scalars, taken) {
            result.append(scalar, origin: origins[min(taken > 0 ? next : max(next - 1, 0), count - 1)])
            next += Int(taken)
        }
        self = result
    }
}
