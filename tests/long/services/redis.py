"""Redis with 64 MiB, and clients that read and write all the while."""

import json
import os

from dockers import ADDRESS
from field import WORKLOADS
from services.service import OBSERVER, Service
from tap import equal

REDISLOAD = os.path.join(WORKLOADS, "redisload")


class Redis(Service):
    name, port = "redis", 6379
    first = ("redis-server", "--port", "6379", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no")

    def begin(self):
        self.keys = None
        super().begin()

    def client(self):
        done = self.field.run(OBSERVER, REDISLOAD, "fill", "--host", ADDRESS, "--bytes", "64M", timeout=120)
        self.keys = json.loads(done.stdout)["keys"]
        return (REDISLOAD, "run", "--host", ADDRESS, "--connections", "4", "--keys", str(self.keys), "--json", self.load_json)

    def finish(self):
        super().finish()
        done = self.field.run(OBSERVER, REDISLOAD, "verify", "--host", ADDRESS, "--keys", str(self.keys), check=False, timeout=120)
        equal((done.returncode, json.loads(done.stdout)["keys_verified"]), (0, self.keys), "keys")
