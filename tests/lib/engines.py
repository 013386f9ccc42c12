"""Container engines on the hosts of a test field: Docker, Podman, runc and LXC, each with the same few verbs.

    with Field("example") as field, make_engine("docker", field, "alpha") as engine:
        engine.start("c1", "memtoucher", "--size", "64M")      # from the root file system of rootfs.py
        engine.pid("c1")                                       # its init's, as the host sees it
        engine.remove("c1")

An engine belongs to one host: its data lie where the host has directories of its own, its daemon, if it has one, ends with
it, and close() leaves nothing behind that runs. Containers share the host's network unless `network` says otherwise; their
standard descriptors lead to /dev/null inside, for CRIU cannot move those that lead outside.
"""

import json
import os
import subprocess

from field import LAB, FieldError, wait_for
from rootfs import Rootfs

IMAGE = "phaul-test:1"
# What Docker gives a container, so that all engines' containers are alike.
CAPABILITIES = ["CAP_" + name for name in ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
                                           "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE")]


class Engine:
    """What all of them share. `kind` is also phaul's TYPE for its containers."""

    kind = None

    def __init__(self, field, host, rootfs=None, network="host"):
        self.field, self.host, self.network = field, host, network
        self.rootfs = rootfs or rootfs_of(field)
        self.names = set()
        try:
            self.set_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def set_up(self):
        """Whatever the engine needs before its first container."""

    def tear_down(self):
        """Ends what set_up started."""

    def close(self):
        for name in sorted(self.names):
            self.remove(name)
        self.tear_down()

    def run(self, *argv, **kwargs):
        return self.field.run(self.host, *argv, **kwargs)

    def feed(self, path, *argv):
        """A command on the host that reads a file of the machine."""
        with open(path, "rb") as content:
            done = subprocess.run([LAB, "--name", self.field.name, "exec", self.host, *argv], stdin=content, capture_output=True,
                                  text=True, check=False)
        if done.returncode:
            raise FieldError(f"{self.host}: {' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, name, *argv):
        """A container that runs; its init is argv."""
        self.names.add(name)
        self.create(name, *argv)

    def running(self, name):
        return self.pid(name) > 0

    def listed(self):
        """Names of all its containers, whether they run or not."""
        return self.run(*self.LIST).stdout.split()

    def inside(self, name, *argv, **kwargs):
        """A command in a container that runs."""
        return self.run(*(word.format(name=name) for word in self.INSIDE), *argv, **kwargs)

    def in_network(self, name, *argv):
        """A command of the host's in the network of a container that runs: what it prints."""
        return self.run("nsenter", "-t", str(self.pid(name)), "-n", *argv).stdout


class Docker(Engine):
    """A dockerd of the host's own, at its usual places, with checkpoints enabled.

    network is "host" (no bridge, no firewall rules) or "bridge": Docker's own, in the host's network namespace.
    """

    kind = "docker"

    def set_up(self):
        self.client = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
        self.start_daemon()
        self.feed(self.rootfs.image_archive(os.path.dirname(self.rootfs.tar), IMAGE), self.client, "load")

    def start_daemon(self, experimental=True, options=(), env=None):
        """Again, too, after it was ended; without `experimental` it has no checkpoints."""
        wanted = ["--experimental"] if experimental else []
        if self.network != "bridge":
            wanted += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        self.daemon = self.field.start(self.host, "dockerd", "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2",
                                       "-H", "unix:///run/docker.sock", *wanted, *options, env=env)
        wait_for(f"dockerd on {self.host}", self._answers, timeout=60)

    def daemon_pid(self):
        """The daemon's own, as the host sees it."""
        return int(self.run("cat", "/run/docker.pid").stdout)

    def stop_daemon(self, signal="TERM"):
        self.run("kill", f"-{signal}", str(self.daemon_pid()))
        self.daemon.wait(timeout=30)

    def _answers(self):
        if self.daemon.poll() is not None:
            raise FieldError(f"dockerd on {self.host} ended: {log_of(self.field, self.daemon)}")
        return self.docker("version", check=False).returncode == 0

    def docker(self, *argv, **kwargs):
        return self.run(self.client, "-H", "unix:///run/docker.sock", *argv, **kwargs)

    def tear_down(self):
        daemon = getattr(self, "daemon", None)
        if daemon and daemon.poll() is None:
            daemon.terminate()
            daemon.wait(timeout=30)
        # What dockerd means to find again at its next start.
        self.run("umount", "/run/docker/netns/default", check=False)
        if self.network == "bridge":
            self.run("ip", "link", "delete", "docker0", check=False)
            for table in ("nat", "filter"):
                self.run("nft", "delete", "table", "ip", table, check=False)

    def create(self, name, *argv, start=True):
        """With start=False one that has never run, as a restore from a checkpoint needs it."""
        self.names.add(name)
        network = [] if self.network == "bridge" else ["--network", "host"]
        self.docker("create", "--name", name, *network, IMAGE, *argv)
        if start:
            self.docker("start", name)

    def pid(self, name):
        done = self.docker("inspect", "--format", "{{.State.Pid}}", name, check=False)
        return int(done.stdout) if done.returncode == 0 else 0

    def listed(self):
        return self.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()

    def inside(self, name, *argv, **kwargs):
        return self.docker("exec", name, *argv, **kwargs)

    def ident(self, name):
        return self.docker("inspect", "--format", "{{.Id}}", name).stdout.strip()

    def remove(self, name):
        self.docker("rm", "--force", "--volumes", name, check=False)
        self.names.discard(name)


class Podman(Engine):
    """Podman with runc and plain control groups, as /etc/containers of the host tells every podman there."""

    kind = "podman"
    LIST = ("podman", "ps", "--all", "--format", "{{.Names}}")
    INSIDE = ("podman", "exec", "{name}")
    ENGINE = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
    STORAGE = """[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""

    def set_up(self):
        self.run("mkdir", "-p", "/etc/containers")
        self.field.put(self.host, "/etc/containers/containers.conf", self.ENGINE, 0o644)
        self.field.put(self.host, "/etc/containers/storage.conf", self.STORAGE, 0o644)
        self.feed(self.rootfs.image_archive(os.path.dirname(self.rootfs.tar), IMAGE), "podman", "load")

    def tear_down(self):
        # It binds its layers onto themselves and leaves them so.
        self.run("umount", "/var/lib/containers/storage/overlay", check=False)

    def podman(self, *argv, **kwargs):
        return self.run("podman", *argv, **kwargs)

    def create(self, name, *argv):
        network = [] if self.network == "bridge" else ["--network", "host"]
        self.podman("run", "--detach", "--name", name, *network, f"localhost/{IMAGE}", *argv)

    def pid(self, name):
        done = self.podman("inspect", "--format", "{{.State.Pid}}", name, check=False)
        return int(done.stdout) if done.returncode == 0 else 0

    def remove(self, name):
        self.podman("rm", "--force", "--time", "0", "--volumes", name, check=False)
        self.names.discard(name)

    def serve(self):
        """The API's socket, /run/podman/podman.sock; ended by Field.close()."""
        self.run("mkdir", "-p", "/run/podman")
        process = self.field.start(self.host, "podman", "system", "service", "--time", "0", "unix:///run/podman/podman.sock")
        wait_for(f"podman's socket on {self.host}",
                 lambda: self.podman("--remote", "version", check=False).returncode == 0, timeout=30)
        return process


class Runc(Engine):
    """Bundles below BUNDLES on the host; state in runc's usual place, /run/runc."""

    kind = "runc"
    LIST = ("runc", "list", "--quiet")
    INSIDE = ("runc", "exec", "{name}")
    BUNDLES = "/srv/local/bundles"

    def bundle(self, name):
        return f"{self.BUNDLES}/{name}"

    def make_bundle(self, name, *argv):
        """What a restore needs at the target too."""
        rootfs = f"{self.bundle(name)}/rootfs"
        self.run("mkdir", "-p", rootfs)
        self.feed(self.rootfs.tar, "tar", "-C", rootfs, "-xf", "-")
        self.field.put(self.host, f"{self.bundle(name)}/config.json", json.dumps(self.config(name, argv), indent=1), 0o644)

    def config(self, name, argv):
        namespaces = ["pid", "mount", "ipc", "uts"] + (["network"] if self.network == "none" else [])
        return {
            "ociVersion": "1.0.2", "hostname": name,
            "process": {"user": {"uid": 0, "gid": 0}, "args": list(argv), "env": ["PATH=/bin"], "cwd": "/",
                        "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
                        "noNewPrivileges": True},
            "root": {"path": "rootfs", "readonly": False},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                       {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
                       {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}],
            "linux": {"namespaces": [{"type": one} for one in namespaces],
                      "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                      "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                      "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]}}

    def create(self, name, *argv):
        self.make_bundle(name, *argv)
        # The container keeps the standard descriptors: a file of the host could not be dumped, /dev/null is opened anew inside.
        self.run("sh", "-c", 'runc --log /tmp/runc-run.log run --detach --bundle "$0" "$1" </dev/null >/dev/null 2>/dev/null || '
                 '{ status=$?; cat /tmp/runc-run.log >&2; exit $status; }', self.bundle(name), name)

    def pid(self, name):
        done = self.run("runc", "state", name, check=False)
        state = json.loads(done.stdout) if done.returncode == 0 else {}
        return state.get("pid", 0) if state.get("status") in ("running", "paused") else 0

    def remove(self, name):
        self.run("runc", "delete", "--force", name, check=False)
        self.run("rm", "-rf", self.bundle(name), check=False)
        self.names.discard(name)


class Lxc(Engine):
    """Containers in /var/lib/lxc, with their root file system as a directory."""

    kind = "lxc"
    LIST = ("lxc-ls", "-1")
    INSIDE = ("lxc-attach", "--name", "{name}", "--clear-env", "--set-var", "PATH=/bin", "--")
    LXC_PATH = "/var/lib/lxc"
    CONFIG = """lxc.uts.name = {name}
lxc.rootfs.path = dir:{path}/{name}/rootfs
lxc.net.0.type = {network}
lxc.console.path = none
lxc.tty.max = 0
lxc.pty.max = 1
lxc.mount.auto = proc:mixed sys:ro
lxc.init.cmd = {command}
"""

    def make_files(self, name, *argv):
        """What a restore needs at the target too."""
        rootfs = f"{self.LXC_PATH}/{name}/rootfs"
        self.run("mkdir", "-p", rootfs)
        self.feed(self.rootfs.tar, "tar", "-C", rootfs, "-xf", "-")
        network = "empty" if self.network == "none" else "none"
        self.field.put(self.host, f"{self.LXC_PATH}/{name}/config",
                       self.CONFIG.format(name=name, path=self.LXC_PATH, network=network, command=" ".join(argv)), 0o644)

    def create(self, name, *argv):
        self.make_files(name, *argv)
        self.run("lxc-start", "--name", name, "--logfile", f"/tmp/lxc-{name}.log", "--logpriority", "INFO")

    def pid(self, name):
        done = self.run("lxc-info", "--name", name, "--pid", "--no-humanize", check=False)
        return int(done.stdout) if done.returncode == 0 and done.stdout.strip() not in ("", "-1") else 0

    def remove(self, name):
        self.run("lxc-stop", "--name", name, "--kill", check=False)
        self.run("rm", "-rf", f"{self.LXC_PATH}/{name}", check=False)
        self.names.discard(name)


ENGINES = {engine.kind: engine for engine in (Docker, Podman, Runc, Lxc)}


def make_engine(kind, field, host, **options):
    return ENGINES[kind](field, host, **options)


def rootfs_of(field):
    """The field's root file system, made once."""
    if not hasattr(field, "rootfs"):
        field.rootfs = Rootfs(field.logs)
    return field.rootfs


def log_of(field, process):
    path = next(path for one, path in field.daemons if one is process)
    return field.text(path)[-2000:]
