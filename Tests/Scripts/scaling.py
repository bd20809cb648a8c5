#!/usr/bin/env python3
"""scripts/scaling over a made-up benchmark, whose times are known: what it prints is what follows from them.

  Tests/Scripts/scaling.py        the last line is: N passed, N failed

The benchmark is a program that prints lines of JSON with times of its own making; mpirun and srun only tell it how many ranks there are.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A round's machine is slower by a tenth than the one before; two ranks take 0.6 of one rank's time, three 0.45.
BENCHMARK = '''#!/usr/bin/env python3
import json, os, pathlib, sys
calls = pathlib.Path(os.environ["CALLS"])
said = calls.read_text().splitlines() if calls.exists() else []
ranks = int(os.environ.get("RANKS", "1"))
length = int(sys.argv[sys.argv.index("--length") + 1])
strategy = sys.argv[sys.argv.index("--strategy") + 1] if "--strategy" in sys.argv else "pass-kv"
turn = sum(line.startswith(f"{ranks} {length} {strategy} ") for line in said)
calls.write_text("\\n".join([*said, f"{ranks} {length} {strategy} " + " ".join(sys.argv[1:])]) + "\\n")
if os.environ.get("BROKEN") == f"{ranks} {length}":
    print("annulus: this point is broken", file=sys.stderr)
    sys.exit(71)
seconds = length ** 2 * 1e-7 * {1: 1.0, 2: 0.6, 3: 0.45}[ranks] * 1.1 ** turn
print(json.dumps({
    "bench": sys.argv[2], "length": length, "mask": "full", "strategy": strategy, "layout": "contiguous", "predicted_seconds": seconds / 2,
    "threads": 1, "kernel": "none", "seconds": seconds, "gflops": length ** 2 * 1e-6 / seconds, "fraction_of_peak": 0.5, "bytes_sent": 0,
    "exposed_seconds": 0.25 * seconds, "compute_seconds": 0.75 * seconds, "wait_seconds": 0.25 * seconds, "merge_seconds": 0,
    "dense_seconds": 0, "peak_memory": (64 << 20) // ranks, "ranks": ranks,
    "sha256": f"{length}-{ranks if os.environ.get('DIFFERS') else 0}".ljust(64, "0")}))
'''
LAUNCHER = '''#!/usr/bin/env python3
import os, re, sys
words = sys.argv[1:]
count = int(words[words.index("-np") + 1]) if "-np" in words else int(re.search(r"--ntasks=(\\d+)", " ".join(words))[1])
os.environ["RANKS"] = str(count)
os.environ["LAUNCHER"] = os.path.basename(sys.argv[0])
program = next(place for place, word in enumerate(words) if word.endswith("/annulus"))
os.execv(words[program], words[program:])
'''


class Scaling(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="annulus-scaling-")
        self.folder = pathlib.Path(self.temporary.name)
        for name, text in (("annulus", BENCHMARK), ("mpirun", LAUNCHER), ("srun", LAUNCHER)):
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o755)
        self.output = self.folder / "out.jsonl"

    def tearDown(self):
        self.temporary.cleanup()

    def scaling(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        environment |= {"PATH": f"{self.folder}:{os.environ['PATH']}", "CALLS": str(self.folder / "calls")} | variables
        return subprocess.run(
            [str(ROOT / "scripts/scaling"), "--annulus", str(self.folder / "annulus"), "--output", str(self.output), *arguments],
            env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def rows(self, output: str) -> dict[tuple[int, int], list[str]]:
        """The lines of a table, by length and ranks."""
        found = {}
        for line in output.splitlines():
            words = line.replace("±", " ").replace("%", " ").split()
            if len(words) >= 11 and words[0].isdigit():
                found[int(words[0]), int(words[1])] = words
        return found

    def test_points_are_measured_in_turn(self):
        done = self.scaling("--ranks", "2,3", "--lengths", "100,200", "--rounds", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        order = [tuple(map(int, call.split()[:2])) for call in self.calls()]
        one = [(1, 100), (2, 100), (3, 100), (1, 200), (2, 200), (3, 200)]
        self.assertEqual(order, one * 3)
        self.assertIn("same SHA-256", done.stdout)

    def test_figures_follow_from_the_times(self):
        done = self.scaling("--ranks", "1,2,3", "--lengths", "1000", "--rounds", "3")
        rows = self.rows(done.stdout)
        # Seconds of a round: 0.1 · 1.1^round; of three the second is the median. Ratios of one round are free of the drift.
        for ranks, part in ((1, 1.0), (2, 0.6), (3, 0.45)):
            words = rows[1000, ranks]
            seconds = 0.1 * part * 1.1
            rates = [1000 / (0.1 * part * 1.1 ** turn) for turn in range(3)]
            mean = sum(rates) / 3
            deviation = (sum((rate - mean) ** 2 for rate in rates) / 2) ** 0.5
            expected = [seconds, rates[1], 100 * deviation / rates[1], 1 / part, 100 / part / ranks, 50, seconds / 4, seconds / 2, 64 / ranks]
            for found, right in zip(words[2:], expected):
                # Half of the last digit that is shown.
                delta = 0.5001 * 10.0 ** -len(found.partition(".")[2])
                self.assertAlmostEqual(float(found), right, delta=delta, msg=f"{words}: {expected}")

    def test_weak_scaling_grows_the_sequence(self):
        done = self.scaling("--ranks", "2", "--lengths", "100", "--rounds", "1", "--weak")
        self.assertEqual([call.split()[:2] for call in self.calls()], [["1", "100"], ["2", "200"]])
        # Four times the work in 0.6 of four times the time.
        self.assertAlmostEqual(float(self.rows(done.stdout)[100, 2][5]), 1 / 0.6, delta=0.006)
        self.assertNotIn("same SHA-256", done.stdout)

    def test_a_broken_point_is_named_and_the_others_go_on(self):
        done = self.scaling("--ranks", "1,2,3", "--lengths", "100,200", "--rounds", "1", BROKEN="2 100")
        self.assertEqual(done.returncode, 1)
        self.assertIn("status 71: annulus: this point is broken", done.stderr)
        self.assertIn("failed: round 1, 100 tokens, auto, 2 ranks: status 71", done.stdout)
        self.assertEqual(set(self.rows(done.stdout)), {(100, 1), (100, 3), (200, 1), (200, 2), (200, 3)})
        again = self.scaling("--ranks", "1,2,3", "--lengths", "100,200", "--rounds", "1", "--resume")
        # The one that failed is measured now, and no other.
        self.assertEqual(len(self.calls()), 7)
        self.assertEqual(len(self.rows(again.stdout)), 6, again.stdout + again.stderr)

    def test_a_sweep_that_was_cut_goes_on(self):
        whole = self.scaling("--ranks", "1,2", "--lengths", "100", "--rounds", "2")
        lines = self.output.read_text().splitlines()
        self.output.write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])
        again = self.scaling("--ranks", "1,2", "--lengths", "100", "--rounds", "2", "--resume")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(len(self.calls()), 6)
        self.assertEqual(set(self.rows(again.stdout)), set(self.rows(whole.stdout)))
        other = self.scaling("--ranks", "1,2", "--lengths", "100", "--mask", "causal", "--resume")
        self.assertEqual(other.returncode, 65)
        self.assertIn("--mask", other.stderr)

    def test_other_bytes_are_told(self):
        done = self.scaling("--ranks", "1,2", "--lengths", "100", "--rounds", "1", DIFFERS="1")
        self.assertEqual(done.returncode, 65)
        self.assertIn("DIFFERS", done.stdout)

    def test_strategies_have_tables_of_their_own(self):
        done = self.scaling("--ranks", "1,2", "--lengths", "100", "--rounds", "1", "--strategies", "pass-kv,tree")
        self.assertEqual(len(re.findall("strategy (?:pass-kv|tree), scaling", done.stdout)), 2, done.stdout)
        self.assertTrue(all("--strategy" in call for call in self.calls()))

    def test_an_allocation_is_used(self):
        done = self.scaling("--ranks", "1,3", "--lengths", "100", "--rounds", "1", SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES="2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([call.split()[0] for call in self.calls()], ["1", "3"])
        (self.folder / "mpirun").unlink()
        self.assertEqual(self.scaling("--ranks", "2", "--lengths", "100", "--rounds", "1", "--launcher", "srun").returncode, 0)

    def test_usage_is_refused(self):
        for arguments in (["--ranks", "0"], ["--bench", "nothing"], ["--bench", "encoder", "--mask", "full"], ["--unknown"], ["--ranks"]):
            done = self.scaling(*arguments)
            self.assertEqual(done.returncode, 64, arguments)
            self.assertTrue(done.stderr.startswith("scaling: "), done.stderr)
        self.assertEqual(self.scaling("--table", "missing").returncode, 66)
        self.assertEqual(self.scaling("--resume").returncode, 66)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=1).result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
