// What went wrong with a file, where in it, and what its reader can do about it.

/// A failure to read, understand or create one file.
///
/// ``description`` is one line, `PATH: what is wrong; what to do`, ready to be shown to whoever
/// started the program. The ``kind`` decides the exit status.
public struct FileError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The class of failure, with the exit status that `sysexits.h` gives it.
    public enum Kind: Int32, Sendable {
        /// The contents are not what they must be (65).
        case malformed = 65
        /// No such file or folder (66).
        case missing = 66
        /// A new file could not be made (73).
        case cannotCreate = 73
        /// The operating system failed to read or write (74).
        case inputOutput = 74
    }

    /// The class of failure.
    public let kind: Kind
    /// The file or folder concerned, as the caller named it.
    public let path: String
    /// What is wrong and what to do, without the path.
    public let message: String

    /// - Parameters:
    ///   - kind: the class of failure, which decides the exit status.
    ///   - path: the file or folder, as the caller named it.
    ///   - message: what is wrong and what to do, without the path.
    public init(_ kind: Kind, path: String, _ message: String) {
        self.kind = kind
        self.path = path
        self.message = message
    }

    /// The exit status of a process that stops because of this error.
    public var exitStatus: Int32 { kind.rawValue }

    /// One line: control characters that a hostile file may have put in a name are made visible.
    public var description: String {
        var line = ""
        for scalar in "\(path): \(message)".unicodeScalars {
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0x2028
                || scalar.value == 0x2029
            {
                line += "\\u{" + String(scalar.value, radix: 16) + "}"
            } else {
                line.unicodeScalars.append(scalar)
            }
        }
        return line
    }
}
