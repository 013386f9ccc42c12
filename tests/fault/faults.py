"""Faults in the handover: one cell is one move in which something is killed or cut at a named point, and what must come of it.

A cell ends well when exactly one copy of the workload lives where the table of docs/handover.md says, its memory is right, both hosts
never beat at the same time, every journal is finished, and nothing is left (phaul cleanup finds nothing).
"""

import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from field import LAB, PHAUL, WORKLOADS, Field, FieldError, wait_for  # noqa: E402
from cells import ABORTED, MIGRATED, REFUSED  # noqa: E402
from tap import Failed, check, equal  # noqa: E402

HOOKS = "/srv/shared/hooks"
STOPPED_S = 10
FULL = ("/run/phaul", "/var/lib/phaul")  # what is filled up at the target: on file systems of their own


def make_field(name):
    """alpha, beta and observer; what phaul writes at beta fits into small file systems."""
    field = Field(name, hosts=("alpha", "beta", "observer"), servers=("alpha",))
    for directory in FULL:
        field.run("beta", "mkdir", "-p", "-m", "0700", directory)
        field.run("beta", "mount", "-t", "tmpfs", "-o", "size=48M,mode=700", "tmpfs", directory)
    return field, field.observer("observer", 9000)


class Trial:
    """One cell on a field of alpha, beta and observer. Other kinds of workloads have a class of their own (tests/integration)."""

    kind = "pid"

    def __init__(self, field, observer, cell):
        self.field, self.observer, self.cell = field, observer, cell
        self.move_options = ()
        self.process = None
        self.lives = cell.lives

    # -- the workload ----------------------------------------------------------------------------

    def start_workload(self):
        field = self.field
        self.pid = field.spawn("alpha", os.path.join(WORKLOADS, "memtoucher"), "--observer",
                               f"{field.address('observer')}:9000", "--command-port", "7000", "--size", "24M", "--rate",
                               "20", log="/srv/shared/memtoucher.log")
        wait_for("the memtoucher's answer", lambda: self.ask("alpha", "stat").startswith("{"), timeout=30)
        self.observer.mark(self.cell.name.replace(" ", "-"))

    def ask(self, host, what):
        return self.field.ask_workload(host, "127.0.0.1:7000", what)

    def states(self, host):
        """The states of all its processes on that host: ["S"]."""
        pids = self.field.run(host, "pgrep", "-x", "memtoucher", check=False).stdout.split()
        found = []
        for pid in pids:
            stat = self.field.run(host, "cat", f"/proc/{pid}/stat", check=False).stdout
            if stat:
                found.append(stat.rsplit(")", 1)[1].split()[0])
        return [state for state in found if state not in "ZX"]

    def end_workload(self):
        for host in ("alpha", "beta"):
            self.field.run(host, "sh", "-c", "kill -9 $(pgrep -x memtoucher)", check=False)
            wait_for(f"an empty {host}", lambda host=host: not self.states(host))

    # -- the move --------------------------------------------------------------------------------

    def hook(self, action):
        return {"PHAUL_HOOK": f"{self.cell.point}={action}", "PHAUL_HOOK_DIRECTORY": HOOKS}

    def restart_server(self, env):
        if "beta" in self.field.serve:
            self.field.stop_server("beta")
        self.start_server(env)

    def start_server(self, env):
        self.field.start_server("beta", "--timeout", "2", env=env)

    def start_move(self, env):
        out = os.path.join(self.field.logs, "migrate.out")
        self.err = os.path.join(self.field.logs, "migrate.err")
        with open(out, "wb") as stdout, open(self.err, "wb") as stderr:
            self.process = subprocess.Popen(
                [LAB, "--name", self.field.name, "exec", "alpha", PHAUL, "migrate", self.kind, str(self.pid), "--to",
                 self.field.address("beta"), "--json", "-v", "--peer-timeout", "2", "--reconnect-timeout", "6", *self.cell.options, *self.move_options],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env={**os.environ, **env})

    def wait_point(self):
        reached = f"{HOOKS}/{self.cell.point}.reached"
        wait_for(f"the point {self.cell.point}", lambda: self.process.poll() is not None or
                 self.field.run("alpha", "test", "-e", reached, check=False).returncode == 0, timeout=30)

    def go(self):
        self.field.run("alpha", "touch", f"{HOOKS}/{self.cell.point}.go")

    def kill(self, host, *pattern):
        pids = self.field.run(host, "pgrep", *pattern, check=False).stdout.split()
        check(pids, f"there is no process {' '.join(pattern)} on {host} to kill")
        for pid in pids:
            self.field.run(host, "kill", "-9", pid, check=False)

    def at_source(self):
        return self.cell.point.startswith("source-")

    def strike(self):
        strokes = {"source": self.strike_source, "source-criu": lambda: self.kill("alpha", "-x", "criu"),
                   "service": self.strike_service, "worker": lambda: self.kill("beta", "-n", "-f", "phaul serve"),
                   "target-criu": lambda: self.kill("beta", "-x", "criu"),
                   # the pager proper is the supervisor's child: the younger one
                   "pager": lambda: self.kill("beta", "-n", "-f", "exe pager|phaul pager"),
                   "link 2 s": lambda: self.field.lab("cut", "beta"), "link": lambda: self.field.lab("cut", "beta"),
                   "full": self.fill, "stop": lambda: self.signal_peer("STOP")}
        strokes.update(self.more_strokes())
        strokes[self.cell.victim]()
        self.go()
        if self.cell.victim == "link 2 s":
            time.sleep(2)
            self.field.lab("join", "beta")
        elif self.cell.victim == "stop":
            time.sleep(STOPPED_S)
            self.signal_peer("CONT")

    def more_strokes(self):
        return {}

    def strike_source(self):
        self.kill("alpha", "-f", "exe migrate|phaul migrate")

    def listener(self):
        """Its pid at beta. A worker of an earlier cell may be older: it stays for a while when its source was killed."""
        return re.search(r"pid=(\d+)", self.field.run("beta", "ss", "-Hltnp", "sport", "=", ":7433").stdout)[1]

    def strike_service(self):
        self.field.run("beta", "kill", "-9", self.listener())
        self.field.serve.pop("beta").wait()
        self.start_server({})

    def fill(self):
        for directory in FULL:
            self.field.run("beta", "sh", "-c", f"cat /dev/zero >{directory}/filler", check=False)

    def make_room(self):
        self.field.run("beta", "rm", "-f", *(f"{directory}/filler" for directory in FULL))

    def signal_peer(self, signal):
        """To all of phaul on the other side of the point, but nothing that it has started."""
        host, pattern = ("beta", "phaul serve") if self.at_source() else ("alpha", "phaul migrate")
        self.field.run(host, "pkill", f"-{signal}", "-f", pattern, check=False)

    def move(self):
        kills_itself = self.cell.kills_itself
        env = self.hook("kill" if kills_itself else "hold")
        self.field.run("alpha", "sh", "-c", f"rm -rf {HOOKS}; mkdir -p {HOOKS}")
        self.restart_server({} if self.at_source() else env)
        self.start_move(env if self.at_source() else {})
        if not kills_itself:
            self.wait_point()
            self.strike()
        try:
            status = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed("phaul migrate does not end") from None
        if self.cell.victim == "source" or (self.cell.status is None and self.lives):
            check(status not in (0, 1, 2, 3, 4), f"phaul migrate ended with status {status} before it could be killed")
        elif self.lives is None:
            check(status in (MIGRATED, ABORTED, REFUSED), f"exit status {status} of phaul migrate ({self.errors()})")
            self.lives = "beta" if status == MIGRATED else "alpha"
        elif self.cell.status is not None:
            equal(status, self.cell.status, f"exit status of phaul migrate ({self.errors()})")

    def errors(self):
        return self.field.text(self.err).strip()[-1500:]

    def status(self, host):
        done = self.field.run(host, PHAUL, "status", "--json", check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def unfinished(self, host):
        return [one for one in self.status(host) if one["state"] not in ("settled", "running", "aborted")]

    def outcome(self):
        """In a word, for the table."""
        word = "moved" if self.lives == "beta" else "refused" if self.cell.status == REFUSED else "stayed"
        return f"{word}, {'held, ' if self.cell.held else ''}settled" if self.cell.settle else word

    # -- afterwards ------------------------------------------------------------------------------

    def check_held(self):
        """Nobody runs, and phaul status says so."""
        time.sleep(0.5)
        for state in self.states("alpha"):
            check(state == "T", f"a process at the source is in state {state} although it was handed over")
        source = self.unfinished("alpha")
        equal([(one["state"], one["driven"]) for one in source], [("committed", False)], "what phaul status says at the source")
        check(not self.ask_quickly("beta"), "the target's copy runs although nobody said so")

    def ask_quickly(self, host):
        return self.field.ask_workload(host, "127.0.0.1:7000", "stat", timeout_ms=300).startswith("{")

    def settle(self):
        one = self.status("alpha")[-1] if not self.unfinished("alpha") else self.unfinished("alpha")[-1]
        if self.cell.victim == "link":
            self.field.lab("join", "beta")
        done = self.field.run("alpha", PHAUL, "resume", one["id"], "-v", "--timeout", "2", "--reconnect-timeout", "10",
                              check=False)
        equal(done.returncode, 0, f"exit status of phaul resume ({done.stderr.strip()})")

    def check_end(self):
        other = "alpha" if self.lives == "beta" else "beta"
        wait_for(f"one copy, at {self.lives} (now {self.states('alpha')} and {self.states('beta')}; {self.errors()})",
                 lambda: self.states(other) == [] and len(self.states(self.lives)) > 0, timeout=10)
        answer = self.ask(self.lives, "verify")
        check(answer.startswith("ok ") and answer.endswith(" 0 errors"), f"the memtoucher's verdict: {answer!r}")
        # A neighbour that could not be found while the link was cut is asked for again after a second.
        wait_for(f"beats of {self.lives}",
                 lambda: self.observer.report()["workloads"][-1]["hosts"][-1]["host"] == self.lives, timeout=5)
        time.sleep(0.3)
        beats = self.observer.report()["workloads"][-1]
        equal(beats["overlap_ms"], 0, "time in which both hosts beat")
        equal(beats["hosts"][-1]["host"], self.lives, "the host that beat last")
        for host in ("alpha", "beta"):
            wait_for(f"finished journals on {host} ({self.unfinished(host)})", lambda host=host: not self.unfinished(host),
                     timeout=20)

    def clean_early(self):
        """What nobody can take back, as nobody knows of it yet: one empty directory, which phaul cleanup finds."""
        found = self.field.run("alpha", PHAUL, "cleanup").stdout
        check(re.fullmatch(r"(directory /run/phaul/[0-9a-f-]{36}\nphaul cleanup --yes removes it|nothing was left behind)\n", found),
              f"phaul cleanup found more than a work directory: {found!r}")
        self.field.run("alpha", PHAUL, "cleanup", "--yes")

    def check_nothing_left(self):
        if self.cell.leaves_directory:
            self.clean_early()
        for host in ("alpha", "beta"):
            wait_for(f"no criu on {host}", lambda host=host: not self.field.run(host, "pgrep", "-x", "criu",
                                                                               check=False).stdout)
            found = self.field.run(host, PHAUL, "cleanup", check=False)
            equal((found.returncode, found.stdout.strip()), (0, "nothing was left behind"), f"phaul cleanup on {host}")
            tables = self.field.run(host, "nft", "list", "tables", check=False).stdout.strip()
            equal(tables, "", f"nftables tables on {host}")
        wait_for("the pager's end", lambda: not self.field.run("beta", "pgrep", "-f", "exe pager|phaul pager",
                                                               check=False).stdout)

    def run(self):
        cell = self.cell
        try:
            self.start_workload()
            self.move()
            self.make_room()
            if cell.victim == "link" and not cell.settle:
                time.sleep(0.5)
                self.field.lab("join", "beta")
            if cell.held:
                self.check_held()
            if cell.settle:
                self.settle()
            self.check_end()
            self.check_nothing_left()
            beats = self.observer.report()["workloads"][-1]
            return self.outcome(), f"gap {beats['longest_gap_ms']:.0f} ms"
        finally:
            self.field.lab("join", "beta", check=False)
            self.make_room()
            self.end_workload()
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            # What a cell that failed left must not spoil the next one.
            for host in ("alpha", "beta"):
                for one in self.unfinished(host):
                    self.field.run(host, PHAUL, "resolve", one["id"], "--keep", "source", "--yes", check=False)


def run_cell(field, observer, cell, trial=Trial):
    try:
        return trial(field, observer, cell).run()
    except FieldError as error:
        raise Failed(str(error)) from None
