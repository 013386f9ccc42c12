"""Memory that is written and verified: tests/workload's memtoucher, idle or rewriting at a share of the link's rate."""

from field import FieldError
from workloads.base import Workload

PORT = 7000
LINK_MB_PER_S = {"bare veth": 1250, "1 Gbit/s": 125}
SIZES = {"256M": 256 << 20, "1G": 1 << 30, "4G": 4 << 30}


class Memory(Workload):
    """`percent` of the link's rate is rewritten, in place, all over the memory. Of the bare link, which has no rate, 10 Gbit/s count."""

    def __init__(self, size, content="random", percent=0):
        what = "idle" if not percent else f"{percent} % of the link rewritten"
        super().__init__(f"{size} {content}, {what}", SIZES[size])
        self.size, self.content, self.percent = size, content, percent

    def command(self, rig):
        rate = LINK_MB_PER_S[rig.link] * self.percent // 100
        return ["memtoucher", "--size", self.size, "--content", self.content, "--rate", str(rate), "--verify-rate", "0",
                "--command-port", str(PORT), *rig.beat_options()]

    def work_of(self, rig):
        return (lambda: rig.beats()["work"]) if self.percent else None

    def verify(self, rig, host):
        answer = rig.field.ask_workload(host, f"127.0.0.1:{PORT}", "verify", timeout_ms=120000)
        if not answer.startswith("ok ") or not answer.endswith(" 0 errors"):
            raise FieldError(f"the memtoucher's verdict: {answer!r}")
