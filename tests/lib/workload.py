"""Workloads that the integration tests and benchmarks move: the memtoucher on a host, huge pages for it."""

import os

from field import WORKLOADS, FieldError, wait_for
from tap import check, equal

HUGE_PAGES = "/proc/sys/vm/nr_hugepages"


def beats_of(observer):
    return observer.report()["workloads"][-1]


class Toucher:
    """A memtoucher on a host, verified from inside and by its beats."""

    def __init__(self, field, observer, *options, host="alpha", new_pidns=False, address="127.0.0.1", port=7000):
        self.field, self.observer, self.host, self.answers_at = field, observer, host, f"{address}:{port}"
        self.pid = field.spawn(host, os.path.join(WORKLOADS, "memtoucher"), "--observer",
                               f"{field.address('observer')}:9000", "--command-port", str(port), *options,
                               log="/srv/shared/memtoucher.log", new_pidns=new_pidns)
        wait_for("the memtoucher's answer", lambda: self.ask("stat").startswith("{"), timeout=60)

    def ask(self, what):
        return self.field.ask_workload(self.host, self.answers_at, what)

    def move(self, target, *options, **kwargs):
        status, result, events, errors = self.field.migrate(self.host, target, "pid", self.pid, *options, **kwargs)
        equal(status, 0, f"exit status of phaul migrate ({errors.strip()})")
        equal(result["outcome"], "migrated", "outcome")
        check(not self.field.alive(self.host, self.pid), "the process is still there at the source")
        self.host = target
        return result, events

    def verify(self):
        answer = self.ask("verify")
        check(answer.startswith("ok ") and answer.endswith(" 0 errors"), f"the memtoucher's verdict: {answer!r}")

    def end(self):
        self.ask("quit")
        wait_for("the memtoucher's end", lambda: not self.field.alive(self.host, self.pid))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Whatever happened: nothing of it may be in the next test's way."""
        for host in ("alpha", "beta"):
            self.field.run(host, "sh", "-c", "kill -9 $(pgrep -x memtoucher)", check=False)
            wait_for(f"an empty {host}", lambda host=host: self.field.run(host, "pgrep", "-x", "memtoucher",
                                                                          check=False).stdout == "")


class HugePages:
    """A few huge pages for both copies (one kernel serves both hosts), given back at the end."""

    def __init__(self, count=4):
        self.count = count

    def __enter__(self):
        with open(HUGE_PAGES, encoding="ascii") as file:
            self.before = int(file.read())
        self.set(self.before + self.count)
        with open(HUGE_PAGES, encoding="ascii") as file:
            if int(file.read()) < self.before + self.count:
                raise FieldError("the kernel has no huge pages to give")

    def __exit__(self, *_):
        self.set(self.before)

    @staticmethod
    def set(count):
        with open(HUGE_PAGES, "w", encoding="ascii") as file:
            file.write(str(count))
