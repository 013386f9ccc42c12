"""A test field: a lab with phaul's destination service on its hosts, workloads and observers.

Used by the demo, the integration tests and the benchmarks. Everything that is started is ended by Field.close(), also when
the user of it fails; a Field is a context manager.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAB = os.path.join(TOP, "tests/lab/lab")
BUILD = os.environ.get("PHAUL_BUILD", os.path.join(TOP, "build"))
PHAUL = os.path.join(BUILD, "src/cli/phaul")
WORKLOADS = os.path.join(BUILD, "tests/workload")


class FieldError(Exception):
    """Something that the test field itself could not do."""


def wait_for(what, condition, timeout=10.0, interval=0.02):
    """Polls condition() until it is true; FieldError with `what` when it does not become so in time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise FieldError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(interval)


class Field:
    """Lab `name` with `hosts`; phaul runs on each of `servers`."""

    def __init__(self, name, hosts=("alpha", "beta"), servers=("alpha", "beta"), rate=None):
        self.name, self.hosts, self.servers = name, tuple(hosts), tuple(servers)
        self.daemons = []  # (Popen, log path)
        self.logs = tempfile.mkdtemp(prefix=f"phaul-field-{name}-")
        self.lab("down")
        self.lab("up", *hosts, *(("--rate", rate) if rate else ()))
        self.serve = {}
        try:
            self._make_pki()
            for host in servers:
                self.start_server(host)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- the lab ---------------------------------------------------------------------------------

    def lab(self, *args, check=True, **kwargs):
        done = subprocess.run([LAB, "--name", self.name, *args], text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, **kwargs)
        if check and done.returncode:
            raise FieldError(f"lab {' '.join(args)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def run(self, host, *argv, check=True, timeout=60, env=None):
        """A command on a host, to its end: CompletedProcess with text."""
        done = subprocess.run([LAB, "--name", self.name, "exec", host, *argv], text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, env={**os.environ, **(env or {})})
        if check and done.returncode:
            raise FieldError(f"{host}: {' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
        return done

    def start(self, host, *argv, log=None, env=None, **kwargs):
        """A command on a host that goes on, in the foreground of `lab exec`; ended by close(). Not for what is migrated."""
        path = log or os.path.join(self.logs, f"{host}-{os.path.basename(argv[0])}-{len(self.daemons)}.log")
        with open(path, "ab") as out:
            process = subprocess.Popen([LAB, "--name", self.name, "exec", host, *argv], stdin=subprocess.DEVNULL,
                                       stdout=kwargs.pop("stdout", out), stderr=out, env={**os.environ, **(env or {})},
                                       start_new_session=True, **kwargs)
        self.daemons.append((process, path))
        return process

    def spawn(self, host, *argv, log="/tmp/workload.log", user=None, new_pidns=False):
        """A workload, as CRIU wants it; its pid as the host sees it."""
        options = ["--log", log] + (["--user", user] if user else []) + (["--new-pidns"] if new_pidns else [])
        return int(self.lab("spawn", host, *options, "--", *argv).strip())

    def put(self, host, path, content, mode=0o600):
        """A file on a host, with this text, nobody else's for a moment."""
        subprocess.run([LAB, "--name", self.name, "exec", host, "sh", "-c", 'umask 077; cat > "$0" && chmod "$1" "$0"', path,
                        f"{mode:o}"], input=content, text=True, check=True)

    def alive(self, host, pid):
        done = self.run(host, "cat", f"/proc/{pid}/stat", check=False)
        return done.returncode == 0 and done.stdout.rsplit(")", 1)[1].split()[0] != "Z"

    def address(self, host):
        return self.lab("addr", host).split()[0]

    def snapshot(self, host):
        return self.lab("snapshot", host)

    # -- phaul -----------------------------------------------------------------------------------

    def _make_pki(self):
        """One authority for the field; each host has its own certificate only."""
        pki = os.path.join(self.logs, "pki")
        subprocess.run([PHAUL, "pki", "init", "--directory", pki], check=True, capture_output=True, text=True)
        for host in self.hosts:
            subprocess.run([PHAUL, "pki", "issue", host, "--directory", pki], check=True, capture_output=True, text=True)
            files = {"ca.crt": "ca.crt", "host.crt": f"{host}.crt", "host.key": f"{host}.key"}
            self.run(host, "mkdir", "-p", "-m", "0700", "/etc/phaul/pki")
            for name, source in files.items():
                with open(os.path.join(pki, source), "rb") as content:
                    subprocess.run([LAB, "--name", self.name, "exec", host, "sh", "-c",
                                    f"umask 077; cat > /etc/phaul/pki/{name}"], stdin=content, check=True)
        self.pki = pki

    def start_server(self, host, *options, under=(), env=None):
        """`under`: the words of a program that runs it (setarch)."""
        log = os.path.join(self.logs, f"{host}-serve.log")
        start = os.path.getsize(log) if os.path.exists(log) else 0
        process = self.start(host, *under, PHAUL, "serve", "--listen", "[::]:7433", *(os.environ.get("PHAUL_SERVE_OPTIONS","-v").split()), *options, log=log, env=env)

        def listening():
            if process.poll() is not None:
                raise FieldError(f"phaul serve on {host} ended: {self.text(log)}")
            return "listening on port" in self.text(log)[start:]

        wait_for(f"phaul serve on {host}", listening)
        self.serve[host] = process
        return process

    def stop_server(self, host):
        process = self.serve.pop(host)
        process.terminate()
        process.wait(timeout=20)

    @staticmethod
    def text(path):
        with open(path, "r", errors="replace") as file:
            return file.read()

    def migrate(self, source, target, kind, ident, *options, check=False, timeout=300, env=None):
        """Runs phaul migrate; (exit status, result object or None, all events, stderr)."""
        done = self.run(source, PHAUL, "migrate", kind, str(ident), "--to", self.address(target), "--json", *options,
                        check=False, timeout=timeout, env=env)
        events = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        result = events[-1] if events and events[-1].get("event") == "result" else None
        if check and done.returncode:
            raise FieldError(f"phaul migrate {kind} {ident}: status {done.returncode}: {done.stderr.strip()}")
        return done.returncode, result, events, done.stderr

    # -- observers ---------------------------------------------------------------------------------

    def observer(self, host, port, *options):
        control = f"/run/observer-{port}.sock"
        process = self.start(host, os.path.join(WORKLOADS, "observer"), "--listen", f"0.0.0.0:{port}", "--control",
                             control, *options)
        observer = Observer(self, host, control, process)
        wait_for("the observer", lambda: observer.ask("report", check=False))
        return observer

    def ask_workload(self, host, address, what, timeout_ms=None):
        """verify, stat or quit to a memtoucher's command port. A question is one datagram, which a switch may send where the workload was before:
        stat, which costs nothing, has a second, and whoever waits for the workload asks again."""
        timeout_ms = timeout_ms or (1000 if what == "stat" else 60000)
        return self.run(host, os.path.join(WORKLOADS, "ask"), "--timeout-ms", str(timeout_ms), f"udp:{address}", what,
                        check=False, timeout=timeout_ms / 1000 + 10).stdout.strip()

    # -- the end -----------------------------------------------------------------------------------

    def close(self):
        for process, _ in reversed(self.daemons):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process, _ in reversed(self.daemons):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons = []
        self.lab("down", check=False)
        if not os.environ.get("PHAUL_KEEP_LOGS"):
            shutil.rmtree(self.logs, ignore_errors=True)


class Observer:
    """The control end of a running observer."""

    def __init__(self, field, host, control, process):
        self.field, self.host, self.control, self.process = field, host, control, process

    def ask(self, *words, check=True):
        done = self.field.run(self.host, os.path.join(WORKLOADS, "ask"), f"unix:{self.control}", *words,
                              check=False)
        if done.returncode:
            if check:
                raise FieldError(f"observer: {done.stderr.strip()}")
            return None
        text = done.stdout.strip()
        return json.loads(text) if text.startswith("{") else text

    def mark(self, name):
        return self.ask("mark", name)

    def report(self):
        return self.ask("report")


def pids_of(text):
    """All decimal numbers of a text."""
    return [int(number) for number in re.findall(r"\d+", text)]
