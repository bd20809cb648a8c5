#!/usr/bin/env python3
"""The memory that `observe` says beforehand, beside the peak of the fullest rank, of several shapes of models and jobs.

observe-memory.py ANNULUS [--length N] [--ranks 1,2]

Prints a line a job and ends with status 1 where one is off by more than 15 %. The peak is that of the resident set, as the
system keeps it for each process (scripts/peers/rank_peak.py).
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEAK = ROOT / "scripts/peers/rank_peak.py"
LIMIT = 0.15
# A shape, a part of the length, options, and the end of the output's name.
JOBS = [
    ("minilm", 1, [], "safetensors"),
    ("minilm", 1, ["--top-k", "16"], "safetensors"),
    ("minilm", 2, ["--block-map", "--rollout", "0"], "safetensors"),
    ("minilm", 4, ["--probe", "swap", "--probe-tokens", "9:11"], "safetensors"),
    ("minilm", 4, ["--layers", "5"], "jsonl"),
    ("minilm", 4, [], "html"),
    ("bert-base", 4, ["--dtype", "bfloat16"], "safetensors"),
    ("modernbert-base", 4, ["--top-k", "4"], "safetensors"),
]


def mpirun(ranks: int) -> list[str]:
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *root, "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annulus", type=pathlib.Path)
    parser.add_argument("--length", type=int, default=16_384, help="tokens of the longest document")
    parser.add_argument("--ranks", default="1,2")
    options = parser.parse_args()
    annulus, failed = options.annulus.resolve(), 0
    print(f"{'MiB a rank':60} {'said':>8} {'seen':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for shape in sorted({job[0] for job in JOBS}):
            subprocess.run(
                [annulus, "init", "--shape", shape, "--positions", str(options.length), "-o", folder / shape, "--quiet"],
                check=True)
        for shape, part, more, end in JOBS:
            length = options.length // part
            ids = folder / "document.ids"
            ids.write_text(json.dumps([1000 + number * number % 20_011 for number in range(length)]) + "\n")
            for ranks in map(int, options.ranks.split(",")):
                peaks = folder / "peaks"
                peaks.mkdir(exist_ok=True)
                output = folder / f"seen.{end}"
                run = subprocess.run(
                    [*mpirun(ranks), sys.executable, str(PEAK), str(peaks), str(annulus), "observe", "-m", str(folder / shape),
                     "-i", str(ids), "-o", str(output), "--force", "--threads", "1", "--progress", "never", *more],
                    capture_output=True, text=True)
                said = [float(number) for number in re.findall(r"memory: up to (\d+) MiB", run.stderr)]
                if run.returncode != 0 or not said:
                    print(run.stderr, file=sys.stderr)
                    return 1
                seen = max(int(path.read_text().split()[0]) for path in peaks.iterdir()) / 2**20
                is_off = abs(said[-1] / seen - 1) > LIMIT
                failed += is_off
                what = f"{shape}, {length} tokens, {ranks} rank{'' if ranks == 1 else 's'}, .{end} {' '.join(more)}"
                print(f"{what:60} {said[-1]:8.0f} {seen:8.0f}{'  off' if is_off else ''}", flush=True)
                for path in [*peaks.iterdir(), output]:
                    path.unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
