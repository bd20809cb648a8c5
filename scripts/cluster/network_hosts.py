"""Several hosts on one machine, made of namespaces: what scripts/cluster-up and the tests of Tests/Faults run jobs on.

A host has a network interface with an address of its own, a name, shared memory (/dev/shm), a folder for temporary files and its
own /etc/hosts; processors, memory and all other files are the machine's. Hosts meet on a bridge, each by a link that can be cut, and
throttled to a rate in both directions. That needs root.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess

# What makes mpirun notice a host that does not answer: after so many seconds of silence it asks, every so many seconds, so
# often. Unless told it waits for 300 s and asks nine times, every 20 s.
KEEPALIVE = {"time": 5, "intvl": 2, "probes": 3}
KEEPALIVE_SECONDS = KEEPALIVE["time"] + KEEPALIVE["intvl"] * KEEPALIVE["probes"]
# The namespaces of a host that are its own.
NAMESPACES = ["--net", "--uts", "--mount"]
RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)bit")


class NoHosts(OSError):
    """Hosts cannot be made here; the text says why."""


def missing() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"there is no {tool} (Debian: iproute2 util-linux)"
    if os.geteuid() != 0:
        return "network namespaces take root"
    trial = subprocess.run(["unshare", *NAMESPACES, "ip", "link", "add", "name", "t0", "type", "bridge"], capture_output=True, text=True)
    return f"namespaces with a bridge cannot be made: {trial.stderr.strip()}" if trial.returncode else None


class Hosts:
    """Some hosts on a bridge, host0 and so on. Each is held by a process: one that waits for the end of its input, and so ends when
    this program does, or where hosts are kept, one that sleeps until `end` ends it."""

    def __init__(self, folder: pathlib.Path, count: int = 3, slots: int = 2, rate: str | None = None, keeps: bool = False):
        """Raises NoHosts where they cannot be made. `rate` is as tc takes it: 1gbit, 100mbit."""
        self.folder = folder
        self.count = count
        self.keeps = keeps
        self.holders: list[subprocess.Popen] = []
        if why := missing():
            raise NoHosts(why)
        try:
            self.names = folder / "hosts"
            self.names.write_text("127.0.0.1 localhost\n" + "".join(f"{self.address(n)} host{n}\n" for n in range(count)))
            self.switch = self.make_host("switch")
            self.identifiers = [self.make_host(f"host{number}") for number in range(count)]
            self.enter(self.switch, "ip link add name bridge0 type bridge && ip link set bridge0 up")
            for number, identifier in enumerate(self.identifiers):
                self.enter(
                    self.switch, f"ip link add name port{number} type veth peer name eth0 netns {identifier} && "
                    f"ip link set port{number} master bridge0 up")
                self.enter(
                    identifier, f"ip link set lo up && ip address add {self.address(number)}/16 dev eth0 && ip link set eth0 up")
            if rate:
                self.throttle(rate)
        except BaseException:
            self.close()
            raise
        self.hostfile = folder / "hostfile"
        self.hostfile.write_text("".join(f"host{number} slots={slots}\n" for number in range(count)))
        self.on = folder / "on"
        self.agent = folder / "agent"
        cases = "".join(
            f"host{number}|{self.address(number)}) host={identifier} TMPDIR={self.temporary(number)} ;;\n"
            for number, identifier in enumerate(self.identifiers))
        # The working folder is that of the caller, which a mount namespace would forget.
        self.on.write_text(
            f'#!/bin/sh\n# on HOST COMMAND ARGUMENT…\ncase $1 in\n{cases}*) echo "on: no host $1" >&2; exit 64 ;;\nesac\n'
            f'shift\nexport TMPDIR\nexec nsenter --target "$host" {" ".join(NAMESPACES)} --wd="$PWD" "$@"\n')
        self.agent.write_text(f'#!/bin/sh\n# agent HOST WORD…, in the place of ssh, which joins words\nhost=$1\nshift\nexec {self.on} "$host" sh -c "$*"\n')
        for program in (self.on, self.agent):
            program.chmod(0o755)

    def close(self) -> None:
        for holder in self.holders:
            if self.keeps:
                holder.send_signal(signal.SIGKILL)
            else:
                holder.stdin.close()
            holder.wait(10)
            if holder.stdout:
                holder.stdout.close()
        self.holders = []

    def make_host(self, name: str) -> int:
        """Makes a host; returns the process by which its namespaces are entered."""
        (self.folder / name).mkdir()
        begin = (
            f"hostname {name} && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && mount --bind {self.names} /etc/hosts && "
            f"echo ready && exec {'sleep infinity' if self.keeps else 'cat'}")
        holder = subprocess.Popen(
            ["unshare", *NAMESPACES, "sh", "-c", begin], stdin=subprocess.DEVNULL if self.keeps else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE if self.keeps else None, text=True, start_new_session=self.keeps)
        self.holders.append(holder)
        if holder.stdout.readline() != "ready\n":
            raise NoHosts(f"the namespaces of {name} cannot be made")
        return holder.pid

    def enter(self, identifier: int, command: str) -> None:
        """Runs a command in the network of a host."""
        done = subprocess.run(["nsenter", "--target", str(identifier), "--net", "sh", "-c", command], capture_output=True, text=True)
        if done.returncode:
            raise NoHosts(f"{command}: {done.stderr.strip()}")

    def throttle(self, rate: str) -> None:
        """Sets every link's rate, in both directions."""
        told = RATE.fullmatch(rate)
        if not told:
            raise NoHosts(f"a rate is as tc takes it, 1gbit or 100mbit, not '{rate}'")
        if shutil.which("tc") is None:
            raise NoHosts("there is no tc (Debian: iproute2), which throttles links")
        bits = float(told[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[told[2]]
        for number, identifier in enumerate(self.identifiers):
            # The queue holds whole messages: a link of a cluster delays, and drops nothing. What a link that was idle may
            # send at once is a millisecond's worth: with more it would carry more than its rate in a job of many pauses. But it
            # holds what the system hands over at a time, 64 KiB, which would be cut into packets here, at a processor's cost.
            limit = f"root tbf rate {rate} burst {max(72 << 10, int(bits / 8000))} limit 32mb"
            self.enter(identifier, f"tc qdisc replace dev eth0 {limit}")
            self.enter(self.switch, f"tc qdisc replace dev port{number} {limit}")

    def set_link(self, number: int, state: str) -> None:
        """Cuts a host off (down) or joins it again (up)."""
        self.enter(self.switch, f"ip link set port{number} {state}")

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.{number // 250}.{number % 250 + 1}"

    def temporary(self, number: int) -> pathlib.Path:
        return self.folder / f"host{number}"

    def shared_memory(self, number: int) -> pathlib.Path:
        return pathlib.Path(f"/proc/{self.identifiers[number]}/root/dev/shm")

    def left(self) -> list[str]:
        """What lies in shared memory and in the folders for temporary files, host by host."""
        return [
            f"host{number}:{path.name}" for number in range(self.count)
            for folder in (self.shared_memory(number), self.temporary(number)) for path in sorted(folder.iterdir())]

    def clear(self) -> None:
        for number in range(self.count):
            for folder in (self.shared_memory(number), self.temporary(number)):
                for path in folder.iterdir():
                    subprocess.run(["rm", "-rf", str(path)], check=True)

    @property
    def mpirun_options(self) -> list[str]:
        """What mpirun needs to know of the hosts."""
        options = {
            "btl": "tcp,vader,self", "btl_tcp_if_include": "eth0", "oob_tcp_if_include": "eth0", "plm_rsh_agent": str(self.agent),
        } | {f"oob_tcp_keepalive_{name}": str(value) for name, value in KEEPALIVE.items()}
        return ["--hostfile", str(self.hostfile), *(word for name, value in options.items() for word in ("--mca", name, value))]
