// Memory with one owner, so that a request can own it while a message is under way.

/// A fixed number of elements with one owner, freed when the owner lets go.
///
/// It cannot be copied. That is what makes a request safe: whoever hands a buffer to one has none left to
/// touch, and whoever lends one has it locked for the length of the loan.
public struct Buffer<Element: BitwiseCopyable>: ~Copyable {
    private let storage: UnsafeMutableBufferPointer<Element>

    /// A buffer of `count` copies of `value`.
    public init(repeating value: Element, count: Int) {
        storage = .allocate(capacity: count)
        storage.initialize(repeating: value)
    }

    /// A buffer of the elements of `elements`, in order.
    public init(_ elements: some Collection<Element>) {
        storage = .allocate(capacity: elements.count)
        _ = storage.initialize(fromContentsOf: elements)
    }

    deinit { storage.deallocate() }

    /// How many elements there are; fixed when the buffer is made.
    public var count: Int { storage.count }

    /// The element at `index`, from 0.
    /// - Precondition: `index` is within `0..<count`; another is a mistake of the program and traps.
    public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < storage.count, "index \(index) is outside 0 ..< \(storage.count)")
            return storage[index]
        }
        set {
            precondition(index >= 0 && index < storage.count, "index \(index) is outside 0 ..< \(storage.count)")
            storage[index] = newValue
        }
    }

    /// Runs `body` on the elements, which it may read until it returns.
    public borrowing func withUnsafeElements<Result>(
        _ body: (UnsafeBufferPointer<Element>) throws -> Result
    ) rethrows -> Result {
        try body(UnsafeBufferPointer(storage))
    }

    /// Runs `body` on the elements, which it may write until it returns.
    public mutating func withUnsafeMutableElements<Result>(
        _ body: (UnsafeMutableBufferPointer<Element>) throws -> Result
    ) rethrows -> Result {
        try body(storage)
    }

    /// A copy of the elements.
    public borrowing func elements() -> [Element] { Array(storage) }

    /// The memory itself, for requests; it stays where it is while the buffer lives, even as the buffer moves.
    var bytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(storage) }
}
