"""What is measured: cases by name. A case is one link and pairs of a workload and a subject, which take turns.

The order of the pairs turns with each run, so that no subject always comes after the same one.
"""

from dataclasses import dataclass

from peers.docker import Docker
from peers.iperf3 import Iperf3
from peers.pageserver import PageServer
from peers.phaul import Phaul
from peers.plaincopy import PlainCopy
from peers.podman import Podman
from peers.rsync import RsyncAndCriu
from peers.runc import RuncStopAndCopy
from workloads.files import Files
from workloads.haul import Haul
from workloads.memory import Memory
from workloads.processes import Processes
from workloads.redis import Redis

LINKS = ("bare", "1gbit")
phauls = []  # what makes a phaul


def phaul(kind, *options):
    """phaul with containers of that kind, as a subject to be made for a rig."""

    def make(rig):
        return Phaul(rig, kind, options)

    phauls.append(make)
    return make


@dataclass
class Case:
    name: str  # of --only, with @LINK
    links: tuple
    pairs: list  # (workload, subject's maker)
    bars: tuple = ()  # the links on which a bar needs it
    quick: tuple = ()  # the links on which make bench-quick measures it: phaul, and of its peers those that the bars compare it with
    quick_peers: tuple = ()

    def pairs_of(self, quick):
        return [pair for pair in self.pairs if not quick or pair[1] in (*self.quick_peers, *phauls)]


def each(workload, *subjects):
    return [(workload, subject) for subject in subjects]


CASES = [
    Case("haul", LINKS, each(Haul(), phaul("runc"), RuncStopAndCopy, PageServer)),
    Case("idle", LINKS, each(Memory("1G"), phaul("runc"), RuncStopAndCopy, PageServer, Iperf3, PlainCopy), bars=LINKS, quick=LINKS,
         quick_peers=(RuncStopAndCopy, Iperf3)),
    Case("freeze", ("bare",), each(Memory("256M"), phaul("runc"), phaul("pid"), RuncStopAndCopy) + each(Memory("4G"), phaul("runc"), phaul("pid")),
         bars=("bare",), quick=("bare",)),
    Case("idle-4G", LINKS, each(Memory("4G"), phaul("runc"), PageServer)),
    Case("zero", LINKS, each(Memory("1G", "zero"), phaul("runc"), RuncStopAndCopy), bars=("bare",)),
    Case("text", LINKS, each(Memory("1G", "text"), phaul("runc"), RuncStopAndCopy)),
    *(Case(f"rate-{percent}", links, each(Memory("1G", percent=percent), phaul("runc"), RuncStopAndCopy, PlainCopy),
           bars=("bare",) if percent == 10 else ())
      for percent, links in ((1, LINKS), (10, LINKS), (50, ("1gbit",)))),
    *(Case(f"rate-{percent}-4G", links, each(Memory("4G", percent=percent), phaul("runc"), PageServer))
      for percent, links in ((1, LINKS), (10, LINKS), (50, ("1gbit",)))),
    # More than two processors can copy beside it: without being held back it would rather not be moved.
    *(Case(f"rate-50{name}-throttled", ("bare",), each(Memory(size, percent=50), phaul("runc", "--auto-converge"), peer))
      for name, size, peer in (("", "1G", RuncStopAndCopy), ("-4G", "4G", PageServer))),
    Case("redis", LINKS, each(Redis(), phaul("runc"), RuncStopAndCopy, PlainCopy), bars=("bare",)),
    *(Case(f"processes-{count}", ("bare",), each(Processes(count), phaul("pid"), PageServer)) for count in (1, 16, 64)),
    # The same memory in one process, in many, and in one with a thousand threads: a page must not take longer.
    *(Case(f"many-{count}", ("bare",), each(Processes(count, 128), phaul("pid"), PageServer)) for count in (1, 16, 64)),
    Case("many-threads", ("bare",), each(Processes(1, 128, 1000), phaul("pid"))),
    Case("docker", LINKS, each(Memory("256M"), phaul("docker"), Docker), bars=("bare",), quick=("bare",), quick_peers=(Docker,)),
    Case("podman", LINKS, each(Memory("256M"), phaul("podman"), Podman)),
    Case("files", LINKS, each(Files(), phaul("pid"), RsyncAndCriu)),
]
