"""LXC containers that move: on a bridge which has the host's uplink in it, so that a container keeps its address and MAC wherever it is."""

from engines import Lxc
from field import PHAUL
from tap import equal

BRIDGE = "br0"
UPLINK = "eth0"
SPAN = ("set -e; a=$(ip -4 -o addr show dev {uplink} | awk '{{print $4}}'); a6=$(ip -6 -o addr show dev {uplink} scope global | "
        "awk '{{print $4}}'); ip link add {bridge} type bridge forward_delay 0 stp_state 0 mcast_snooping 0; "
        "ip link set {bridge} address $(cat /sys/class/net/{uplink}/address) up; ip addr flush dev {uplink}; "
        "ip link set {uplink} master {bridge}; ip addr add $a dev {bridge}; ip -6 addr add $a6 dev {bridge} nodad")


def span(field, host, bridge=BRIDGE):
    """The host's address goes to a bridge, its uplink into it."""
    field.run(host, "sh", "-c", SPAN.format(uplink=UPLINK, bridge=bridge))


class Containers(Lxc):
    """network: "bridge" (veth), "none". rootfs_type: "dir" or "overlay", whose lower layer is BASE on each host."""

    BASE = "/srv/local/lxc-base"
    VETH = """lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.hwaddr = 02:77:01:00:00:{last:02x}
lxc.net.0.ipv4.address = 10.77.0.{last}/24
"""
    TEXT = """# what the tests run
lxc.uts.name = {name}
lxc.rootfs.path = {rootfs}
{network}lxc.console.path = none
lxc.tty.max = 0
lxc.pty.max = 1
lxc.mount.auto = proc:mixed sys:ro
lxc.init.cmd = {command}
{more}"""

    def __init__(self, field, host, rootfs=None, rootfs_type="dir", network="bridge", bridge=BRIDGE, last=50, more=""):
        self.rootfs_type, self.bridge, self.last, self.more = rootfs_type, bridge, last, more
        super().__init__(field, host, rootfs, network)

    @property
    def address(self):
        return f"10.77.0.{self.last}"

    def directory(self, name):
        return f"{self.LXC_PATH}/{name}"

    def set_up(self):
        if self.rootfs_type == "overlay":
            self.unpack(self.BASE)

    def unpack(self, directory):
        self.run("mkdir", "-p", directory)
        self.feed(self.rootfs.tar, "tar", "-C", directory, "-xf", "-")

    def make_files(self, name, *argv):
        directory = self.directory(name)
        if self.rootfs_type == "overlay":
            rootfs = f"overlay:{self.BASE}:{directory}/delta"
            self.run("mkdir", "-p", f"{directory}/delta")
        else:
            rootfs = f"dir:{directory}/rootfs"
            self.unpack(f"{directory}/rootfs")
        network = "lxc.net.0.type = empty\n" if self.network == "none" else self.VETH.format(bridge=self.bridge, last=self.last)
        self.field.put(self.host, f"{directory}/config", self.TEXT.format(
            name=name, rootfs=rootfs, network=network, command=" ".join(argv), more=self.more), 0o644)

    def state(self, name, host=None):
        done = self.field.run(host or self.host, "lxc-info", "--name", name, "--state", "--no-humanize", check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def names_on(self, host):
        return self.field.run(host, "lxc-ls", "-1").stdout.split()

    def move(self, name, target, *options, expect=0, **kwargs):
        status, result, events, errors = self.field.migrate(self.host, target, "lxc", name, *options, **kwargs)
        equal(status, expect, f"exit status of phaul migrate ({errors.strip()})")
        if expect == 0:
            equal(result["outcome"], "migrated", "outcome")
            self.host = target
        return result, events, errors

    def plan(self, name, target, *options):
        """phaul check: its exit status and its words."""
        done = self.field.run(self.host, PHAUL, "check", "lxc", name, "--to", self.field.address(target), *options, check=False)
        return done.returncode, done.stdout + done.stderr

    def inside(self, name, *argv, **kwargs):
        return self.field.run(self.host, "lxc-attach", "--name", name, "--clear-env", "--set-var", "PATH=/bin", "--", *argv, **kwargs)

    def remove(self, name):
        """On every host, renamed copies too."""
        for host in self.field.hosts:
            for one in self.names_on(host):
                if one == name or one.startswith(f"{name}-moved-"):
                    self.field.run(host, "lxc-stop", "--name", one, "--kill", check=False)
                    self.field.run(host, "rm", "-rf", self.directory(one), check=False)
        self.names.discard(name)

