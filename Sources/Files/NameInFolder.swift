// What a file of a model folder calls another file of that folder.

extension FileBytes {
    /// The path of what `file`, a file of the model folder `folder`, calls `name`: always inside that folder.
    ///
    /// The name is somebody else's, the folder its user's: an empty name, an absolute one and one with `..` are
    /// refused. Links that lie in the folder are its user's own, and are followed where the path is opened.
    ///
    /// - Parameters:
    ///   - name: folders and a file, with `/` between them.
    ///   - what: what is called so, for the error.
    /// - Throws: `FileError` of kind `malformed` that tells `file`, `what` and the name.
    package static func path(named name: String, inFolder folder: String, by file: String, _ what: String)
        throws(FileError) -> String
    {
        let parts = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let leadsOutside = parts.contains { $0.elementsEqual("..".utf8) } || name.utf8.first == UInt8(ascii: "/")
        // The system reads a name up to its first zero byte, which would be another name.
        guard !name.isEmpty, !leadsOutside, !name.utf8.contains(0) else {
            let fault =
                name.isEmpty ? "is empty" : leadsOutside ? "leads outside the model's folder" : "holds a zero byte"
            throw FileError(
                .malformed, path: file,
                "\(what): its name '\(name)' \(fault); fetch the model again from where you trust it")
        }
        return folder + "/" + name
    }
}
