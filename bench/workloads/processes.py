"""Many small processes that talk over pipes and sockets and check each other: tests/workload's busytree."""

from field import FieldError
from workloads.base import Workload


class Processes(Workload):
    """`mib` of memory are shared out among them; `threads` more in each only wait and look at it."""

    def __init__(self, count, mib=0, threads=0):
        name = f"{count} small process{'es' * (count > 1)} and their parent"
        super().__init__(name + f", {mib}M in all" * (mib > 0) + f", {threads} threads" * (threads > 0), mib << 20)
        self.count, self.mib, self.threads = count, mib, threads

    def command(self, rig):
        # The more they are, the more seldom each talks: all together do the same work, and what differs is their number.
        return ["busytree", "--children", str(self.count), "--memory", f"{self.mib // self.count}M", "--threads", str(self.threads),
                "--round-ticks", str(5 * self.count), "--tick-ms", str(10 * self.count), *rig.beat_options()]

    def verify(self, rig, host):
        """It ends at the first thing that is wrong, and says so in its last beats."""
        seen = rig.beats()
        if seen["errors"] or seen["silent_ms"] > 100:
            raise FieldError(f"the processes' verdict: {seen['errors']} errors, silent for {seen['silent_ms']} ms")
