"""Workloads of every kind that phaul moves, each with the same few verbs, for the suite that all drivers have to pass.

A kind knows how its workload starts, what it is called for phaul, and what its engine says of it on either host; what the workload
itself says (a memtoucher, from inside) is the same for all. KINDS is the table: an engine of engines.py is one line there.
"""

import os

import lxclab
from engines import make_engine
from field import PHAUL, WORKLOADS, wait_for
from tap import check, equal

SOURCE, TARGET = "alpha", "beta"
OTHER = {SOURCE: TARGET, TARGET: SOURCE}
NAME, OTHER_NAME = "c1", "c2"
COMMAND_PORT = 7000
# 48 MiB: private memory, shared in both ways, remapped, guarded, unreadable, copied on write, of forks, threads and mappings that come and go.
MEMORY = ("--size", "32M", "--all", "--shared", "8M", "--without", "hugetlb,mlock", "--rate", "5", "--command-port", str(COMMAND_PORT))


class Workload:
    """What does not depend on the kind. `host` is where it runs now."""

    has_name = True

    def __init__(self, field, kind):
        self.field, self.kind, self.host, self.id = field, kind, SOURCE, NAME

    def start(self):
        self.host, self.id = SOURCE, NAME
        self.create("--observer", f"{self.field.address('observer')}:9000", *MEMORY)
        wait_for("the memtoucher's answer", lambda: self.ask("stat").startswith("{"), timeout=60)

    def verify(self):
        answer = self.ask("verify")
        check(answer.startswith("ok ") and answer.endswith(" 0 errors"), f"the memtoucher's verdict on {self.host}: {answer!r}")

    def processes(self, host):
        return self.field.run(host, "pgrep", "-x", "memtoucher", check=False).stdout.split()

    def lives_at(self, host, name=None):
        """One copy, there: the host, the engine and the memory itself say so."""
        self.host, self.id = host, name or self.id
        wait_for(f"no process of it on {OTHER[host]}", lambda: not self.processes(OTHER[host]))
        check(self.runs(host), f"the engine on {host} does not say that it runs")
        check(not self.runs(OTHER[host]), f"the engine on {OTHER[host]} says that it runs")
        self.verify()

    def phaul(self, verb, *options, to=None):
        """The words of a command about it."""
        return (PHAUL, verb, self.kind, str(self.id), "--to", to or self.field.address(OTHER[self.host]), *options)

    def migrate(self, *options, **kwargs):
        return self.field.migrate(self.host, OTHER[self.host], self.kind, self.id, *options, **kwargs)

    def move(self, *options, name=None):
        target = OTHER[self.host]
        status, result, _, errors = self.migrate(*options)
        equal((status, result and result["outcome"]), (0, "migrated"), f"the move to {target} ({errors.strip()[-600:]})")
        self.lives_at(target, name)
        return result


class Processes(Workload):
    """A bare tree: its name is its pid."""

    has_name = False
    unknown = "999999"

    def create(self, *options):
        self.id = self.field.spawn(SOURCE, os.path.join(WORKLOADS, "memtoucher"), *options, log="/srv/shared/memtoucher.log")

    def ask(self, what):
        return self.field.ask_workload(self.host, f"127.0.0.1:{COMMAND_PORT}", what)

    def runs(self, host):
        return self.field.alive(host, self.id)

    def names(self, host):
        return self.processes(host)

    def take_name(self):
        """A process at the target with the workload's pid."""
        self.field.run(TARGET, "sh", "-c", f"echo {self.id - 1} > /proc/sys/kernel/ns_last_pid; "
                                           "setsid sleep 1000 >/dev/null 2>&1 </dev/null & exit 0")
        check(self.field.alive(TARGET, self.id), "the test could not take the pid at the target")

    def give_name_back(self):
        self.field.run(TARGET, "kill", "-9", str(self.id))

    def wipe(self):
        for host in (SOURCE, TARGET):
            self.field.run(host, "sh", "-c", "kill -9 $(pgrep -x memtoucher)", check=False)
            wait_for(f"an empty {host}", lambda host=host: not self.processes(host))

    def close(self):
        self.wipe()


class Containers(Workload):
    """A container of an engine that both hosts have."""

    unknown = "nobody"

    def __init__(self, field, kind, **options):
        super().__init__(field, kind)
        self.engines = {}
        try:
            for host in (SOURCE, TARGET):
                self.engines[host] = self.make_engine(host, **options)
                self.engines[host].start(NAME, "sleep", "1000")
            self.wipe()
        except BaseException:
            self.close()
            raise

    def make_engine(self, host, **options):
        return make_engine(self.kind, self.field, host, **options)

    def create(self, *options):
        self.engines[SOURCE].start(NAME, "memtoucher", *options)

    def ask(self, what):
        done = self.engines[self.host].inside(self.id, "ask", "--timeout-ms", "60000", f"udp:127.0.0.1:{COMMAND_PORT}", what, check=False,
                                              timeout=90)
        return done.stdout.strip()

    def runs(self, host):
        return self.engines[host].running(self.id)

    def names(self, host):
        return self.engines[host].listed()

    def take_name(self):
        self.engines[TARGET].start(NAME, "sleep", "1000")

    def give_name_back(self):
        self.engines[TARGET].remove(NAME)

    def wipe(self):
        for engine in self.engines.values():
            for name in {*engine.listed(), NAME, OTHER_NAME}:
                engine.remove(name)

    def close(self):
        for engine in self.engines.values():
            engine.close()


class BridgedContainers(Containers):
    """Those of LXC, which do not move when they share the host's network: each has an address of its own."""

    def make_engine(self, host, **options):
        lxclab.span(self.field, host)
        return lxclab.Containers(self.field, host, **options)


# What phaul moves: a kind's class and how its engine is made.
KINDS = {
    "pid": (Processes, {}),
    "runc": (Containers, {}),
    "docker": (Containers, {}),
    "podman": (Containers, {}),
    "lxc": (BridgedContainers, {}),
}


def make_workload(field, kind):
    made, options = KINDS[kind]
    return made(field, kind, **options)
