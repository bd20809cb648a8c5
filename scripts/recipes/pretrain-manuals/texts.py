"""Collects the texts of unpacked documentation packages: texts.py PACKAGES FOLDER.

Writes train.jsonl and held-out.jsonl, a text a line: plain text and the sources of pages, of 4,000 characters and more, each once.
Every fortieth is held out.
"""

import gzip
import json
import os
import sys

LEAST, MOST, EVERY = 4000, 200_000, 40


def texts(folder):
    """The texts below a folder, in the order of their paths."""
    seen = set()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.endswith((".txt", ".txt.gz")):
                continue
            path = os.path.join(place, name)
            if os.path.islink(path):
                continue
            with gzip.open(path) if name.endswith(".gz") else open(path, "rb") as file:
                text = file.read().decode("utf-8", "replace").strip()[:MOST]
            if len(text) >= LEAST and text not in seen:
                seen.add(text)
                yield text


def main():
    packages, folder = sys.argv[1:]
    kinds = {"train": [], "held-out": []}
    for number, text in enumerate(texts(packages)):
        kinds["held-out" if number % EVERY == EVERY - 1 else "train"].append(text)
    for kind, found in kinds.items():
        with open(os.path.join(folder, kind + ".jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in found)
        print(f"{kind}: {len(found)} texts, {sum(map(len, found)) / 1e6:.1f} million characters")


if __name__ == "__main__":
    main()
