#!/usr/bin/env python3
"""Damages sentencepiece models and compares what annulus reads of them with the sentencepiece package.

  scripts/checks/sentencepiece-files.py                      1,000 files; the last line counts what came of them
  scripts/checks/sentencepiece-files.py --files 50 --first 7 fifty others

Each file is truncated, or has bytes, lengths, kinds or scores changed. Wrong is: other pieces, kinds or scores than the
package's, pieces where the package reads none, or an end without an error line. Needs a python3 with sentencepiece and a build
in release mode (ANNULUS_GOLDENS_PYTHON names another python3, see scripts/goldens/make.py).
"""

import argparse
import collections
import io
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ == "__main__" and os.environ.get("ANNULUS_GOLDENS_PYTHON") and os.environ.get("ANNULUS_SENTENCEPIECE_FILES") is None:
    os.environ["ANNULUS_SENTENCEPIECE_FILES"] = "1"
    os.execv(os.environ["ANNULUS_GOLDENS_PYTHON"], [os.environ["ANNULUS_GOLDENS_PYTHON"], __file__, *sys.argv[1:]])

import sentencepiece

WORDS = "the rain falls over green hills and a cold river runs when a bird flies above them in the morning light".split()


def trained():
    """Models of every kind that is read."""
    chance = random.Random(1)
    lines = [" ".join(chance.choices(WORDS, k=9)) for _ in range(300)]
    models = []
    for options in [
        {}, {"byte_fallback": True, "vocab_size": 330}, {"model_type": "bpe"}, {"normalization_rule_name": "identity"},
        {"user_defined_symbols": ["<sep>", "42"], "control_symbols": ["[CLS]"], "unk_piece": "[UNK]", "pad_id": 3},
    ]:
        stream = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=stream, hard_vocab_limit=False, minloglevel=2,
            **({"vocab_size": 60, "num_threads": 1} | options))
        models.append(stream.getvalue())
    return models


def damaged(chance, models):
    data = bytearray(chance.choice(models))
    if chance.random() < 0.03:
        return bytes(data), "nothing"
    # Pieces stand first; behind them are the trainer's settings, and a character map, which is most of some files.
    pieces = min(len(data), 1500)
    kind = chance.choice(["truncated", "byte", "bytes", "end", "score", "kind", "length", "twice", "anywhere"])
    if kind == "truncated":
        return bytes(data[: chance.randrange(len(data))]), kind
    if kind == "byte":
        data[chance.randrange(pieces)] ^= 1 << chance.randrange(8)
    elif kind == "bytes":
        for _ in range(chance.randint(2, 5)):
            data[chance.randrange(pieces)] = chance.randrange(256)
    elif kind == "end":
        data[len(data) - 1 - chance.randrange(min(600, len(data)))] = chance.randrange(256)
    elif kind == "anywhere":
        data[chance.randrange(len(data))] = chance.randrange(256)
    else:
        places = [i for i in range(pieces - 8) if data[i] == {"score": 0x15, "kind": 0x18}.get(kind, 0x0A)]
        place = chance.choice(places)
        if kind == "score":
            data[place + 1 : place + 5] = struct.pack("<f", chance.choice([0.0, float("nan"), float("inf"), -1e30, 3.5]))
        elif kind == "kind":
            data[place + 1] = chance.choice([0, 1, 2, 3, 4, 5, 6, 7, 255])
        elif kind == "length":
            data[place + 1] = chance.choice([0, 1, data[place + 1] + 1 & 255, 127, 128, 255])
        else:
            data[place:place] = data[place : place + 2 + data[place + 1]]
    return bytes(data), kind


def read_by_package(path):
    """Text, kind and score of each piece; None where the package refuses the file, or comes to no end of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            model = sentencepiece.SentencePieceProcessor()
            model.LoadFromSerializedProto(pathlib.Path(path).read_bytes())
            rows = []
            for number in range(model.get_piece_size()):
                kind = ("unknown" if model.is_unknown(number) else "control" if model.is_control(number) else
                        "byte" if model.is_byte(number) else "unused" if model.is_unused(number) else "normal")
                rows.append([model.id_to_piece(number), kind, model.get_score(number)])
            os.write(write, b"OK")
            with os.fdopen(write, "wb") as stream:
                stream.write(json.dumps(rows).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return json.loads(data[2:]) if data.startswith(b"OK") else None


def rows_of(output):
    """What `inspect` prints of each piece."""
    rows = []
    for line in output.decode().splitlines():
        number, rest = line.split("  ", 1)
        text, end = json.JSONDecoder().raw_decode(rest)
        kind, score = rest[end:].split()
        # The package has no function that tells pieces of users from others.
        rows.append([text, "normal" if kind == "userDefined" else kind, float(score)])
        assert int(number) == len(rows) - 1
    return rows


def same(found, wanted):
    number = lambda value: struct.pack("<f", value) if value == value else b"nan"
    return len(found) == len(wanted) and all(a[:2] == b[:2] and number(a[2]) == number(b[2]) for a, b in zip(found, wanted))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/annulus")
    arguments = parser.parse_args()
    counts, models = collections.Counter(), trained()
    with tempfile.TemporaryDirectory(prefix="annulus-pieces-") as scratch:
        path = pathlib.Path(scratch) / "tokenizer.model"
        for number in range(arguments.first, arguments.first + arguments.files):
            data, kind = damaged(random.Random(number), models)
            path.write_bytes(data)
            wanted = read_by_package(path)
            run = subprocess.run([arguments.binary, "inspect", str(path), "--quiet"], capture_output=True, timeout=60)
            errors = run.stderr.decode("utf-8", "replace").splitlines()
            if run.returncode == 65 and len(errors) == 1 and not run.stdout:
                counts["refused by both" if wanted is None else "refused here alone"] += 1
                if wanted is not None and os.environ.get("VERBOSE"):
                    print(number, kind, errors[0][-160:])
            elif run.returncode == 0 and wanted is not None and same(rows_of(run.stdout), wanted):
                counts["the same"] += 1
            else:
                counts["wrong"] += 1
                found = rows_of(run.stdout) if run.returncode == 0 else []
                first = next((pair for pair in zip(found, wanted or []) if not same([pair[0]], [pair[1]])), None)
                print(f"wrong: {number} ({kind}): status {run.returncode}, {errors[:2]}, {len(found)} pieces, package {wanted and len(wanted)}; {first}")
    print(", ".join(f"{counts[name]} {name}" for name in ["the same", "refused by both", "refused here alone", "wrong"]))
    sys.exit(counts["wrong"] > 0)


if __name__ == "__main__":
    main()
