"""A small root file system for containers, and an image of it, made without any network.

It holds busybox with its names, the workloads of tests/workload, Redis, and whatever else is named: programs, files, directories of
this machine with all that is in them; each with the libraries that it needs. As a tar (Rootfs.tar) it unpacks into a bundle or a container's directory; as an archive of an image (image_archive)
`docker load` and `podman load` take it, and give it the same id everywhere, for nothing in it depends on when or where it was made.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile

from field import WORKLOADS, FieldError

BUSYBOX_NAMES = ("sh", "cat", "ls", "mkdir", "rm", "sleep", "true", "touch", "kill", "ps", "dd", "mount", "wc", "env", "id", "ip", "nc")
WORKLOAD_NAMES = ("memtoucher", "heartbeat", "tcpecho", "busytree", "pagetouch", "redisload", "ask")
PROGRAMS = ("redis-server", "redis-cli")
DIRECTORIES = ("bin", "dev", "etc", "lib64", "proc", "run", "srv", "sys", "tmp", "usr", "var")
# Of trees: what nobody here runs and what is large.
LEFT_OUT = ("__pycache__", "bitcode", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3")
LEFT_OUT_FILES = ("llvmjit",)
PASSWD = ("root:x:0:0:root:/:/bin/sh\nredis:x:999:999:redis:/:/bin/sh\npostgres:x:998:998:postgres:/var/lib/postgresql:/bin/sh\n"
          "nobody:x:65534:65534:nobody:/:/bin/sh\n")
GROUP = "root:x:0:\nredis:x:999:\npostgres:x:998:\nnogroup:x:65534:\n"


def libraries_of(program):
    """Paths of the shared objects that a program needs, its interpreter included; none for a static one."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", done.stdout)


def program_path(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/bin")
    if not path:
        raise FieldError(f"cannot find the program {name} for a container's root file system: scripts/setup installs it")
    return os.path.realpath(path)


class Rootfs:
    """The tar of it, in `directory`. Programs are named as on PATH; they come to /bin. Files: (name, content), trees: paths, which stay as they are."""

    def __init__(self, directory, programs=(), files=(), trees=()):
        self.tar = os.path.join(directory, "rootfs.tar")
        self.seen = set()
        with tarfile.open(self.tar, "w", format=tarfile.PAX_FORMAT) as self.out:
            for name in DIRECTORIES:
                self._directory(name, 0o1777 if name == "tmp" else 0o755)
            self._program(program_path("busybox"), "bin/busybox")
            for name in BUSYBOX_NAMES:
                self._link(f"bin/{name}", "busybox")
            for name in WORKLOAD_NAMES:
                self._program(os.path.join(WORKLOADS, name), f"bin/{name}")
            for name in (*PROGRAMS, *programs):
                self._program(program_path(name), f"bin/{os.path.basename(name)}")
            for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP), *files):
                self._parents(name)
                self._data(name, text.encode() if isinstance(text, str) else text, 0o644)
            for tree in trees:
                self._tree(tree)

    # Owner and time are always the same, so that the same programs always make the same image.
    def _entry(self, name, kind, mode):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = kind, mode
        self.seen.add(name)
        return entry

    def _directory(self, name, mode=0o755):
        self.out.addfile(self._entry(name, tarfile.DIRTYPE, mode))

    def _parents(self, name):
        for i in range(1, name.count("/") + 1):
            parent = "/".join(name.split("/")[:i])
            if parent not in self.seen:
                self._directory(parent)

    def _link(self, name, target):
        entry = self._entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self.out.addfile(entry)

    def _data(self, name, content, mode):
        entry = self._entry(name, tarfile.REGTYPE, mode)
        entry.size = len(content)
        self.out.addfile(entry, io.BytesIO(content))

    def _tree(self, top):
        """Regular files and links; shared objects and programs bring their libraries."""
        for directory, directories, names in os.walk(top):
            directories[:] = sorted(one for one in directories if one not in LEFT_OUT)
            for name in sorted(name for name in names if not name.startswith(LEFT_OUT_FILES)):
                path = os.path.join(directory, name)
                inside = path.lstrip("/")
                if inside in self.seen:
                    continue
                self._parents(inside)
                if os.path.islink(path):
                    self._link(inside, os.readlink(path))
                elif ".so" in name or os.access(path, os.X_OK):
                    self._program(path, inside)
                else:
                    with open(path, "rb") as file:
                        self._data(inside, file.read(), 0o644)

    def _program(self, path, name):
        for source, target in [(path, name)] + [(one, one.lstrip("/")) for one in libraries_of(path)]:
            if target in self.seen:
                continue
            self._parents(target)
            with open(source, "rb") as file:
                self._data(target, file.read(), 0o755)

    def image_archive(self, directory, name):
        """An archive as `docker save` writes it; its path. `name` is NAME:TAG."""
        with open(self.tar, "rb") as file:
            layer = file.read()
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests/lib/rootfs.py"}]}).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
        path = os.path.join(directory, "image.tar")
        with tarfile.open(path, "w") as out:
            for file_name, content in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
                entry = tarfile.TarInfo(file_name)
                entry.size, entry.mode = len(content), 0o644
                out.addfile(entry, io.BytesIO(content))
        return path
