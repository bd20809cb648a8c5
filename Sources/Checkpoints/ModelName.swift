// From what a user calls a model to the folder that holds it, without a network.

import CLibrary
import Files

extension Checkpoint {
    /// The folder that `name` means: a folder, or `org/name` in the Hugging Face cache on this machine.
    ///
    /// Looked at, in order: the folder of that name; `$HF_HUB_CACHE`; `$HUGGINGFACE_HUB_CACHE`; `$HF_HOME/hub`;
    /// `$XDG_CACHE_HOME/huggingface/hub`; `~/.cache/huggingface/hub`. Inside a cache the revision is the one that
    /// `refs/main` names, or the only one there. The error lists every place looked at.
    public static func resolve(_ name: String) throws(FileError) -> String {
        var environment: [String: String] = [:]
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"] {
            if let value = getenv(variable) { environment[variable] = String(cString: value) }
        }
        return try resolve(name, environment: environment)
    }

    package static func resolve(_ name: String, environment: [String: String]) throws(FileError) -> String {
        if FileBytes.isFolder(name) { return name }
        if FileBytes.exists(name) {
            throw FileError(
                .malformed, path: name, "is not a folder; give the folder that holds config.json and model.safetensors")
        }
        var looked = [name]
        if isRepositoryName(name) {
            let repository = "models--" + name.split(separator: "/").joined(separator: "--")
            for cache in caches(environment) {
                let place = cache + "/" + repository
                if let snapshot = snapshot(in: place) { return snapshot }
                looked.append(place)
            }
        }
        throw FileError(
            .missing, path: name,
            "no such model; looked at \(looked.joined(separator: ", ")); give a model folder, or fetch it into the Hugging Face cache first (`hf download \(isRepositoryName(name) ? name : "ORG/NAME")`)"
        )
    }

    private static func caches(_ environment: [String: String]) -> [String] {
        func value(_ variable: String, _ suffix: String = "") -> String? {
            guard let folder = environment[variable], !folder.isEmpty else { return nil }
            return folder + suffix
        }
        let all = [
            value("HF_HUB_CACHE"), value("HUGGINGFACE_HUB_CACHE"), value("HF_HOME", "/hub"),
            value("XDG_CACHE_HOME", "/huggingface/hub"), value("HOME", "/.cache/huggingface/hub"),
        ].compactMap { $0 }
        return all.enumerated().filter { position, folder in !all[..<position].contains(folder) }.map(\.element)
    }

    /// The folder of the revision that `refs/main` names, or of the only revision there is.
    private static func snapshot(in repository: String) -> String? {
        let snapshots = repository + "/snapshots"
        if let bytes = try? FileBytes.read(path: repository + "/refs/main") {
            let revision = String(decoding: bytes.prefix(256).filter { $0 > 0x20 }, as: UTF8.self)
            let folder = snapshots + "/" + revision
            if !revision.isEmpty, !revision.contains("/"), !revision.hasPrefix("."), FileBytes.isFolder(folder) {
                return folder
            }
        }
        let revisions = FileBytes.names(inFolder: snapshots)
        guard revisions.count == 1, let only = revisions.first, FileBytes.isFolder(snapshots + "/" + only) else {
            return nil
        }
        return snapshots + "/" + only
    }

    /// Whether `name` can be a repository: one or two parts of letters, digits, `.`, `_` and `-`.
    private static func isRepositoryName(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return (1...2).contains(parts.count)
            && parts.allSatisfy { part in
                !part.isEmpty && !part.hasPrefix(".")
                    && part.utf8.allSatisfy { byte in
                        switch byte {
                        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                            UInt8(ascii: "0")...UInt8(ascii: "9"),
                            UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                            true
                        default: false
                        }
                    }
            }
    }
}
