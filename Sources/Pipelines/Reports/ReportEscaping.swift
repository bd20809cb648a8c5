// Text of strangers, put so that a page can only show it.

/// Escapes for the two places of a page that hold text from outside.
enum ReportEscaping {
    /// A JSON string for a `<script type="application/json">` element: nothing in it can end the element or begin another,
    /// whatever the parser takes it for.
    static func json(_ text: String) -> String {
        var escaped = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": escaped += "\\\""
            case "\\": escaped += "\\\\"
            case "<", ">", "&", "'", "\u{7F}"..."\u{9F}", "\u{2028}", "\u{2029}", "\u{0}"..<"\u{20}":
                escaped += "\\u" + hexadecimal(scalar)
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped + "\""
    }

    /// Text between HTML tags or in a quoted attribute; controls and marks that change the direction of writing are shown
    /// by their numbers.
    static func html(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "&": escaped += "&amp;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            case "\u{0}"..<"\u{20}", "\u{7F}"..."\u{9F}", "\u{200E}", "\u{200F}", "\u{2028}"..."\u{202E}",
                "\u{2066}"..."\u{206F}", "\u{61C}":
                escaped += "[U+" + hexadecimal(scalar).uppercased() + "]"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    /// Four hexadecimal digits.
    private static func hexadecimal(_ scalar: Unicode.Scalar) -> String {
        let digits = String(scalar.value, radix: 16)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}

extension ReportToken {
    /// The longest text of one token that a page shows, in Unicode scalars; a longer one is cut there and says so.
    static let longestText = 1_000

    /// About how many bytes it takes on a page.
    var bytesOnPage: Int {
        ReportEscaping.json(before).utf8.count + ReportEscaping.json(String(text.prefix(Self.longestText))).utf8.count
            + 6
    }
}
