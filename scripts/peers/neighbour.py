"""A neighbour: another program that sweeps 32 MB on another core, while the sides of a row take turns on this one."""

import os
import shlex
import shutil
import subprocess
import tempfile

BYTES = 32 << 20
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "neighbour.c")


class Impossible(Exception):
    """There can be no neighbour here; the reason."""


class Neighbour:
    """Runs it between `with` and the end of the block, and keeps this process, and what it starts meanwhile, to another core."""

    def __enter__(self):
        if not hasattr(os, "sched_setaffinity"):
            raise Impossible("this system does not keep a process to a core, so no neighbour can have its own")
        self.allowed = os.sched_getaffinity(0)
        if len(self.allowed) < 2:
            raise Impossible("a neighbour needs a second core")
        own, other = min(self.allowed), max(self.allowed)
        with tempfile.TemporaryDirectory(prefix="annulus-neighbour.") as folder:
            program = os.path.join(folder, "neighbour")
            self.compile(program)
            os.sched_setaffinity(0, {other})
            try:
                # It ends when its input does, which is the case at the latest when this process is gone.
                self.process = subprocess.Popen([program, str(BYTES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            finally:
                os.sched_setaffinity(0, {own})
        return self

    @staticmethod
    def compile(program):
        compiler = shlex.split(os.environ.get("CC", "")) or [name for name in ("cc", "clang", "gcc") if shutil.which(name)][:1]
        if not compiler:
            raise Impossible("there is no C compiler for scripts/peers/neighbour.c; name one in CC")
        ended = subprocess.run([*compiler, "-O3", "-o", program, SOURCE], capture_output=True, text=True)
        if ended.returncode != 0:
            raise Impossible("%s cannot compile scripts/peers/neighbour.c: %s" % (compiler[0], ended.stderr.strip().splitlines()[-1:]))

    def __exit__(self, *error):
        try:
            printed, _ = self.process.communicate(timeout=10)
            if self.process.returncode != 0:
                raise Impossible("the neighbour ended with status %d" % self.process.returncode)
            read, seconds, given = map(float, printed.split())
            self.told = "beside a neighbour on another core that swept %d MB at %.1f GB/s, %.0f%% of the time" % (
                BYTES >> 20, read / given * 1e-9, 100 * given / seconds)
        finally:
            self.process.kill()
            self.process.wait()
            os.sched_setaffinity(0, self.allowed)
