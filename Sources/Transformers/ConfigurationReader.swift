// Keys of a config.json, checked one by one; what is not supported is refused by name.

import Files

/// Reads the keys of one `config.json`. A key may have several names, of which the first one present counts; null is
/// absent.
struct ConfigurationReader {
    let config: JSON
    /// The file's path, for messages.
    let path: String

    func refuse(_ message: String) -> FileError { FileError(.malformed, path: path, message) }

    /// The first of the keys that is there, with its value.
    private func find(_ keys: [String]) -> (key: String, value: JSON)? {
        for key in keys {
            if let value = config[key], !value.isNull { return (key, value) }
        }
        return nil
    }

    func has(_ key: String) -> Bool { find([key]) != nil }

    /// A positive integer, as the rows of a table are.
    func size(_ keys: String..., default standard: Int? = nil) throws(FileError) -> Int {
        try size(keys, atMost: Self.mostRows, default: standard)
    }

    /// The width of a layer, or a number of heads.
    func width(_ keys: String..., default standard: Int? = nil) throws(FileError) -> Int {
        try size(keys, atMost: Self.widest, default: standard)
    }

    /// A number of layers.
    func layers(_ keys: String..., default standard: Int? = nil) throws(FileError) -> Int {
        try size(keys, atMost: Self.mostLayers, default: standard)
    }

    // Far beyond every model, and small enough that no sum over layers of products of widths overflows.
    private static let mostRows = (1 << 32) - 1
    private static let widest = 1 << 20
    static let mostLayers = 1 << 14

    private func size(_ keys: [String], atMost limit: Int, default standard: Int?) throws(FileError) -> Int {
        guard let (key, value) = find(keys) else {
            if let standard { return standard }
            throw refuse("'\(keys[0])' is missing; is this the config.json of an encoder?")
        }
        guard let number = value.int, number > 0 else { throw refuse("'\(key)' must be a positive integer") }
        guard number <= limit else {
            throw refuse("'\(key)' is \(number), and at most \(limit) is supported; the file is damaged or edited")
        }
        return number
    }

    /// A number of things that may be none.
    func count(_ key: String, default standard: Int) throws(FileError) -> Int {
        config[key]?.int == 0 ? 0 : try size(key, default: standard)
    }

    /// The id of a token; nil where there is none.
    func tokenId(_ key: String) throws(FileError) -> Int? {
        guard let (_, value) = find([key]) else { return nil }
        guard let number = value.int, number >= 0, number < 1 << 31 else { throw refuse("'\(key)' must be a token id") }
        return number
    }

    func number(_ keys: String..., default standard: Double) throws(FileError) -> Double {
        guard let (key, value) = find(keys) else { return standard }
        guard let number = value.double, number.isFinite else {
            throw refuse("'\(key)' must be a number, not \(value.kindName)")
        }
        return number
    }

    func flag(_ keys: String..., default standard: Bool) throws(FileError) -> Bool {
        guard let (key, value) = find(keys) else { return standard }
        guard let flag = value.bool else { throw refuse("'\(key)' must be true or false, not \(value.kindName)") }
        return flag
    }

    func text(_ keys: String..., default standard: String) throws(FileError) -> String {
        guard let (key, value) = find(keys) else { return standard }
        guard let text = value.string else { throw refuse("'\(key)' must be a string, not \(value.kindName)") }
        return text
    }

    func epsilon(_ keys: String..., default standard: Double) throws(FileError) -> Float {
        guard let (key, value) = find(keys) else { return Float(standard) }
        guard let epsilon = value.double, epsilon >= 0, epsilon < 1 else {
            throw refuse("'\(key)' must be a small number")
        }
        return Float(epsilon)
    }

    func activation(_ keys: String..., default standard: Activation = .gelu) throws(FileError) -> Activation {
        guard let (key, value) = find(keys) else { return standard }
        let name = value.string ?? value.kindName
        guard let activation = Activation(published: name) else {
            throw refuse("\(key) '\(name)' is not supported; supported: \(Activation.published)")
        }
        return activation
    }

    /// Refuses a flag that is set.
    func refuse(ifSet keys: String..., because reason: String) throws(FileError) {
        for key in keys where config[key]?.bool == true { throw refuse("'\(key)' is true; \(reason)") }
    }

    /// Refuses a key that is there and is neither null nor one of the values.
    func refuse(_ key: String, unless supported: [JSON]) throws(FileError) {
        guard let (_, value) = find([key]), !supported.contains(value) else { return }
        let shown =
            value.string.map { "'\($0)'" } ?? value.int.map(String.init) ?? value.double.map { "\($0)" } ?? value.bool
            .map { "\($0)" } ?? value.kindName
        let names = supported.map { $0.string ?? $0.int.map(String.init) ?? $0.bool.map { "\($0)" } ?? $0.kindName }
        throw refuse(
            "\(key) \(shown) is not supported; supported: "
                + (names.isEmpty ? "models without it" : names.joined(separator: ", ")))
    }

    /// The base of rotary positions, if it can be one.
    func rotaryBase(_ base: Double) throws(FileError) -> Double {
        guard base > 1, base < 1e12 else { throw refuse("the rotary base must be more than 1, not \(base)") }
        return base
    }

    /// Refuses rotary parameters of another type than the plain one.
    func refuseRotaryScaling(_ parameters: JSON?) throws(FileError) {
        guard let parameters, !parameters.isNull else { return }
        for key in ["rope_type", "type"] {
            if let type = parameters[key]?.string, type != "default" {
                throw refuse("\(key) '\(type)' of the rotary positions is not supported; supported: default")
            }
        }
    }
}
