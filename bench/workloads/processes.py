"""Many small processes that talk over pipes and sockets and check each other: tests/workload's busytree."""

from field import FieldError
from workloads.base import Workload


class Processes(Workload):
    def __init__(self, count):
        super().__init__(f"{count} small process{'es' * (count > 1)} and their parent")
        self.count = count

    def command(self, rig):
        return ["busytree", "--children", str(self.count), *rig.beat_options()]

    def verify(self, rig, host):
        """It ends at the first thing that is wrong, and says so in its last beats."""
        seen = rig.beats()
        if seen["errors"] or seen["silent_ms"] > 100:
            raise FieldError(f"the processes' verdict: {seen['errors']} errors, silent for {seen['silent_ms']} ms")
