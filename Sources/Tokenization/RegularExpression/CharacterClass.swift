// Named classes of characters, as Oniguruma has them.

/// Sets of scalars by name.
enum CharacterClass {
    static let space = ScalarSet(table: UnicodeTables.patternSpace)
    /// `[:word:]`, and `\w` in brackets: letters, marks, decimal digits, connector punctuation.
    static let word = alphabetic.union(digit).union(category("M")).union(category("Pc"))
    /// `\w` outside of brackets: besides these the other numbers of Latin-1.
    static let bareWord = word.union(ScalarSet("²³¹¼½¾"))
    static let digit = category("Nd")
    static let hexadecimalDigit = ScalarSet([0x30...0x39, 0x41...0x46, 0x61...0x66])
    private static let alphabetic = ScalarSet(table: UnicodeTables.patternAlphabetic)
    private static let lowercase = ScalarSet(table: UnicodeTables.patternLowercase)
    private static let uppercase = ScalarSet(table: UnicodeTables.patternUppercase)

    /// General categories in the order in which the table numbers them.
    private static let categoryNames = [
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
        "Sm",
        "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
    ]

    private static let longNames = [
        "uppercaseletter": "lu", "lowercaseletter": "ll", "titlecaseletter": "lt", "modifierletter": "lm",
        "otherletter": "lo",
        "nonspacingmark": "mn", "spacingmark": "mc", "enclosingmark": "me", "decimalnumber": "nd", "letternumber": "nl",
        "othernumber": "no", "connectorpunctuation": "pc", "dashpunctuation": "pd", "openpunctuation": "ps",
        "closepunctuation": "pe", "initialpunctuation": "pi", "finalpunctuation": "pf", "otherpunctuation": "po",
        "mathsymbol": "sm", "currencysymbol": "sc", "modifiersymbol": "sk", "othersymbol": "so", "spaceseparator": "zs",
        "lineseparator": "zl", "paragraphseparator": "zp", "control": "cc", "format": "cf", "surrogate": "cs",
        "privateuse": "co", "unassigned": "cn", "letter": "l", "mark": "m", "number": "n", "punctuation": "p",
        "punct": "p",
        "symbol": "s", "separator": "z", "other": "c", "casedletter": "lc",
    ]

    private static let scripts: [String: [UInt32]] = [
        "arabic": UnicodeTables.scriptArabic, "cyrillic": UnicodeTables.scriptCyrillic,
        "devanagari": UnicodeTables.scriptDevanagari, "greek": UnicodeTables.scriptGreek,
        "han": UnicodeTables.scriptHan,
        "hangul": UnicodeTables.scriptHangul, "hebrew": UnicodeTables.scriptHebrew,
        "hiragana": UnicodeTables.scriptHiragana,
        "katakana": UnicodeTables.scriptKatakana, "latin": UnicodeTables.scriptLatin, "thai": UnicodeTables.scriptThai,
    ]

    /// All scalars of the categories whose names begin with `prefix`.
    private static func category(_ prefix: String) -> ScalarSet {
        let table = UnicodeTables.patternCategories
        var ranges: [ClosedRange<UInt32>] = []
        for (position, entry) in table.enumerated() where categoryNames[Int(entry & 31)].hasPrefix(prefix) {
            let end = position + 1 < table.count ? table[position + 1] >> 5 : 0x110000
            ranges.append(entry >> 5...end - 1)
        }
        return ScalarSet(ranges)
    }

    /// `\p{name}`: case, spaces, hyphens and underscores in the name do not matter. `word` is what `\w` matches here.
    static func property(_ name: String, word: ScalarSet) -> ScalarSet? {
        var key = String(name.lowercased().unicodeScalars.filter { $0 != " " && $0 != "-" && $0 != "_" })
        if key == "word" { return word }
        // Other than in brackets, punctuation has no symbols.
        if key != "punct", let set = bracket(key) { return set }
        switch key {
        case "any": return .all
        case "assigned": return category("Cn").inverted
        case "alphabetic": return alphabetic
        case "uppercase": return uppercase
        case "lowercase": return lowercase
        case "whitespace": return space
        default: break
        }
        if let table = scripts[key] { return ScalarSet(table: table) }
        key = longNames[key] ?? key
        if key == "lc" { return category("Lu").union(category("Ll")).union(category("Lt")) }
        guard let known = categoryNames.first(where: { $0.lowercased().hasPrefix(key) }), 1...2 ~= key.count else {
            return nil
        }
        return category(String(known.prefix(key.count)))
    }

    /// `[:name:]`.
    static func bracket(_ name: String) -> ScalarSet? {
        switch name {
        case "alnum": alphabetic.union(digit)
        case "alpha": alphabetic
        case "ascii": ScalarSet([0...0x7F])
        case "blank": category("Zs").union(ScalarSet("\t"))
        case "cntrl": category("Cc")
        case "digit": digit
        case "lower": lowercase
        case "punct": category("P").union(category("S"))
        case "space": space
        case "upper": uppercase
        case "word": word
        case "xdigit": hexadecimalDigit
        default: nil
        }
    }
}
