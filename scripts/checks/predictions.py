"""Rounds of scripts/checks/check-predictions: keeps them, and prints what they come to.

predictions.py add FILE.jsonl SESSION CASE ROW.json    appends a round
predictions.py show FILE.jsonl SESSION                 prints a line a case, the choices of strategies, and totals
"""

import json
import statistics
import sys


def add(path, session, case, row):
    with open(row, encoding="utf-8") as file:
        line = json.dumps({"session": session, "case": case, **json.load(file)})
    with open(path, "a", encoding="utf-8") as file:
        print(line, file=file)


def show(path, session):
    cases, ratios, losses, groups = {}, [], [], {}
    with open(path, encoding="utf-8") as file:
        for row in (json.loads(line) for line in file if line.strip()):
            if row["session"] == session:
                cases.setdefault(row["case"], []).append(row)
    print(f"{'case':64} {'predicted':>10} {'measured':>10} {'ratio':>7}  of rounds")
    for case, rounds in cases.items():
        predicted, measured = (statistics.median(row[name] for row in rounds) for name in ("predicted_seconds", "seconds"))
        of_rounds = sorted(row["predicted_seconds"] / row["seconds"] for row in rounds)
        ratios.append(statistics.median(of_rounds))
        print(f"{case:64} {predicted:10.4f} {measured:10.4f} {ratios[-1]:7.2f}  {of_rounds[0]:.2f} to {of_rounds[-1]:.2f}")
        if rounds[0]["bench"] == "exchange":
            # Each round has speeds of its own; the least of its times is that of the machine undisturbed.
            least = {name: min(row[name] for row in rounds) for name in ("predicted_seconds", "seconds", "bytes_sent")}
            groups.setdefault(case.rpartition(", ")[0], []).append(least | {"strategy": rounds[0]["strategy"]})
    print()
    for group, entries in groups.items():
        soonest = min(entry["predicted_seconds"] for entry in entries)
        chosen = min(
            (entry for entry in entries if entry["predicted_seconds"] <= 1.01 * soonest), key=lambda entry: entry["bytes_sent"])
        best = min(entries, key=lambda entry: entry["seconds"])
        losses.append(chosen["seconds"] / best["seconds"] - 1)
        print(f"{group:52} chosen {chosen['strategy']}, best {best['strategy']}: {100 * losses[-1]:.1f} % over it")
    within = sum(0.9 <= ratio <= 1.1 for ratio in ratios)
    print(f"\n{within} of {len(ratios)} points within 10 %, median ratio {statistics.median(ratios):.2f}, "
          f"from {min(ratios):.2f} to {max(ratios):.2f}")
    if losses:
        print(f"{len(losses)} choices: {sum(loss <= 0.05 for loss in losses)} within 5 % of the best, the worst {100 * max(losses):.1f} % over it")


if __name__ == "__main__":
    {"add": add, "show": show}[sys.argv[1]](*sys.argv[2:])
