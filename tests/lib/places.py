"""Where a container lives that moves with an address of its own: each engine on two hosts, on a bridge which has the host's uplink in it.

    place = make_place("podman", field, rootfs)
    place.start("redis-server", "--port", "6379")   # NAME, at ADDRESS, on alpha
    place.move("beta", "--source", "remove")        # phaul's result

Clients on a third host keep their connections, for address and MAC are the container's wherever it is.
"""

import json

import lxclab
from dockers import ADDRESS, NETWORK, Pair
from engines import IMAGE, Podman, Runc
from tap import equal

NAME = "c1"
MAC = "02:77:01:00:00:32"
HOSTS = ("alpha", "beta")
BRIDGE = "lan0"
# The lab's hosts have Debian's (tests/lab/lib/net.sh), the machine may have another, and that is what a new network namespace has.
CONGESTION = ("net.ipv4.tcp_congestion_control", "cubic")


class Place:
    """What all of them share. `kind` is phaul's TYPE, `engines` one for each host."""

    kind = None

    def __init__(self, field, rootfs):
        self.field, self.rootfs, self.host, self.engines = field, rootfs, HOSTS[0], {}
        try:
            self.set_up()
        except BaseException:
            self.close()
            raise

    def migrate(self, target, *options, **kwargs):
        return self.field.migrate(self.host, target, self.kind, NAME, *options, **kwargs)

    def move(self, target, *options):
        status, result, _, errors = self.migrate(target, *options)
        equal((status, result and result["outcome"]), (0, "migrated"), f"the move to {target} ({errors.strip()[-800:]})")
        self.host = target
        return result

    def running(self, host):
        return self.engines[host].running(NAME)

    def close(self):
        for engine in self.engines.values():
            engine.close()


class RuncPlace(Place):
    """A network namespace with a name on each host; beta's cable is pulled."""

    kind = "runc"

    def set_up(self):
        for host in HOSTS:
            lxclab.span(self.field, host, BRIDGE)
            for command in ("ip netns add c1", "ip link add c1-0 type veth peer name eth0 netns c1", f"ip link set c1-0 master {BRIDGE}",
                            "ip -n c1 link set lo up", f"ip -n c1 link set eth0 address {MAC} up",
                            f"ip -n c1 address add {ADDRESS}/24 dev eth0", f"ip netns exec c1 sysctl -qw {'='.join(CONGESTION)}"):
                self.field.run(host, *command.split())
            self.engines[host] = NamedNetwork(self.field, host, self.rootfs)

    def start(self, *argv):
        self.field.run("alpha", "ip", "link", "set", "c1-0", "up")
        self.engines["alpha"].start(NAME, *argv)
        self.engines["beta"].names.add(NAME)


class NamedNetwork(Runc):
    """Containers in the namespace /run/netns/NAME."""

    def config(self, name, argv):
        config = super().config(name, argv)
        config["linux"]["namespaces"].append({"type": "network", "path": f"/run/netns/{name}"})
        return config


class DockerPlace(Place):
    """Containers on a network that both daemons have."""

    kind = "docker"

    def set_up(self):
        self.pair = Pair(self.field, self.rootfs)
        self.engines = self.pair.engines

    def start(self, *argv):
        self.pair.docker("alpha", "run", "--detach", "--name", NAME, "--network", NETWORK, "--ip", ADDRESS,
                         "--sysctl", "=".join(CONGESTION), IMAGE, *argv)

    def close(self):
        if self.engines:
            self.pair.wipe()
        super().close()


class PodmanPlace(Place):
    """Containers on a network of podman's that both hosts have, with the address and MAC that their command line says."""

    kind = "podman"

    def set_up(self):
        for host in HOSTS:
            engine = self.engines[host] = Podman(self.field, host, self.rootfs, network="bridge")
            address = self.field.address(host)
            # It makes no network that the host is in already.
            self.field.run(host, "ip", "address", "del", f"{address}/24", "dev", "eth0")
            engine.podman("network", "create", "--driver", "bridge", "--subnet", "10.77.0.0/24", "--gateway", address, "lan")
            self.field.run(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            network = json.loads(engine.podman("network", "inspect", "lan").stdout)[0]
            lxclab.span(self.field, host, network["network_interface"])  # podman takes a bridge that is there

    def start(self, *argv):
        self.engines["alpha"].podman("run", "--detach", "--name", NAME, "--network", "lan", "--ip", ADDRESS, "--mac-address", MAC,
                                     "--sysctl", "=".join(CONGESTION), f"localhost/{IMAGE}", *argv)
        for engine in self.engines.values():
            engine.names.add(NAME)


# What other engines give each container, or are told on the command line.
MORE = f"lxc.mount.entry = tmpfs dev/shm tmpfs rw,nosuid,nodev,mode=1777,create=dir 0 0\nlxc.sysctl.{' = '.join(CONGESTION)}\n"


class LxcPlace(Place):
    """Containers with a veth on a bridge."""

    kind = "lxc"

    def set_up(self):
        for host in HOSTS:
            lxclab.span(self.field, host)
            self.engines[host] = lxclab.Containers(self.field, host, self.rootfs, more=MORE)
        equal(self.engines["alpha"].address, ADDRESS, "the container's address")

    def start(self, *argv):
        self.engines["alpha"].start(NAME, *(f"'{word}'" if not word or " " in word else word for word in argv))
        self.engines["beta"].names.add(NAME)


PLACES = {place.kind: place for place in (RuncPlace, DockerPlace, PodmanPlace, LxcPlace)}


def make_place(kind, field, rootfs):
    return PLACES[kind](field, rootfs)
