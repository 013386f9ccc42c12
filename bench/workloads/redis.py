"""Redis with 512 MiB under a mixed load, at an address that follows it.

The load is redis-benchmark, as fast as it gets answers: 4 connections that write and 4 that read, 1 KiB values, 20 000 keys. One more connection
reads and writes once a millisecond and notes its longest wait. What was filled in before is verified afterwards, key by key.
"""

import json
import os
import signal
import time

from field import WORKLOADS, FieldError, wait_for
from rig import HOSTS
from workloads.base import Workload

PORT = "6379"
WAITS_JSON = "/tmp/redis-waits.json"


class Redis(Workload):
    service = "10.77.0.100"

    def __init__(self, size="512M"):
        super().__init__(f"Redis {size}, mixed load", {"512M": 512 << 20}[size])
        self.size, self.clients = size, []

    def command(self, rig):
        rig.field.run("alpha", "ip", "address", "replace", f"{self.service}/24", "dev", "eth0")
        rig.field.run("observer", "ip", "neighbour", "flush", "dev", "eth0")  # the one before went to beta
        return ["heartbeat", *rig.beat_options(), "--", "redis-server", "--bind", self.service, "--port", PORT, "--save", "", "--appendonly", "no",
                "--daemonize", "no", "--protected-mode", "no", "--dir", "/tmp"]

    def _cli(self, rig, *words, check=True):
        return rig.field.run("observer", "redis-cli", "-h", self.service, "-p", PORT, *words, check=check).stdout

    def ready(self, rig):
        wait_for("Redis", lambda: self._cli(rig, "ping", check=False) == "PONG\n")
        filled = rig.field.run("observer", os.path.join(WORKLOADS, "redisload"), "fill", "--host", self.service, "--bytes", self.size)
        self.keys = json.loads(filled.stdout)["keys"]
        load = ["redis-benchmark", "-h", self.service, "-p", PORT, "-c", "4", "-d", "1024", "-r", "20000", "-n", "2000000000", "-q"]
        self.waits = rig.field.start("observer", os.path.join(WORKLOADS, "redisload"), "run", "--host", self.service, "--connections", "1",
                                     "--interval-ms", "1", "--keys", str(self.keys), "--json", WAITS_JSON)
        self.clients = [self.waits] + [rig.field.start("observer", *load, "-t", what) for what in ("set", "get")]
        time.sleep(2)  # until the hot keys are all there
        self.windows = 0
        self.window(rig)

    def window(self, rig):
        """What the one connection saw since the last call."""
        self.windows += 1
        self.waits.send_signal(signal.SIGUSR1)

        def snapshot():
            text = rig.field.run("observer", "cat", WAITS_JSON, check=False).stdout
            value = json.loads(text) if text.startswith("{") else {}
            return value if value.get("snapshot", 0) >= self.windows else None

        return wait_for("the connection's figures", snapshot)["window"]

    def work_of(self, rig):
        def commands():
            text = self._cli(rig, "info", "stats")
            return int(next(line for line in text.splitlines() if line.startswith("total_commands_processed:")).split(":")[1])

        return commands

    def verify(self, rig, host):
        self.seen = self.window(rig)
        if any(client.poll() is not None for client in self.clients):
            raise FieldError("Redis: a client lost its connection")
        done = rig.field.run("observer", os.path.join(WORKLOADS, "redisload"), "verify", "--host", self.service, "--keys", str(self.keys), check=False)
        if done.returncode:
            raise FieldError(f"Redis: {done.stdout.strip()} {done.stderr.strip()}")

    def more(self):
        """What its clients saw."""
        return {"client's longest wait": ("ms", self.seen["longest_wait_ms"]), "client errors": ("errors", self.seen["errors"])}

    def end(self, rig):
        for client in self.clients:
            client.terminate()
        for client in self.clients:
            client.wait(timeout=10)
        self.clients = []
        for host in HOSTS:
            rig.field.run(host, "ip", "address", "delete", f"{self.service}/24", "dev", "eth0", check=False)
