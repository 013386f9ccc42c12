"""Faults that take more than one stroke: several processes at once, the operator's and a fence's word."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cells import ABORTED, MIGRATED, UNKNOWN, Cell  # noqa: E402
from faults import Trial  # noqa: E402
from field import PHAUL, wait_for  # noqa: E402
from tap import check, equal  # noqa: E402


class Special(Trial):
    """A trial whose stroke is a method; its point is always held."""

    title, cell = "", None
    options = ()

    def __init__(self, field, observer):
        super().__init__(field, observer, type(self).cell)
        self.move_options = self.options

    def resolve(self, host, keep):
        done = self.field.run(host, PHAUL, "resolve", self.status(host)[0]["id"], "--keep", keep, "--yes", check=False)
        equal(done.returncode, 0, f"exit status of phaul resolve at {host} ({done.stderr.strip()})")


class SourceAndItsCriu(Special):
    """When a tracer dies its tasks run: these must not."""
    title = "phaul and CRIU at the source right after the commit: the tasks stay stopped"
    cell = Cell("source+criu", "source-committed", "beta", settle=True, held=True)

    def strike(self):
        self.field.run("alpha", "sh", "-c", "kill -9 $(pgrep -x criu) $(pgrep -f 'phaul migrate' | grep -vx $$)", check=False)
        wait_for("their end", lambda: not self.field.run("alpha", "pgrep", "-x", "criu", check=False).stdout)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            states = self.states("alpha")
            check(states and set(states) == {"T"} or set(states) == {"t"}, f"states of the tasks: {states}")


class TargetAndItsCriu(Special):
    title = "worker and CRIU at the target when it is prepared"
    cell = Cell("target+criu", "target-commit", "alpha", ABORTED)

    def strike(self):
        worker = self.field.run("beta", "pgrep", "-n", "-f", "phaul serve").stdout.strip()
        self.field.run("beta", "sh", "-c", f"kill -9 {worker} $(pgrep -x criu)")


class TargetService(Special):
    title = "worker and service at the target when it is prepared; the service is started again"
    cell = Cell("service", "target-commit", "alpha", ABORTED)

    def strike(self):
        self.kill("beta", "-f", "phaul serve")
        self.field.serve.pop("beta").wait()
        self.field.start_server("beta", "--timeout", "2")


class ServiceOnly(Special):
    title = "the service at the target, but not its worker, after the commit"
    cell = Cell("service", "target-commit", "beta", MIGRATED)

    def strike(self):
        self.field.run("beta", "kill", "-9", self.listener())
        self.field.serve.pop("beta").wait()
        self.go()
        self.start_server({})


class OperatorKeepsTarget(Special):
    title = "the link is cut for good after the commit; the operator keeps the target's copy"
    cell = Cell("link", "source-committed", "beta", UNKNOWN, settle=True, held=True)

    def settle(self):
        self.resolve("beta", "target")
        self.resolve("alpha", "target")
        self.field.lab("join", "beta")


class OperatorKeepsSource(Special):
    title = "the link is cut for good after the commit; the operator keeps the source's copy"
    cell = Cell("link", "source-committed", "alpha", UNKNOWN, settle=True, held=True)

    def settle(self):
        self.resolve("beta", "source")
        self.resolve("alpha", "source")
        self.field.lab("join", "beta")


class Fence(Special):
    title = "the link is cut for good after the commit; a fence says that the target is dead"
    cell = Cell("link", "source-committed", "alpha", ABORTED, settle=True)
    options = ("--fence", "/bin/true")

    def settle(self):
        wait_for("a copy that runs at the source", lambda: self.ask_quickly("alpha"))
        super().settle()  # a fence that lied: the target is there again, and is told to forget


SPECIALS = (SourceAndItsCriu, TargetAndItsCriu, TargetService, ServiceOnly, OperatorKeepsTarget, OperatorKeepsSource, Fence)
