"""What the services have in common: a root file system, the command that is a container's first process, and clients on a third host."""

import json
import os
import signal
import sys
import time

from dockers import ADDRESS
from field import wait_for
from rootfs import Rootfs
from tap import check, equal

OBSERVER = "observer"
CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.py")
PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
# Debian's own: what is on PATH may be a script of another one's making.
PYTHON = next((path for path in ("/usr/bin/python3",) if os.path.exists(path)), sys.executable)
START_S = 60


class Service:
    """One that runs at ADDRESS:port. `name` is what the table calls it."""

    name, port = None, None
    programs, trees = (), ()
    first = ()  # words of the container's first process
    load_json = "/srv/shared/services-load.json"

    def __init__(self, field):
        self.field, self.windows, self.load = field, 0, None

    def files(self):
        """(name, content) of what the root file system has besides programs and trees."""
        return ()

    def rootfs(self):
        return Rootfs(self.field.logs, programs=self.programs, files=self.files(), trees=self.trees)

    def answers(self):
        probe = f"import socket; socket.create_connection(('{ADDRESS}', {self.port}), timeout=1)"
        return self.field.run(OBSERVER, PYTHON, "-c", probe, check=False).returncode == 0

    def begin(self):
        """The container has been started: clients come."""
        wait_for(self.name, self.answers, timeout=START_S, interval=0.2)
        self.load = self.field.start(OBSERVER, *self.client())
        time.sleep(1)
        self.mark()

    def client(self):
        """The words of one that writes a window into load_json at each SIGUSR1."""
        raise NotImplementedError

    def mark(self):
        """What the clients see counts from here on."""
        self.window()

    def window(self):
        """What the clients saw since the last call."""
        self.windows += 1

        def snapshot():
            check(self.load.poll() is None, f"the clients ended: {self.said()}")
            text = self.field.run(OBSERVER, "cat", self.load_json, check=False).stdout
            value = json.loads(text) if text.startswith("{") else {}
            return value["window"] if value.get("snapshot", 0) >= self.windows else None

        time.sleep(0.3)  # of calm after the move, for waits that have not ended yet
        self.load.send_signal(signal.SIGUSR1)
        return wait_for("the clients' figures", snapshot)

    def said(self):
        return self.field.text(next(path for process, path in self.field.daemons if process is self.load))[-500:]

    def seen(self, where):
        """The longest wait of the clients since mark(); nothing went wrong."""
        seen = self.window()
        equal((seen["errors"], seen["reconnects"]), (0, 0), f"errors and reconnects of the clients {where} ({seen.get('first_error', '')})")
        check(seen["ops"] > 0, f"the clients did nothing {where}")
        return seen["longest_wait_ms"]

    def finish(self):
        """The clients end; all that they know of the data is so."""
        self.load.send_signal(signal.SIGTERM)
        self.load.wait(timeout=60)
        equal(self.load.returncode, 0, f"exit status of the clients ({self.said()})")
