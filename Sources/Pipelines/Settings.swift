// How a job is spread over ranks, and in which types it computes.

import Matrices
import Plans

/// What is decided of a job before it starts, the same on all its ranks.
///
/// Nothing here changes what is computed but for `element` and `wire`, whose roundings do; see
/// [the promises](<doc:Pipelines>).
public struct Settings: Sendable {
    /// Storage type of weights, keys and values. Sums, statistics and results are float32.
    public var element = ElementKind.float32
    /// Type in which keys and values travel; nil: that of `element`.
    public var wire: ElementKind?
    /// Who computes what; nil: the strategy that is predicted to be fastest and fits into memory.
    public var strategy: Strategy?
    /// How tiles are dealt out to ranks; nil: contiguous, and for batches of documents whatever is more even.
    public var askedLayout: Layout?
    /// How many neighbouring ranks of a host share memory at most; nil: all of them, and virtual ranks none.
    public var ranksPerNode: Int?

    /// Computes in float32 and leaves everything else to be decided by the job.
    public init() {}

    /// The layout of what is one sequence, or of equal ones.
    package var layout: Layout { askedLayout ?? .contiguous }
    /// The strategy's name, as options have it.
    package var strategyName: String { strategy?.rawValue ?? "auto" }
}
