// The page: one HTML file that needs nothing else.

import Crypto
import Foundation

extension ObservationReport {
    /// The report as one HTML file, of at most ``ReportDetail/largestPage`` bytes where the document's text leaves room for
    /// that.
    ///
    /// It asks nobody for anything: its policy forbids that, and allows its own style and script alone, by their digests.
    /// Text of the document, labels and names is in it as JSON and reaches the page as text, never as markup.
    ///
    /// Every head must have been added.
    public var page: String {
        precondition(isWhole, "a head of the report is missing")
        precondition(rollouts.allSatisfy { $0.weights.count == tokens.count && tokens.indices.contains($0.query) })
        precondition(probes.allSatisfy { $0.values.count == tokens.count })
        var numbers = numbers
        // As many rollouts as there is room for, and one at least.
        let taken =
            facts(numbers, traced: []).utf8.count + numbers.reduce(0) { $0 + Self.bytes($1.numbers.bytes.count) }
        let room = ReportDetail.largestPage - taken - reportScript.utf8.count - reportStyle.utf8.count - 20_000
        let traced = rollouts.prefix(max(1, room / Self.bytes(tokens.count)))
        for (index, rollout) in traced.enumerated() {
            numbers.append(("rollout\(index)", QuantizedNumbers(logarithmic: rollout.weights)))
        }
        let title = ReportEscaping.html(document)
        var page = """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '\(digest(reportStyle))'; \
            script-src '\(digest(reportScript))'; base-uri 'none'; form-action 'none'">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta name="color-scheme" content="light dark">
            <meta name="referrer" content="no-referrer">
            <title>Attention · \(title)</title>
            <style>\(reportStyle)</style>
            </head>
            <body>
            \(reportBody)
            <script type="application/json" id="facts">\(facts(numbers, traced: traced.map(\.query)))</script>

            """
        for entry in numbers {
            page += "<script type=\"text/plain\" id=\"numbers-\(entry.name)\">\(entry.numbers.base64)</script>\n"
        }
        page += "<script>\(reportScript)</script>\n</body>\n</html>\n"
        return page
    }

    /// Bytes of a list of numbers on the page, and of what tells about it and shows it.
    private static func bytes(_ count: Int) -> Int { (count + 2) / 3 * 4 + 250 }

    /// What a content security policy calls an inline style or script.
    private func digest(_ text: String) -> String {
        "sha256-" + Data(SHA256.hash(data: Data(text.utf8))).base64EncodedString()
    }
}
