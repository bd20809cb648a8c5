// Text that would like to be more than text.

package enum Hostile {
    /// As a document's name, a note, a label.
    package static let name = "</title><script>alert('name')</script>\"'&amp;\u{202E}gnp.exe\u{0}\u{2028}"

    /// As a document.
    package static let text = """
        </script><script>document.title = 'owned'</script> <!--<script> --> ]]> {{constructor}} ${1}
        <img src=x onerror=alert(1)> &lt;b&gt; &#x3c; "double" 'single' `back` \\u003c \\ \u{0}null \u{1}\u{7F}\u{85}
        \u{202E}right to left override\u{202C} \u{2066}isolate\u{2069} \u{200B}blank\u{FEFF} \u{2028}line\u{2029}paragraph
        e\u{301}\u{301}\u{301} \u{301}alone 👩‍👩‍👧‍👦 🏳️‍🌈 𝔘𝔫𝔦 שלום مرحبا नमस्ते 日本語 \u{E0041}\u{E0042}tags
        \(String(repeating: "Donaudampfschiff", count: 60)) javascript:alert(1) </style> </textarea>
        """
}
