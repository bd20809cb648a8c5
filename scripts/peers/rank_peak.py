"""A rank's parent: runs a command and writes two peaks of its memory, in bytes, to a file named by the rank.

    mpirun … python3 rank_peak.py FOLDER COMMAND ARGUMENT…

The first is the peak of the resident set as the system keeps it, in which pages that several ranks share count in each. The
second divides such pages among their users (Pss of proc(5)), so that those of a host's ranks add up to what they take
together; it is asked for again and again while the command runs, and may miss what lasts milliseconds. Where the system does
not tell, it is the first.
"""

import os
import sys
import time


def share(process):
    """The bytes of a process now, shared pages divided; 0 where the system does not tell."""
    try:
        with open("/proc/%d/smaps_rollup" % process) as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except OSError:
        return 0


def main():
    folder, command = sys.argv[1], sys.argv[2:]
    child = os.fork()
    if child == 0:
        try:
            os.execv(command[0], command)
        finally:
            os._exit(127)
    peak = 0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        start = time.monotonic()
        peak = max(peak, share(child))
        # Asking takes the longer the more memory there is; it is not to slow the command much, nor to miss the peak of a short one.
        time.sleep(max(0.002, 3 * (time.monotonic() - start)))
    unit = 1 if sys.platform == "darwin" else 1024
    with open(os.path.join(folder, os.environ.get("OMPI_COMM_WORLD_RANK", "0")), "w") as file:
        resident = usage.ru_maxrss * unit
        file.write("%d %d" % (resident, peak or resident))
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
