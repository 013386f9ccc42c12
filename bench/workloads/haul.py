"""P.Haul's own: 256 MiB mapped, 64 MiB of it touched, and one page rewritten every 100 ms: tests/workload's pagetouch."""

from field import FieldError
from workloads.base import Workload


class Haul(Workload):
    def __init__(self):
        super().__init__("P.Haul's own: 256M mapped, 64M touched", 64 << 20)

    def command(self, rig):
        return ["pagetouch", "--mapped", "256M", "--touched", "64M", "--period-ms", "100", *rig.beat_options()]

    def verify(self, rig, host):
        """It verifies the page that it rewrites, all pages when it is told to, and ends with errors in its beats when one is wrong."""
        passes = rig.beats()["full_passes"]
        rig.field.run(host, "sh", "-c", "kill -USR1 $(pgrep -x pagetouch)")
        for _ in range(100):
            seen = rig.beats()
            if seen["errors"] or seen["silent_ms"] > 1000:
                break
            if seen["full_passes"] > passes:
                return
        raise FieldError(f"pagetouch's verdict: {seen['errors']} errors, silent for {seen['silent_ms']} ms")
