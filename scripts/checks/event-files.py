#!/usr/bin/env python3
"""Reads event files of `annulus train --logging-dir` with TensorBoard's own reader.

  scripts/checks/event-files.py FOLDER                the tags and their numbers by step
  scripts/checks/event-files.py FOLDER TRAINED        also holds them against trainer_state.json of the trained model

Wrong is: a record whose checksum the reader refuses, or another number than in the log. Needs a python3 with tensorboard.
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing import event_accumulator


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    accumulator = event_accumulator.EventAccumulator(sys.argv[1])
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"] or accumulator.Tags()["tensors"]
    if not tags:
        sys.exit("event-files: no numbers")
    found = {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in tags}
    for tag, values in found.items():
        print(tag, ", ".join(f"{step}: {value:.6g}" for step, value in list(values.items())[:5]), f"({len(values)} steps)")
    if len(sys.argv) == 2:
        return
    log = json.loads((pathlib.Path(sys.argv[2]) / "trainer_state.json").read_text())["log_history"]
    checked = 0
    for entry in log:
        for name, value in entry.items():
            if name in ("step", "epoch"):
                continue
            tag = "eval/" + name.removeprefix("eval_") if name.startswith("eval_") else "train/" + name
            seen = found.get(tag, {}).get(entry["step"])
            if seen is None or abs(seen - value) > 1e-6 * abs(value):
                sys.exit(f"event-files: {tag} at step {entry['step']} is {seen}, and {value} in the log")
            checked += 1
    print(f"{checked} numbers are those of the log")


if __name__ == "__main__":
    main()
