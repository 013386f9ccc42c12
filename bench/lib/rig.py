"""The rig: two hosts to move between, a third one that watches, and what is read from outside while something moves.

Downtime is what the watcher on the third host sees: the longest time without a beat of the workload, which beats every millisecond.
The link's counters, the processor time and the memory of both hosts are read from the machine, not by anything in the hosts.
"""

import contextlib
import os
import re
import threading
import time
from dataclasses import dataclass, field as member

from engines import make_engine
from field import LAB, Field, FieldError, wait_for
from figures import Figures

HOSTS = ("alpha", "beta")
LAB_DIRECTORY = os.environ.get("PHAUL_LAB_DIR", "/var/tmp/phaul-lab")
OBSERVER_PORT = 9000
MEMORY_EVERY_S = 0.02
USUAL_S = 3.0
LINKS = {"bare": ("bare veth", None), "1gbit": ("1 Gbit/s", "1gbit")}


@dataclass
class Counters:
    """What has been used until now: bytes on the source's link, processor seconds of each host and of the whole machine."""

    wire: int
    cpu: dict
    busy: float


@dataclass
class Seen:
    """What was seen of one move."""

    downtime_ms: float
    total_ms: float
    wire_bytes: int
    cpu_s: dict
    peak_bytes: dict
    others: float  # of the machine's processors, taken by what is in none of the hosts
    throughput: float | None
    more: dict = member(default_factory=dict)


def busy_seconds():
    """Of all processors together, since the machine started."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(number) for number in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Groups:
    """The control groups of a lab host, from the machine's side; both versions."""

    def __init__(self, lab, host):
        with open(os.path.join(LAB_DIRECTORY, lab, "cgroups"), encoding="ascii") as file:
            self.paths = [line.strip() for line in file if line.rstrip().endswith(f"phaul-lab.{lab}.{host}")]

    def _read(self, name):
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError), open(os.path.join(path, name), encoding="ascii") as file:
                return file.read()
        return None

    def cpu_seconds(self):
        usage = self._read("cpuacct.usage")
        if usage:
            return int(usage) / 1e9
        found = re.search(r"usage_usec (\d+)", self._read("cpu.stat") or "")
        return int(found[1]) / 1e6 if found else 0.0

    def memory_bytes(self):
        """Memory of processes, and files that live in memory. Not the page cache, which the kernel takes back when it likes."""
        stat = self._read("memory.stat") or ""
        first = re.search(r"^(?:total_rss|anon) (\d+)", stat, re.MULTILINE)
        second = re.search(r"^(?:total_shmem|shmem) (\d+)", stat, re.MULTILINE)
        return sum(int(found[1]) for found in (first, second) if found)


class MemoryWatch:
    """The most that each host had at a time, above what it had when the watch began."""

    def __init__(self, groups):
        self.groups, self.stop = groups, threading.Event()
        self.before = {host: group.memory_bytes() for host, group in groups.items()}
        self.most = dict(self.before)
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        while not self.stop.wait(MEMORY_EVERY_S):
            for host, group in self.groups.items():
                self.most[host] = max(self.most[host], group.memory_bytes())

    def end(self):
        self.stop.set()
        self.thread.join()
        return {host: self.most[host] - self.before[host] for host in self.groups}


class Rig:
    """A field with engines on demand, and the measuring of one move."""

    def __init__(self, name, link):
        self.link, rate = LINKS[link]
        self.field = Field(name, hosts=(*HOSTS, "observer"), rate=rate)
        self.engines = {}
        self.beat_number = 0
        try:
            self.observer = self.field.observer("observer", OBSERVER_PORT)
            self.groups = {host: Groups(name, host) for host in (*HOSTS, "observer")}
            self.init = {host: int(self.field.lab("pid", host)) for host in HOSTS}
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for engine in self.engines.values():
            engine.close()
        self.field.close()

    def engine(self, kind, host):
        if (kind, host) not in self.engines:
            self.engines[kind, host] = make_engine(kind, self.field, host)
        return self.engines[kind, host]

    def address(self, host):
        return self.field.address(host)

    # -- the beats ---------------------------------------------------------------------------------

    def beat_options(self):
        """Options for a workload that is about to be started: the next one's beats have the next number."""
        self.beat_number += 1
        return ["--observer", f"{self.address('observer')}:{OBSERVER_PORT}", "--id", str(self.beat_number)]

    def beats(self):
        """What was seen of the beats since the last mark; None as long as there were none."""
        return next((one for one in self.observer.report()["workloads"] if one["workload"] == self.beat_number), None)

    def await_beats(self, timeout=120):
        """Until it beats, and goes on to."""
        def beating():
            seen = self.beats()
            return seen and seen["beats"] > 50 and seen["silent_ms"] < 50

        self.observer.mark("start")
        wait_for("the workload's beats", beating, timeout=timeout, interval=0.1)

    # -- one move ------------------------------------------------------------------------------------

    def counters(self):
        with open(f"/proc/{self.init['alpha']}/net/dev", encoding="ascii") as file:
            fields = next(line for line in file if line.strip().startswith("eth0:")).split(":", 1)[1].split()
        return Counters(int(fields[0]) + int(fields[8]), {host: group.cpu_seconds() for host, group in self.groups.items()}, busy_seconds())

    def rate_of(self, work, seconds=USUAL_S):
        """Units of work per second of the workload as it is."""
        before, began = work(), time.monotonic()
        time.sleep(seconds)
        return (work() - before) / (time.monotonic() - began)

    def measure(self, move, work=None):
        """Runs move(), which returns a dict of what else is to be noted, and sees what it costs.

        `work` counts what the workload has done. Throughput is what it did per second from the beginning of the move to its end,
        the downtime left out, of what it did per second before. Both are seen under the same watch, which takes some of the processors.
        """
        watch = MemoryWatch({host: self.groups[host] for host in HOSTS})
        usual = self.rate_of(work) if work else None
        self.observer.mark("move")
        done, before, began = work() if work else 0, self.counters(), time.monotonic()
        try:
            more = move()
        finally:
            total_ms, peak = (time.monotonic() - began) * 1000, watch.end()
        wait_for("a beat after the move", lambda: (self.beats() or {"silent_ms": 1e9})["silent_ms"] < 100)
        after, downtime_ms = self.counters(), self.beats()["longest_gap_ms"]
        elapsed_ms, throughput = (time.monotonic() - began) * 1000, None
        cpu = {host: after.cpu[host] - before.cpu[host] for host in self.groups}
        others = max(0.0, after.busy - before.busy - sum(cpu.values())) / (elapsed_ms / 1000 * os.cpu_count())
        if usual:
            throughput = (work() - done) / ((elapsed_ms - downtime_ms) / 1000) / usual
        return Seen(downtime_ms, total_ms, after.wire - before.wire, cpu, peak, others, throughput, more)


def note(figures: Figures, rig, workload, subject, seen):
    """Everything that was seen of one move, as samples."""
    add = lambda metric, unit, value: figures.add(workload, subject, rig.link, metric, unit, value)  # noqa: E731
    add("downtime", "ms", seen.downtime_ms)
    add("total", "ms", seen.total_ms)
    add("wire", "MiB", seen.wire_bytes / 2**20)
    add("cpu source", "s", seen.cpu_s["alpha"])
    add("cpu target", "s", seen.cpu_s["beta"])
    add("peak source", "MiB", seen.peak_bytes["alpha"] / 2**20)
    add("peak target", "MiB", seen.peak_bytes["beta"] / 2**20)
    add("others", "%", 100 * seen.others)
    if seen.throughput is not None:
        add("throughput", "%", 100 * seen.throughput)
    for metric, (unit, value) in seen.more.items():
        add(metric, unit, value)


__all__ = ["HOSTS", "LAB", "LINKS", "FieldError", "Rig", "Seen", "note"]
