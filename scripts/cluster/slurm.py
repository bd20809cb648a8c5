"""Slurm on the hosts of scripts/cluster-up: munge, a controller on host0 and a daemon on each host, from Debian's packages."""

import os
import pathlib
import shlex
import shutil
import subprocess
import time

import network_hosts

PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge", "srun": "slurm-client"}
PACKAGES = ["slurm-wlm", "munge"]
CLIENTS = ["srun", "sbatch", "salloc", "squeue", "sinfo", "scontrol", "scancel", "sacct"]
# How long the hosts may take to be idle.
LIMIT = 60


def missing() -> list[str]:
    """The programs that are not here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def configuration(hosts: network_hosts.Hosts, folder: pathlib.Path, processors: int) -> str:
    """Hosts that say they have so many processors; a job's processes are those that its shell has started."""
    return f"""# Of scripts/cluster-up: a job's time limit, signals and requeueing are as on any cluster; accounting and control groups are left out.
ClusterName=annulus
SlurmctldHost=host0({hosts.address(0)})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
TmpFS={hosts.folder}/%n
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ReturnToService=2
JobRequeue=1
SchedulerParameters=sched_interval=5,batch_sched_delay=0
MpiDefault=none
KillWait=10
InactiveLimit=0
NodeName=host[0-{hosts.count - 1}] CPUs={processors} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def start(hosts: network_hosts.Hosts, processors: int) -> list[int]:
    """Starts the daemons; returns their processes. Raises network_hosts.NoHosts where they do not come up."""
    folder = hosts.folder / "slurm"
    for place in (folder, folder / "state", *(folder / f"host{number}" for number in range(hosts.count))):
        place.mkdir()
    (folder / "slurm.conf").write_text(configuration(hosts, folder, processors))
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    processes: list[int] = []

    def spawn(number: int, command: list[str]) -> None:
        log = open(folder / f"{pathlib.Path(command[0]).name}-{number}.out", "wb")
        process = subprocess.Popen(
            ["nsenter", "--target", str(hosts.identifiers[number]), *network_hosts.NAMESPACES, *command], env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        processes.append(process.pid)

    spawn(0, [
        "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"])
    wait("munged", lambda: (folder / "munge.socket").exists(), folder, processes)
    spawn(0, ["slurmctld", "-D", "-i"])
    for number in range(hosts.count):
        spawn(number, ["slurmd", "-D", "-N", f"host{number}"])

    def are_idle() -> bool:
        state = subprocess.run(
            ["nsenter", "--target", str(hosts.identifiers[0]), *network_hosts.NAMESPACES, "sinfo", "-h", "-o", "%T %D"], env=environment,
            capture_output=True, text=True)
        return state.stdout.split() == ["idle", str(hosts.count)]

    wait("slurm", are_idle, folder, processes)
    for name in CLIENTS:
        wrapper = hosts.folder / "bin" / name
        # By its whole name: the path that the wrapper is found on leads back to it.
        program = shutil.which(name, path="/usr/bin:/usr/local/bin") or name
        wrapper.write_text(wrapper_text(hosts, [program], {"SLURM_CONF": str(folder / "slurm.conf")}))
        wrapper.chmod(0o755)
    return processes


def wait(what: str, is_there, folder: pathlib.Path, processes: list[int]) -> None:
    deadline = time.monotonic() + LIMIT
    while not is_there():
        if time.monotonic() > deadline:
            said = "; ".join(
                lines[-1] for path in sorted([*folder.glob("*.log"), *folder.glob("*.out")]) if (lines := path.read_text(errors="replace").splitlines()))
            end(processes)
            raise network_hosts.NoHosts(f"{what} is not up after {LIMIT} s: {said}")
        time.sleep(0.2)


def end(processes: list[int]) -> None:
    for process in reversed(processes):
        try:
            os.kill(process, 15)
        except ProcessLookupError:
            pass


def wrapper_text(hosts: network_hosts.Hosts, command: list[str], variables: dict[str, str]) -> str:
    """A program that runs a command on host0, with its own arguments behind it, in the folder that it is called in."""
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return (
        f'#!/bin/sh\nexec nsenter --target {hosts.identifiers[0]} {" ".join(network_hosts.NAMESPACES)} --wd="$PWD" \\\n'
        f'    env {given} {shlex.join(command)} "$@"\n')
