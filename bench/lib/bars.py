"""The bars: what the figures must reach, computed from their medians. A bar whose figures are missing does not hold."""

from dataclasses import dataclass
from typing import Callable

BARE, GBIT = "bare veth", "1 Gbit/s"
IDLE_256M, IDLE_1G, IDLE_4G = ("256M random, idle", "1G random, idle", "4G random, idle")
ZERO_1G, TENTH, REDIS = "1G zero, idle", "1G random, 10 % of the link rewritten", "Redis 512M, mixed load"
GIB_MIB, SLOPE_GIB = 1024, 3.75  # SLOPE_GIB: between 256 MiB and 4 GiB


@dataclass
class Bar:
    name: str
    value: Callable  # of Ask; None where something was not measured
    bar: float
    at_least: bool = False
    digits: int = 3

    def judge(self, ask):
        about = {"name": self.name, "bar": self.bar, "at_least": self.at_least}
        try:
            value = self.value(ask)
        except Missing as missing:
            return {**about, "value": None, "holds": False, "missing": str(missing)}
        return {**about, "value": round(value, self.digits), "holds": value >= self.bar if self.at_least else value <= self.bar}


class Missing(Exception):
    """A figure that a bar needs was not measured."""


class Ask:
    """Medians, of phaul by the kind of container that was meant; where that ran as a bare tree, of this."""

    def __init__(self, figures):
        self.figures = figures

    def peer(self, workload, subject, link, metric):
        value = self.figures.median(workload, subject, link, metric)
        if value is None:
            raise Missing(f"{metric} of {subject}: {workload}, {link}")
        return value

    def phaul(self, workload, kind, link, metric):
        for subject in (f"phaul {kind}", "phaul pid"):
            value = self.figures.median(workload, subject, link, metric)
            if value is not None:
                return value
        raise Missing(f"{metric} of phaul: {workload}, {link}")

    def ratio(self, workload, kind, peer, link, metric="downtime"):
        return self.phaul(workload, kind, link, metric) / self.peer(workload, peer, link, metric)

    def slope(self, metric):
        return (self.phaul(IDLE_4G, "runc", BARE, metric) - self.phaul(IDLE_256M, "runc", BARE, metric)) / SLOPE_GIB


BARS = [
    Bar("downtime, 1 GiB runc container, idle, bare link: of stop-and-copy's",
        lambda ask: ask.ratio(IDLE_1G, "runc", "runc stop-and-copy", BARE), 0.1),
    Bar("downtime, 1 GiB runc container, idle, 1 Gbit/s: of stop-and-copy's",
        lambda ask: ask.ratio(IDLE_1G, "runc", "runc stop-and-copy", GBIT), 0.02, digits=4),
    Bar("downtime, Docker 256 MiB, bare link: of Docker's own checkpoint and start",
        lambda ask: ask.ratio(IDLE_256M, "docker", "docker checkpoint", BARE), 0.05, digits=4),
    Bar("freeze against memory, 256 MiB to 4 GiB, idle: ms per GiB, as seen from outside", lambda ask: ask.slope("downtime"), 20, digits=2),
    Bar("bulk copy at 1 Gbit/s: of iperf3's speed", lambda ask: ask.ratio(IDLE_1G, "runc", "iperf3", GBIT, "bulk speed"), 0.95, True),
    Bar("bulk copy on the bare link, TLS: of iperf3's speed", lambda ask: ask.ratio(IDLE_1G, "runc", "iperf3", BARE, "bulk speed"), 0.6, True),
    Bar("bytes on the wire, random content, idle: of the resident bytes", lambda ask: ask.phaul(IDLE_1G, "runc", BARE, "wire") / GIB_MIB, 1.02),
    Bar("bytes on the wire, zero pages: of their size", lambda ask: ask.phaul(ZERO_1G, "runc", BARE, "wire") / GIB_MIB, 0.01, digits=5),
    Bar("throughput while copying, Redis, bare link: %", lambda ask: ask.phaul(REDIS, "runc", BARE, "throughput"), 90, True, 1),
    Bar("throughput while copying, 1 GiB rewritten at 10 % of the bare link: %",
        lambda ask: ask.phaul(TENTH, "runc", BARE, "throughput"), 90, True, 1),
    Bar("peak memory at the target: of the workload's", lambda ask: ask.phaul(IDLE_1G, "runc", BARE, "peak target") / GIB_MIB, 1.15),
    Bar("downtime, 4 GiB process tree, idle, bare link: ms", lambda ask: ask.phaul(IDLE_4G, "pid", BARE, "downtime"), 150, digits=1),
    Bar("downtime, Redis 512 MiB, mixed load, bare link: ms", lambda ask: ask.phaul(REDIS, "runc", BARE, "downtime"), 120, digits=1),
]


def judge(figures):
    ask = Ask(figures)
    return [bar.judge(ask) for bar in BARS]


def measured(bars):
    """Those that could be judged at all."""
    return [bar for bar in bars if "missing" not in bar]


def show(bars):
    for bar in bars:
        sign = "ok      " if bar["holds"] else "FAILS   " if "missing" not in bar else "missing "
        value = f"{bar['value']:g}" if bar["value"] is not None else f"not measured: {bar['missing']}"
        print(f"{sign} {bar['name']}: {value}, bar {bar['bar']:g}")
