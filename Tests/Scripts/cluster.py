#!/usr/bin/env python3
"""scripts/cluster-up and cluster-down: hosts are apart in what is theirs, links are no faster than they are to be, and nothing is left.

  Tests/Scripts/cluster.py        the last line is: N passed, N failed

Takes root; where hosts cannot be made it says why and ends with 78.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECEIVE = """
import socket, sys, time
server = socket.create_server(("", 5000))
print("ready", flush=True)
peer, _ = server.accept()
count, start = 0, None
while data := peer.recv(1 << 20):
    start = start or time.monotonic()
    count += len(data)
print(count, time.monotonic() - start)
"""
SEND = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 5000))
peer.sendall(bytes(int(sys.argv[2])))
peer.close()
"""


def up(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(ROOT / "scripts/cluster-up"), *arguments], capture_output=True, text=True)


class ClusterUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="annulus-cluster-")
        cls.folder = pathlib.Path(cls.temporary.name) / "cluster"
        made = up("3", "200mbit", "--slots", "2", "--folder", str(cls.folder))
        if made.returncode:
            print(f"skipped: {made.stderr.strip()}")
            sys.exit(78)

    @classmethod
    def tearDownClass(cls):
        subprocess.run([str(ROOT / "scripts/cluster-down"), str(cls.folder)])
        cls.temporary.cleanup()

    def on(self, host: int, *command: str) -> str:
        return subprocess.run([str(self.folder / "bin/on"), f"host{host}", *command], check=True, capture_output=True, text=True).stdout

    def test_hosts_have_what_is_theirs(self):
        for host in range(3):
            self.assertEqual(self.on(host, "hostname").strip(), f"host{host}")
            self.assertIn(f"10.77.0.{host + 1}/", self.on(host, "ip", "-4", "address", "show", "eth0"))
        self.on(0, "touch", "/dev/shm/here")
        self.assertEqual(self.on(0, "ls", "/dev/shm"), "here\n")
        self.assertEqual(self.on(1, "ls", "/dev/shm"), "")
        self.on(0, "rm", "/dev/shm/here")
        self.assertIn("10.77.0.3", self.on(0, "getent", "hosts", "host2"))
        # Words stay whole.
        self.assertEqual(self.on(1, "printf", "%s|", "a b", "$HOME", "it's"), "a b|$HOME|it's|")

    def test_mpirun_starts_on_every_host(self):
        told = subprocess.run(
            [str(self.folder / "bin/mpirun"), "-np", "3", "--map-by", "ppr:1:node", "sh", "-c", "hostname; pwd"], cwd=self.temporary.name,
            capture_output=True, text=True)
        self.assertEqual(sorted(told.stdout.split()), sorted(["host0", "host1", "host2"] + [self.temporary.name] * 3), told.stderr)

    def test_links_are_throttled(self):
        receiver = subprocess.Popen(
            [str(self.folder / "bin/on"), "host1", sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, text=True)
        self.assertEqual(receiver.stdout.readline(), "ready\n")
        count = 20_000_000
        self.on(0, sys.executable, "-c", SEND, "host1", str(count))
        received, seconds = receiver.communicate()[0].split()
        self.assertEqual(int(received), count)
        # What a link may send at once, its bucket, comes on top: 256 kB on each of the two that the bytes go through.
        rate = 8 * (count - 2 * 262_144) / float(seconds)
        self.assertLess(rate, 200e6 * 1.02)

    def test_a_folder_is_one_cluster(self):
        again = up("2", "--folder", str(self.folder))
        self.assertEqual(again.returncode, 73)
        self.assertIn(str(self.folder), again.stderr)

    def test_usage_is_refused(self):
        for arguments in ([], ["1"], ["65"], ["two"], ["2", "fast"], ["2", "--slots", "0"], ["2", "--unknown"]):
            self.assertEqual(up(*arguments).returncode, 64, arguments)
        missing = subprocess.run([str(ROOT / "scripts/cluster-down"), "/nonexistent"], capture_output=True)
        self.assertEqual(missing.returncode, 66)

    def test_nothing_is_left(self):
        folder = pathlib.Path(self.temporary.name) / "other"
        self.assertEqual(up("2", "--folder", str(folder)).returncode, 0)
        sleeper = subprocess.Popen([str(folder / "bin/on"), "host1", "sleep", "600"], start_new_session=True)
        time.sleep(0.3)
        subprocess.run([str(ROOT / "scripts/cluster-down"), str(folder)], check=True)
        self.assertFalse(folder.exists())
        self.assertLess(sleeper.wait(5), 0)
        # The other cluster goes on.
        self.assertEqual(self.on(0, "hostname").strip(), "host0")


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=1).result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
