"""ReFrame's tests of an installation: the same bytes on any number of ranks, scaling, and what messages between ranks reach.

    reframe -C scripts/packaging/reframe/one-machine.py -c scripts/packaging/reframe/installation.py -r --performance-report

On a cluster name its own settings with -C. `-S modules=NAME/VERSION` names another module than annulus, `-S 'modules=[]'` takes the annulus of PATH.
"""

import json
import os

import reframe as rfm
import reframe.utility.sanity as sn

# How ranks are started, as docs/clusters.md has it.
LAUNCHER_OPTIONS = {"mpirun": ["--oversubscribe", "--bind-to", "none"], "srun": ["--mpi=pmix"]}


class Bench(rfm.RunOnlyRegressionTest):
    """A benchmark that prints lines of JSON; a rank has one thread."""

    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    modules = ["annulus"]
    executable = "annulus"
    num_tasks = 1
    num_cpus_per_task = 1

    @run_before("run")
    def start_as_documented(self):
        self.executable_opts += ["--format", "json", "--threads", str(self.num_cpus_per_task), "--quiet"]
        self.job.launcher.options = LAUNCHER_OPTIONS.get(self.job.launcher.registered_name, [])

    def lines(self) -> list[dict]:
        with open(os.path.join(self.stagedir, str(self.stdout))) as file:
            return [json.loads(line) for line in file if line.startswith("{")]

    @sanity_function
    def prints_what_was_asked(self):
        return sn.assert_true(self.lines() and all(line["ranks"] == self.num_tasks for line in self.lines()))


class Attention(Bench):
    """Attention and its gradients over 4,096 tokens."""

    executable_opts = ["bench", "attention", "--length", "4096", "--mask", "'causal & window(1500,0) | global(7)'", "--backward"]


class AttentionAlone(Attention):
    """On one rank: what the others are held against."""

    @performance_function("GFLOP/s")
    def gflops(self):
        return self.lines()[0]["gflops"]

    @performance_function("%")
    def share_of_peak(self):
        return 100 * self.lines()[0]["fraction_of_peak"]


@rfm.simple_test
class SameBytes(Attention):
    """The gradients on several ranks have the bytes of one rank's."""

    ranks = parameter([2, 3, 5])
    strategy = parameter(["pass-kv", "pass-q", "all-gather"])
    alone = fixture(AttentionAlone, scope="environment")

    @run_after("init")
    def set_ranks(self):
        self.num_tasks = self.ranks
        self.executable_opts += ["--strategy", self.strategy, "--repetitions", "1"]

    @sanity_function
    def has_the_bytes_of_one_rank(self):
        return sn.assert_eq(self.lines()[0]["sha256"], self.alone.lines()[0]["sha256"])


@rfm.simple_test
class Scaling(Attention):
    """How much faster more ranks are than one: at least as much of their number as `-S Scaling.least=PERCENT` says."""

    ranks = parameter([2, 4, 8, 16, 32, 64])
    least = variable(float, value=75.0)
    alone = fixture(AttentionAlone, scope="environment")

    @run_after("init")
    def set_ranks(self):
        self.num_tasks = self.ranks
        self.reference = {"*": {"efficiency": (self.least, 0, None, "%")}}

    @run_after("setup")
    def need_processors(self):
        if self.current_partition.scheduler.registered_name == "local":
            self.skip_if(len(os.sched_getaffinity(0)) < self.ranks, "more ranks than processors")

    @performance_function("%")
    def efficiency(self):
        return 100 * self.alone.lines()[0]["seconds"] / (self.ranks * self.lines()[0]["seconds"])


@rfm.simple_test
class Exchange(Bench):
    """Messages between two ranks, of two nodes where a scheduler gives them: latency of a byte, bandwidth of 4 MiB."""

    num_tasks = 2
    num_tasks_per_node = 1
    executable_opts = ["bench", "exchange", "--bytes", "1:4194304"]

    def row(self, pattern: str, size: int) -> dict:
        return next(line for line in self.lines() if line["pattern"] == pattern and line["bytes"] == size)

    @performance_function("us")
    def latency(self):
        return self.row("latency", 1)["microseconds"]

    @performance_function("MB/s")
    def bandwidth(self):
        return self.row("bandwidth", 1 << 22)["mb_per_second"]

    @performance_function("MB/s")
    def both_ways(self):
        return self.row("both", 1 << 22)["mb_per_second"]
