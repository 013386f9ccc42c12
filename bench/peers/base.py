"""What a subject of the benchmarks is: something that moves a workload from alpha to beta.

A peer says in two small shell scripts what is done at the source and what at the target. Both know the functions of SIDES: the copy
goes over one TCP connection without encryption, from file to socket in the kernel, between directories in memory; the target's
side waits for it before the source's side begins, so that no peer pays for being started by us.
"""

import os
import subprocess
import sys

from field import LAB, WORKLOADS, FieldError, wait_for
from rig import HOSTS, note

PYTHON = os.path.realpath("/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable)
COPY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "copy.py")
COPY_PORT = "7600"

SIDES = r"""
set -eu
stamp() { echo "stamp $1 $EPOCHREALTIME"; }
send() { "$PYTHON" -IS "$COPY" send "$1" "$TARGET" "$PORT"; }
receive() { "$PYTHON" -IS "$COPY" receive "$1" "$PORT"; }
# The address that clients use follows, and what arrives for it before the restore is not answered.
address_leaves() { [ -z "$SERVICE" ] || ip address delete "$SERVICE/24" dev eth0; }
address_arrives() {
	[ -n "$SERVICE" ] || return 0
	nft "table ip bench { chain in { type filter hook input priority -300; ip daddr $SERVICE drop; }; }"
	ip address add "$SERVICE/24" dev eth0
}
address_opens() {
	[ -n "$SERVICE" ] || return 0
	nft delete table ip bench
	arping -q -A -c 1 -I eth0 "$SERVICE" >/dev/null 2>&1 &
}
"""


class Subject:
    """Moves `workload`, which it starts anew for each sample."""

    name = None
    works_meanwhile = False  # the workload runs for most of what move() does: its throughput means something
    ends_at = "beta"

    def __init__(self, rig):
        self.rig, self.field = rig, rig.field

    def start(self, workload):
        """The workload runs at alpha afterwards."""
        raise NotImplementedError

    def prepare(self):
        """What does not count: it is done before the clock starts."""

    def move(self, workload):
        """What counts. Returns {metric: (unit, value)} of what else is to be noted."""
        raise NotImplementedError

    def end(self):
        """Removes the workload, and all that the move left, from both hosts."""
        raise NotImplementedError

    def sample(self, workload, figures):
        """One move, from the start of the workload to its end; noted unless figures is None (to warm up)."""
        try:
            self.start(workload)
            self.rig.await_beats()
            workload.ready(self.rig)
            self.prepare()
            seen = self.rig.measure(lambda: self.move(workload), workload.work_of(self.rig) if self.works_meanwhile else None)
            workload.verify(self.rig, self.ends_at)
            seen.more.update(workload.more())
        finally:
            workload.end(self.rig)
            self.end()
        if figures is not None:
            note(figures, self.rig, workload.name, self.name, seen)
        return seen


class TwoSides(Subject):
    """A peer that is two scripts. They stamp what they have done; the time from one stamp to the next is noted by its name."""

    ident = "bench"
    source = target = None

    def __init__(self, rig):
        super().__init__(rig)
        self.waiting = None

    def variables(self):
        """What the scripts know besides."""
        return {}

    def _environment(self):
        return {"PYTHON": PYTHON, "COPY": COPY, "PORT": COPY_PORT, "TARGET": self.rig.address("beta"), "SERVICE": self.service or "",
                "DIR": "/tmp/move", "ID": self.ident, **self.variables()}

    def _begin(self, host, script):
        environment = [f"{key}={value}" for key, value in self._environment().items()]
        return subprocess.Popen([LAB, "--name", self.field.name, "exec", host, "env", *environment, "bash", "-c", SIDES + script],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def start(self, workload):
        self.service = workload.service
        for host in HOSTS:
            self.field.run(host, "mkdir", "-p", "/tmp/move")
        self.house(workload)

    def house(self, workload):
        """Starts it at alpha, and puts at beta what the restore needs to find."""
        raise NotImplementedError

    def prepare(self):
        self.waiting = self._begin("beta", self.target)
        listens = [LAB, "--name", self.field.name, "exec", "beta", "sh", "-c", f"ss -Hltn sport = {COPY_PORT} | grep -q ."]
        wait_for("the target's side", lambda: self._alive() and subprocess.run(listens, check=False).returncode == 0)

    def _alive(self):
        if self.waiting.poll() is not None:
            raise FieldError(f"{self.name}, target: {self.waiting.communicate()[1].strip()}")
        return True

    def move(self, workload):
        source = self._begin("alpha", "stamp begin\n" + self.source)
        texts = []
        for where, process in (("source", source), ("target", self.waiting)):
            out, errors = process.communicate(timeout=300)
            if process.returncode:
                raise FieldError(f"{self.name}, {where}: status {process.returncode}: {errors.strip()[-1500:]}")
            texts.append(out)
        return self._phases("".join(texts))

    @staticmethod
    def _phases(text):
        stamps = [line.split() for line in text.splitlines() if line.startswith("stamp ")]
        stamps = sorted((float(when), name) for _, name, when in stamps)
        return {name: ("ms", (when - before) * 1000) for (before, _), (when, name) in zip(stamps, stamps[1:])}

    def end(self):
        if self.waiting and self.waiting.poll() is None:
            self.waiting.terminate()
            self.waiting.wait(timeout=20)
        self.waiting = None
        for host in HOSTS:
            self.unhouse(host)
            self.field.run(host, "rm", "-rf", "/tmp/move")
            self.field.run(host, "nft", "delete", "table", "ip", "bench", check=False)

    def unhouse(self, host):
        """Removes the workload from a host, if it is there."""
        raise NotImplementedError


class BareTree:
    """A workload as a plain process tree of the host, for subjects that take a pid.

    Always of the same pids, which nothing else has at either host, however many came before.
    """

    PIDS_AFTER = 20000

    def __init__(self, rig):
        self.rig, self.pid, self.program = rig, None, None

    def start(self, workload):
        command = workload.command(self.rig)
        own = os.path.join(WORKLOADS, command[0])
        self.program = os.path.basename(command[0])
        self.rig.field.run("alpha", "sh", "-c", f"echo {self.PIDS_AFTER} >/proc/sys/kernel/ns_last_pid")
        self.pid = self.rig.field.spawn("alpha", own if os.path.exists(own) else command[0], *command[1:], log="/srv/shared/workload.log")

    def end(self, host):
        """It leads a process group, and has the same pid wherever it is."""
        if self.pid:
            self.rig.field.run(host, "bash", "-c", '[ "$(cat /proc/$0/comm 2>/dev/null)" = "$1" ] && kill -9 -- -$0; '
                               "while kill -0 -- -$0 2>/dev/null; do sleep 0.05; done", str(self.pid), self.program[:15], check=False)
