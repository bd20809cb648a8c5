/// Which release of Annulus this is.
public enum Release {
    /// What `annulus --version` prints. Measurements that another release has kept are not used.
    public static let version = "0.1.0"
}
