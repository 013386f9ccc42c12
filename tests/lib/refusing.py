"""Containers that phaul must refuse to move: each engine's, made as it should not be, and what must be true of every refusal.

A Bed is one engine on both hosts. `with bed.container(...)` runs one container on the source; refused() asks for it to be moved, by `phaul check`
and by `phaul migrate`: the exit status, one sentence, the same process as before, and on both hosts nothing that was not there.
"""

import contextlib
import os

import lxclab
from engines import IMAGE, Docker, Podman, Runc
from field import PHAUL, wait_for
from leftovers import same_again, settled
from tap import check, equal

SOURCE, TARGET = HOSTS = ("alpha", "beta")
NAME = "c1"
COMMAND = ("sleep", "1000")
# Takes the terminal's other end from a runtime, as an engine above it does, and keeps it.
CONSOLE = """
import array, os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
c = s.accept()[0]
fds = array.array("i")
for level, kind, data in c.recvmsg(4096, socket.CMSG_SPACE(4))[1]:
    fds.frombytes(data[:4])
time.sleep(1000)
"""


@contextlib.contextmanager
def served(field, under=(), env=None):
    """The target's phaul serve, under another program or in another environment for a while."""
    field.stop_server(TARGET)
    field.start_server(TARGET, under=under, env=env)
    try:
        yield
    finally:
        field.stop_server(TARGET)
        field.start_server(TARGET)


def path_without(field, *programs):
    """A PATH for the target with everything but these programs."""
    directory = "/srv/local/without-" + "-".join(programs)
    places = os.environ["PATH"].split(":")
    field.run(TARGET, "sh", "-c", 'd=$0; mkdir -p "$d"; for p; do ln -sf "$p"/* "$d" 2>/dev/null; done; :', directory,
              *reversed([place for place in places if os.path.isdir(place)]))
    field.run(TARGET, "rm", "-f", *(f"{directory}/{program}" for program in programs))
    return {"PATH": directory}


def one_sentence(errors):
    found = [line.removeprefix("phaul: ") for line in errors.splitlines() if line.startswith("phaul: ")]
    check(len(found) == 1, f"not one sentence: {errors!r}")
    return found[0]


class Bed:
    """What the engines have in common. `kind` is phaul's TYPE; make_engine() one engine on a host, run() a container with options on the source."""

    kind = None

    def __init__(self, field):
        self.field, self.engines = field, {}
        try:
            for host in HOSTS:
                self.engines[host] = self.make_engine(host)
        except BaseException:
            self.close()
            raise

    def close(self):
        for engine in self.engines.values():
            engine.close()

    @contextlib.contextmanager
    def container(self, *options, **how):
        """One that runs on the source, and goes in the end with whatever a test made of that name at the target."""
        try:
            self.run(*options, **how)
            self.engines[SOURCE].names.add(NAME)
            yield self
        finally:
            for engine in self.engines.values():
                engine.remove(NAME)

    def names(self, host):
        """None where the engine does not answer."""
        done = self.field.run(host, *self.engines[host].LIST, check=False)
        return sorted(done.stdout.split()) if done.returncode == 0 else None

    def process(self):
        """Its first process: the pid, and when it started; it must not be stopped."""
        pid = self.pid()
        check(pid > 0, "the engine does not say that the container runs")
        words = self.field.run(SOURCE, "cat", f"/proc/{pid}/stat").stdout.rsplit(")", 1)[1].split()
        check(words[0] in "SR", f"the container's process is in state {words[0]}")
        return pid, words[19]

    def pid(self):
        return self.engines[SOURCE].pid(NAME)

    def taken(self):
        """A container of that name at the target."""
        self.engines[TARGET].start(NAME, *COMMAND)

    def refused(self, words, *options, status=3, name=NAME, runs=True, others=0):
        """Both verbs refuse, with one sentence that has these words; returns it. `others`: how many more things stand in the way (None: any)."""
        before = {host: settled(self.field, host) for host in HOSTS}
        names, process = {host: self.names(host) for host in HOSTS}, runs and self.process()
        done = self.field.run(SOURCE, PHAUL, "check", self.kind, name, "--to", self.field.address(TARGET), *options, check=False)
        said = done.stdout + done.stderr
        equal(done.returncode, status, f"exit status of phaul check ({said.strip()[-800:]})")
        check(words in said, f"phaul check does not say {words!r}: {said.strip()[-800:]}")
        got, result, events, errors = self.field.migrate(SOURCE, TARGET, self.kind, name, *options)
        equal(got, status, f"exit status of phaul migrate ({errors.strip()[-800:]})")
        refusing = [event["what"] for event in events if event["event"] == "obstacle" and event["kind"] == "refuses"]
        if others is not None:
            equal(len(refusing), others + 1 if status == 3 else 0, f"what stands in the way ({refusing})")
        equal(len(set(refusing)), len(refusing), f"different things that stand in the way ({refusing})")
        sentence = result["reason"] if refusing else one_sentence(errors)
        check(words in sentence, f"the sentence {sentence!r} does not say {words!r}")
        check("\n" not in sentence, f"more than one line: {sentence!r}")
        equal(runs and self.process(), process, "the container's process")
        for host in HOSTS:
            equal(self.names(host), names[host], f"the engine's containers on {host}")
            same_again(self.field, host, before[host])
        return sentence


class DockerBed(Bed):
    kind = "docker"

    def make_engine(self, host):
        return Docker(self.field, host)

    def names(self, host):
        done = self.engines[host].docker("ps", "--all", "--format", "{{.Names}}", check=False)
        return sorted(done.stdout.split()) if done.returncode == 0 else None

    def run(self, *options):
        self.engines[SOURCE].docker("run", "--detach", "--name", NAME, "--network", "host", *options, IMAGE, *COMMAND)

    @contextlib.contextmanager
    def daemon(self, host, *options, up=True, env=None):
        """A host's daemon otherwise for a while, or not there."""
        engine = self.engines[host]
        engine.stop_daemon()
        try:
            if up:
                engine.start_daemon(options=options, env=env)
            yield
        finally:
            if engine.daemon.poll() is None:
                engine.stop_daemon()
            engine.start_daemon()


class PodmanBed(Bed):
    kind = "podman"

    def make_engine(self, host):
        return Podman(self.field, host)

    def run(self, *options):
        self.engines[SOURCE].podman("run", "--detach", "--name", NAME, "--network", "host", *options, f"localhost/{IMAGE}", *COMMAND)


class OddRunc(Runc):
    """With a configuration that change() has been at."""

    def __init__(self, *args, **kwargs):
        self.change = None
        super().__init__(*args, **kwargs)

    def config(self, name, argv):
        config = super().config(name, argv)
        if self.change:
            self.change(config)
        return config


class RuncBed(Bed):
    kind = "runc"

    def make_engine(self, host):
        return OddRunc(self.field, host)

    def run(self, change=None):
        engine = self.engines[SOURCE]
        engine.change = change
        engine.start(NAME, *COMMAND)

    def terminal(self):
        """One with a terminal, whose other end a program on the source holds."""
        engine, field = self.engines[SOURCE], self.field

        def change(config):
            config["process"].update(terminal=True)
            config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                                     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]})

        engine.change = change
        engine.make_bundle(NAME, *COMMAND)
        field.start(SOURCE, "python3", "-c", CONSOLE, "/run/console.sock")
        wait_for("the console's socket", lambda: field.run(SOURCE, "test", "-S", "/run/console.sock", check=False).returncode == 0)
        field.run(SOURCE, "runc", "run", "--detach", "--console-socket", "/run/console.sock", "--bundle", engine.bundle(NAME), NAME)


class LxcBed(Bed):
    kind = "lxc"

    def make_engine(self, host):
        lxclab.span(self.field, host)
        return lxclab.Containers(self.field, host)

    def run(self, more="", changes=(), rootfs_type="dir", later=()):
        """more: lines of its configuration; changes: others instead of some; later: so once it runs, which LXC could not have started so here."""
        engine = self.engines[SOURCE]
        engine.more, engine.rootfs_type = more, rootfs_type
        engine.set_up()
        engine.make_files(NAME, *COMMAND)
        path = f"{engine.directory(NAME)}/config"
        self.rewrite(path, changes)
        self.field.run(SOURCE, "lxc-start", "--name", NAME)
        self.rewrite(path, later)

    def rewrite(self, path, changes):
        text = self.field.run(SOURCE, "cat", path).stdout
        for old, new in changes:
            check(old in text, f"the configuration has no {old!r}")
            text = text.replace(old, new)
        self.field.put(SOURCE, path, text, 0o644)
