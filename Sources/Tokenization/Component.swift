// Reading one component of a tokenizer file, with errors that say where it stands.

import Files

/// A part of `tokenizer.json` together with its place in the file.
struct Component {
    let json: JSON
    /// The place as a dotted path, `pre_tokenizer.pretokenizers.1`.
    let place: String
    /// The file.
    let path: String

    /// The `type` of the component.
    func type() throws(FileError) -> String {
        guard let type = json["type"]?.string else { throw malformed("has no type") }
        return type
    }

    func malformed(_ what: String) -> FileError {
        FileError(.malformed, path: path, "\(place): \(what); fetch or write the file again")
    }

    /// The error for a component that this package does not implement.
    func unsupported(_ name: String, supported: [String]) -> FileError {
        FileError(
            .malformed, path: path,
            "\(place): \(name) is not supported (supported: \(supported.joined(separator: ", "))); use a model with one of these"
        )
    }

    func member(_ key: String) -> Component? {
        json[key].map { Component(json: $0, place: place + "." + key, path: path) }
    }

    /// The elements of an array that must be there.
    func elements(_ key: String) throws(FileError) -> [Component] {
        guard let array = json[key]?.array else { throw malformed("has no list '\(key)'") }
        return array.enumerated().map { Component(json: $1, place: "\(place).\(key).\($0)", path: path) }
    }

    func bool(_ key: String, default fallback: Bool? = nil) throws(FileError) -> Bool {
        if let value = json[key]?.bool { return value }
        guard let fallback, json[key] == nil else { throw malformed("has no truth value '\(key)'") }
        return fallback
    }

    func string(_ key: String, default fallback: String? = nil) throws(FileError) -> String {
        if let value = json[key]?.string { return value }
        guard let fallback, json[key] == nil else { throw malformed("has no string '\(key)'") }
        return fallback
    }

    /// A pattern under `key`: `{"String": "…"}`, taken literally, or `{"Regex": "…"}`.
    func pattern(_ key: String) throws(FileError) -> RegularExpression {
        do {
            if let text = json[key]?["String"]?.string { return try RegularExpression(literal: text) }
            if let text = json[key]?["Regex"]?.string { return try RegularExpression(text) }
        } catch {
            throw FileError(
                .malformed, path: path,
                "\(place).\(key): the pattern has \(error.reason), which is not supported; use a model without")
        }
        throw malformed("has no '\(key)' with a String or a Regex")
    }

    /// A single character under `key`.
    func scalar(_ key: String) throws(FileError) -> UInt32 {
        guard let text = json[key]?.string, text.unicodeScalars.count == 1, let scalar = text.unicodeScalars.first
        else {
            throw malformed("has no single character '\(key)'")
        }
        return scalar.value
    }

    /// A token id under `key`: a whole number that fits 32 bits.
    func id(_ key: String) throws(FileError) -> Int32 {
        guard let value = json[key]?.int, let id = Int32(exactly: value), id >= 0 else {
            throw malformed("has no token id '\(key)'")
        }
        return id
    }
}
