"""Prints what trainings took of memory beside what they told beforehand: training_memory.py FOLDER LENGTH "RANKS…" [STRATEGY].

FOLDER holds, for each number of ranks N, N.json as `annulus bench train` prints it and N/R as rank_peak.py writes it. Exits 1 where
a target of scripts/memory is missed; how ranks share is asked of no strategy that is named.
"""

import json
import sys

TARGETS, MOST_OFF = {2: 0.6, 4: 0.35}, 0.15


def main():
    folder, length, ranks = sys.argv[1], int(sys.argv[2]), sorted(set(map(int, sys.argv[3].split())))
    strategy, targets = (sys.argv[4], {}) if len(sys.argv) > 4 else ("the fastest strategy", TARGETS)
    mib, missed, one, digests = 1 << 20, [], None, set()
    print(f"\nPeak memory of the largest rank in MiB, training on {length} tokens by {strategy}, MiniLM shape")
    print(f"{'ranks':>6} {'peak':>9} {'predicted':>9} {'off':>7} {'master weights':>15} {'the rest of one':>16} {'target':>8}")
    for count in ranks:
        with open(f"{folder}/{count}.json") as file:
            row = json.loads(file.readline())
        digests.add(row["sha256"])
        peak = max(int(open(f"{folder}/{count}/{rank}").read().split()[1]) for rank in range(count))
        predicted, weights = row["predicted_bytes"], row["weight_bytes"]
        one = one or peak - weights
        off, share, target = predicted / peak - 1, (peak - weights) / one, targets.get(count)
        print(f"{count:6d} {peak / mib:9.1f} {predicted / mib:9.1f} {100 * off:+6.1f}% {weights / mib:15.1f} {share:16.3f} "
              f"{f'<= {target:.2f}' if target else '':>8}")
        if abs(off) > MOST_OFF:
            missed.append(f"{count} ranks: what was told beforehand is {100 * off:+.1f} % off")
        if target and share > target:
            missed.append(f"{count} ranks need {share:.3f} of one rank's memory, above {target:.2f}")
    if len(digests) != 1:
        missed.append("the weights differ between rank counts, which must not happen")
    for line in missed:
        print("memory: " + line, file=sys.stderr)
    if not missed:
        print("All within target; the weights have the same bytes.")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
