// Which release of Annulus this is, and of what it was built.

import CRelease
import MPI
import Matrices

/// Which release of Annulus this is.
public enum Release {
    /// The release's number. Measurements that another release has kept are not used.
    public static let version = "0.1.0"

    /// What `annulus --version` prints: release, commit, compilers, MPI and kernel sets.
    package static var description: String {
        """
        annulus \(version)
        commit       \(commit ?? "unknown (ANNULUS_COMMIT was not set when it was built)")
        compiler     \(swift), \(String(cString: annulus_build_compiler()))
        MPI          \(library()) (MPI \(MPIEnvironment.standardVersion.major).\(MPIEnvironment.standardVersion.minor))
        kernel sets  \(KernelSet.available.map(\.name).joined(separator: ", ")) on this processor
        """
    }

    /// The commit that was built; nil where the build was not told.
    package static var commit: String? {
        let commit = String(cString: annulus_build_commit())
        return commit.isEmpty ? nil : commit
    }

    /// The MPI library, without what follows its version: `Open MPI v4.1.4`, `MPICH 4.0.2`.
    package static func library(_ text: String = MPIEnvironment.libraryVersion) -> String {
        let name = text.split { ",\n".contains($0) }.first ?? "unknown"
        return name.split(whereSeparator: \.isWhitespace).filter { $0 != "Version:" }.joined(separator: " ")
    }

    private static var swift: String {
        #if compiler(>=6.3)
        "Swift 6.3 or later"
        #elseif compiler(>=6.2)
        "Swift 6.2"
        #elseif compiler(>=6.1)
        "Swift 6.1"
        #else
        "Swift 6.0"
        #endif
    }
}
