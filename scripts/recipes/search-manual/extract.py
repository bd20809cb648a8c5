"""Turns the HTML pages of a manual into text: a file for each page, a paragraph a line.

    extract.py FOLDER-OF-PAGES FOLDER
"""

import html.parser
import os
import sys

# What ends a line of text. Of a table, only rows do.
BLOCKS = {"div", "p", "li", "dt", "dd", "tr", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "br", "ul", "ol", "dl", "table"}
# What is no part of the text: links to other pages, tables of contents and of terms, by class or id.
LEFT_OUT = {"banner", "docnav", "toc", "indexterm"}
# Elements without an end.
EMPTY = {"br", "img", "meta", "link", "hr", "input", "col"}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.lines, self.line = [], ""
        # For each open element: whether its text is left out.
        self.open = []
        self.verbatim = 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        left_out = bool(LEFT_OUT & {attributes.get("id"), *(attributes.get("class") or "").split()}) or tag in ("head", "script", "style")
        if tag in BLOCKS:
            self.end_line()
        if tag == "pre":
            self.verbatim += 1
        if tag not in EMPTY:
            self.open.append(left_out or (bool(self.open) and self.open[-1]))

    def handle_startendtag(self, tag, attributes):
        if tag in BLOCKS:
            self.end_line()

    def handle_endtag(self, tag):
        if tag in BLOCKS:
            self.end_line()
        if tag == "pre":
            self.verbatim -= 1
        if tag not in EMPTY and self.open:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1]:
            return
        if self.verbatim:
            for number, piece in enumerate(data.split("\n")):
                if number:
                    self.end_line()
                self.line += piece
        else:
            self.line += data

    def end_line(self):
        text = " ".join(self.line.split())
        if text:
            self.lines.append(text)
        self.line = ""


def main():
    pages, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    count = characters = 0
    for name in sorted(os.listdir(pages)):
        if not name.endswith(".html") or name == "index.html":
            continue
        page = Page()
        with open(os.path.join(pages, name), encoding="utf-8") as file:
            page.feed(file.read())
        page.end_line()
        text = "\n".join(page.lines) + "\n"
        with open(os.path.join(folder, name.removesuffix(".html") + ".txt"), "w", encoding="utf-8") as file:
            file.write(text)
        count += 1
        characters += len(text)
    print("%d pages, %d characters" % (count, characters))


if __name__ == "__main__":
    main()
