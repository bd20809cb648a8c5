// Times as numbers.

extension Duration {
    /// The same in seconds.
    package var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
