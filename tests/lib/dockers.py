"""Docker on two hosts of a test field: their daemons, a network that both have, containers that are moved between them."""

import json
import os

from engines import IMAGE, Docker
from field import PHAUL, wait_for
from tap import check, equal

HOSTS = ("alpha", "beta")
NETWORK = "lan"
BRIDGE = "lan0"
ADDRESS = "10.77.0.50"
OTHER = {"alpha": "beta", "beta": "alpha"}


class Pair:
    """The daemons of both hosts, and a network that both have: a bridge with the host's uplink as a port."""

    def __init__(self, field, rootfs=None):
        self.field = field
        self.engines = {host: Docker(field, host, rootfs=rootfs) for host in HOSTS}
        for host in HOSTS:
            address = field.address(host)
            self.docker(host, "network", "create", "--driver", "bridge", "--subnet", "10.77.0.0/24", "--gateway", address,
                        "--opt", f"com.docker.network.bridge.name={BRIDGE}", NETWORK)
            field.run(host, "ip", "address", "del", f"{address}/24", "dev", "eth0")
            field.run(host, "ip", "link", "set", "eth0", "master", BRIDGE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for engine in self.engines.values():
            engine.close()

    def docker(self, host, *argv, **kwargs):
        return self.engines[host].docker(*argv, **kwargs)

    def inspect(self, host, name):
        done = self.docker(host, "inspect", "--type", "container", name, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def names(self, host):
        return sorted(self.docker(host, "ps", "--all", "--format", "{{.Names}}").stdout.split())

    def wipe(self):
        """No container, volume or stray file of a test may be in the next one's way."""
        for host in HOSTS:
            ids = self.docker(host, "ps", "--all", "--quiet").stdout.split()
            if ids:
                self.docker(host, "rm", "--force", "--volumes", *ids, check=False)
            self.docker(host, "volume", "prune", "--force", check=False)


class Container:
    """A container that runs on one of the hosts."""

    kind = "docker"

    def __init__(self, pair, name, options, command, host="alpha", image=IMAGE):
        self.pair, self.field, self.name, self.host = pair, pair.field, name, host
        pair.docker(host, "run", "--detach", "--name", name, *options, image, *command)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pair.wipe()

    def docker(self, *argv, **kwargs):
        return self.pair.docker(self.host, *argv, **kwargs)

    def migrate(self, *options, **kwargs):
        return self.pair.field.migrate(self.host, OTHER[self.host], "docker", self.name, *options, **kwargs)

    def move(self, *options, **kwargs):
        status, result, _, errors = self.migrate(*options, **kwargs)
        equal((status, result and result["outcome"]), (0, "migrated"), f"the move ({errors.strip()[-600:]})")
        self.host = OTHER[self.host]
        return result

    def everything(self):
        """What the daemons know, as far as they run, and the container."""
        return {host: [self.pair.docker(host, *words, check=False).stdout for words in (
            ("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"), ("images", "--no-trunc", "--quiet"),
            ("volume", "ls", "--quiet"), ("network", "ls", "--no-trunc", "--quiet"))] for host in HOSTS} | {part: self.inspect()[part] for part in ("Name", "State", "HostConfig", "NetworkSettings")}

    def refused(self, sentence, *options):
        before = self.everything()
        status, result, events, errors = self.migrate(*options)
        equal(status, 3, f"exit status of a move that is to be refused with '{sentence}' ({errors.strip()[-600:]})")
        found = [event["what"] for event in events if event["event"] == "obstacle"] or [errors, str(result)]
        check(any(sentence in text for text in found), f"no obstacle says '{sentence}': {found}")
        check(self.inspect()["State"]["Running"], "the container does not run any more")
        after = self.everything()
        for part, value in before.items():
            equal(after[part], value, f"{part} after the refusal '{sentence}'")

    def inspect(self):
        return self.pair.inspect(self.host, self.name)

    def ask(self, what, port=7000):
        return self.docker("exec", self.name, "ask", "--timeout-ms", "60000", f"udp:127.0.0.1:{port}", what, check=False).stdout.strip()

    def verify(self):
        answer = self.ask("verify")
        check(answer.startswith("ok ") and answer.endswith(" 0 errors"), f"the memtoucher's verdict: {answer!r}")


def memtoucher(pair, *options, size="32M", network=("--network", "host"), name="c1", rate="5", image=IMAGE):
    container = Container(pair, name, (*network, *options), (
        "memtoucher", "--size", size, "--rate", rate, "--command-port", "7000", "--observer", f"{pair.field.address('observer')}:9000"), image=image)
    wait_for("the memtoucher's answer", lambda: container.ask("stat").startswith("{"), timeout=60)
    return container


class Held:
    """A move that is stopped at a named point (src/migration/hook.h) while something happens to it. `container` has field, host, kind, name."""

    def __init__(self, container, point, *options):
        self.container, self.point, field = container, point, container.field
        self.at = container.host if point.startswith("source") else OTHER[container.host]
        env = {"PHAUL_HOOK": f"{point}=hold", "PHAUL_HOOK_DIRECTORY": "/run"}
        field.run(self.at, "rm", "-f", f"/run/{point}.go", f"/run/{point}.reached")
        if self.at != container.host:
            field.stop_server(self.at)
            field.start_server(self.at, env=env)
        self.log = os.path.join(field.logs, "held.json")
        with open(self.log, "w", encoding="utf-8") as out:
            self.process = field.start(container.host, PHAUL, "migrate", container.kind, container.name, "--to",
                                       field.address(OTHER[container.host]), "--json", *options, stdout=out, env=env if self.at == container.host else None)
        wait_for(f"{point}", lambda: field.run(self.at, "test", "-e", f"/run/{point}.reached", check=False).returncode == 0, timeout=30)

    def finish(self):
        """Exit status and outcome."""
        field = self.container.field
        field.run(self.at, "touch", f"/run/{self.point}.go")
        self.process.wait(timeout=120)
        lines = field.text(self.log).splitlines()
        result = json.loads(lines[-1]) if lines else {}
        if self.at != self.container.host:
            field.stop_server(self.at)
            field.start_server(self.at)
        return self.process.returncode, result.get("outcome"), result.get("reason")
