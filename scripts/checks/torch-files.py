#!/usr/bin/env python3
"""Damages files of torch.save and compares what annulus reads of them with torch.load(weights_only=True).

  scripts/checks/torch-files.py                      1,000 files; the last line: N the same, N refused by both, N refused here alone, N wrong
  scripts/checks/torch-files.py --files 50 --first 7 fifty others
  scripts/checks/torch-files.py --keep FOLDER        what was read wrongly is kept there

Each file is truncated, or has bytes, opcodes or sizes of its pickle or of its archive's lists changed. Wrong is: another tensor
than PyTorch's, a tensor where PyTorch reads none, or an end without an error line. Needs a python3 with PyTorch (or
ANNULUS_GOLDENS_PYTHON, see scripts/goldens/make.py), and a build in release mode.
"""

import argparse
import collections
import hashlib
import io
import os
import pathlib
import pickletools
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ == "__main__" and os.environ.get("ANNULUS_GOLDENS_PYTHON") and os.environ.get("ANNULUS_TORCH_FILES") is None:
    os.environ["ANNULUS_TORCH_FILES"] = "1"
    os.execv(os.environ["ANNULUS_GOLDENS_PYTHON"], [os.environ["ANNULUS_GOLDENS_PYTHON"], __file__, *sys.argv[1:]])

import torch

TYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def tensors(chance):
    """A few tensors of all kinds: views, transposed ones, none, and one of no dimension."""
    state = collections.OrderedDict()
    for number, kind in enumerate(chance.sample(list(TYPES), 5)):
        base = (torch.randn(6, 7) * 9).to(kind)
        state[f"layer.{number}.weight"] = chance.choice([base, base.t(), base[1:4], base[:, 2:5], base[2, 3], base[:0]])
    shared = torch.arange(12.0)
    state["shared.a"], state["shared.b"] = shared[:4], shared[4:].view(2, 4)
    if chance.random() < 0.5:
        state["parameter"] = torch.nn.Parameter(torch.randn(3))
    return state if chance.random() < 0.7 else dict(state)


def damaged(chance):
    """A file of torch.save, and what was done to it."""
    is_archive = chance.random() < 0.7
    buffer = io.BytesIO()
    torch.save(tensors(chance), buffer, _use_new_zipfile_serialization=is_archive)
    data = bytearray(buffer.getvalue())
    if chance.random() < 0.02:
        return bytes(data), "nothing"
    # The pickle of an archive begins with its protocol; an old file is pickles from its start.
    start = data.find(b"\x80\x02") if is_archive else 0
    stop = start + len(pickle_of(data, start)) if is_archive else data.rfind(b"cpu") + 100
    kind = chance.choice(["truncated", "byte", "bytes", "opcode", "size", "list", "anywhere", "swapped", "longer"])
    if kind == "truncated":
        return bytes(data[: chance.randrange(len(data))]), kind
    if kind == "byte":
        data[chance.randrange(start, min(stop, len(data)))] ^= 1 << chance.randrange(8)
    elif kind == "bytes":
        for _ in range(chance.randint(2, 6)):
            data[chance.randrange(start, min(stop, len(data)))] = chance.randrange(256)
    elif kind == "opcode":
        places = opcode_places(data, start)
        data[chance.choice(places)] = chance.choice([ord(op.code) for op in pickletools.opcodes])
    elif kind == "size":
        # Whole numbers of one, two or four bytes: sizes, strides, offsets, counts.
        places = [place for place in opcode_places(data, start) if data[place] in b"KMJ"]
        place = chance.choice(places)
        width = {ord("K"): 1, ord("M"): 2, ord("J"): 4}[data[place]]
        value = chance.choice([0, 1, 2, 5, 255, 65535, 2**31 - 1, 2**32 - 1, chance.randrange(64)]) % (1 << 8 * width)
        data[place + 1 : place + 1 + width] = value.to_bytes(width, "little")
    elif kind == "list":
        # The end of an archive: its list and what says where that is; of an old file the storages.
        place = len(data) - 1 - chance.randrange(min(len(data), 700))
        data[place] = chance.choice([0, 255, data[place] ^ (1 << chance.randrange(8)), chance.randrange(256)])
    elif kind == "anywhere":
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "swapped":
        # Two parts of the pickle change places.
        a, b = sorted(chance.sample(range(start, min(stop, len(data)) - 8), 2))
        data[a : a + 8], data[b : b + 8] = data[b : b + 8], data[a : a + 8]
    else:
        data += bytes(chance.randrange(1, 200))
    return bytes(data), kind


def pickle_of(data, start):
    return bytes(data[start : data.find(b"PK", start)])


def opcode_places(data, start):
    places = []
    try:
        while True:
            for _, _, place in pickletools.genops(bytes(data[start:])):
                places.append(start + place)
            start = places[-1] + 1
            if data[start : start + 2] != b"\x80\x02":
                return places
    except ValueError:
        return places


def read_by_torch(path):
    """Name, type, shape and digest of each tensor; None where PyTorch refuses the file."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # A process of its own, whose memory is limited: what a file says of sizes may be anything.
        try:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            sys.stderr = open(os.devnull, "w")
            os.dup2(sys.stderr.fileno(), 2)
            warnings.simplefilter("ignore")
            loaded = torch.load(path, weights_only=True, map_location="cpu")
            lines = []
            for name, value in loaded.items():
                if isinstance(name, str) and isinstance(value, torch.Tensor):
                    # A truth value of a damaged file may be any byte, which copying in order would change.
                    flat = (value.detach().view(torch.uint8) if value.dtype == torch.bool else value.detach()).contiguous()
                    raw = flat.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8).numpy().tobytes()
                    lines.append(f"{name}  {TYPES.get(value.dtype, value.dtype)} {list(value.shape)}  {hashlib.sha256(raw).hexdigest()}")
            os.write(write, ("\n".join(["OK", *sorted(lines)])).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        text = stream.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return text.split("\n")[1:] if text.startswith("OK") else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / ".build/release/annulus")
    arguments = parser.parse_args()
    counts = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="annulus-torch-") as scratch:
        path = pathlib.Path(scratch) / "pytorch_model.bin"
        for number in range(arguments.first, arguments.first + arguments.files):
            chance = random.Random(number)
            torch.manual_seed(number)
            data, kind = damaged(chance)
            path.write_bytes(data)
            wanted = read_by_torch(path)
            run = subprocess.run([arguments.binary, "inspect", str(path), "--digests", "--quiet"], capture_output=True, timeout=60)
            output = run.stdout.decode("utf-8", "replace").splitlines()
            errors = run.stderr.decode("utf-8", "replace").splitlines()
            if run.returncode == 65 and len(errors) == 1 and not output:
                counts["refused by both" if wanted is None else "refused here alone"] += 1
                if wanted is not None and os.environ.get("VERBOSE"):
                    print(number, kind, errors[0][-150:])
            elif run.returncode == 0 and wanted is not None and sorted(output) == wanted:
                counts["the same"] += 1
            else:
                counts["wrong"] += 1
                print(f"wrong: {number} ({kind}): status {run.returncode}, {errors[:2]}, {output[:3]}; PyTorch: {wanted and wanted[:3]}")
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, arguments.keep / f"{number}.bin")
    print(", ".join(f"{counts[name]} {name}" for name in ["the same", "refused by both", "refused here alone", "wrong"]))
    sys.exit(counts["wrong"] > 0)


if __name__ == "__main__":
    main()
