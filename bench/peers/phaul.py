"""phaul: one command at the source; `phaul serve` waits at the target. TLS with certificates of both sides, as it is by default.

`kind` is the engine whose container is moved, or "pid". Where the phaul at hand does not know that engine yet, the same workload runs as
a bare process tree and is moved as pid; the subject's name says which it was.
"""

import functools

from field import PHAUL, FieldError
from peers.base import BareTree, Subject
from rig import HOSTS

ident = "bench"


@functools.lru_cache(maxsize=None)
def knows(field, kind):
    """Whether this phaul moves containers of that kind: it tells wrong usage before it looks for anything."""
    return kind == "pid" or "is not a type" not in field.run("alpha", PHAUL, "migrate", kind, "none", "--to", "beta", check=False).stderr


class Phaul(Subject):
    works_meanwhile = True

    def __init__(self, rig, kind, options=()):
        super().__init__(rig)
        self.kind, self.options = kind if knows(rig.field, kind) else "pid", options
        self.name = " ".join(["phaul", self.kind, *options])
        self.tree = BareTree(rig)
        self.serving = set()

    def engine(self, host):
        """Podman answers phaul at its socket, which is there from the first time on."""
        engine = self.rig.engine(self.kind, host)
        if self.kind == "podman" and host not in self.serving:
            engine.serve()
            self.serving.add(host)
        return engine

    def start(self, workload):
        if self.kind == "pid":
            self.tree.start(workload)
            return
        command = workload.command(self.rig)
        beta = self.engine("beta")
        if self.kind == "runc":
            beta.make_bundle(ident, *command)
        elif self.kind == "lxc":
            beta.make_files(ident, *command)
        self.engine("alpha").start(ident, *command)

    def move(self, workload):
        options = [*self.options] + [option for path in workload.paths for option in ("--sync", path)]
        if self.kind in ("docker", "podman"):
            options += ["--source", "remove"]  # or it would stay, stopped and under another name
        if workload.service:
            options += ["--move-address", f"{workload.service}/24@eth0"]
        what = self.tree.pid if self.kind == "pid" else ident
        status, result, _, errors = self.field.migrate("alpha", "beta", self.kind, what, *options)
        if status or not result or result["outcome"] != "migrated":
            raise FieldError(f"phaul migrate {self.kind}: status {status}: {errors.strip()[-1500:]}")
        first = result["iterations"][0] if result["iterations"] else None
        more = {"frozen": ("ms", result["frozen_ms"]), "rounds": ("rounds", len(result["iterations"])),
                "fill": ("ms", result["fill_ms"]), "track": ("ms", result["track_ms"]), "criu dump": ("ms", result["dump_ms"]),
                "criu restore": ("ms", result["restore_ms"])}
        if first:
            more["first round"] = ("ms", first["ms"])
        if first and first["ms"]:
            more["bulk speed"] = ("MB/s", first["bytes"] / first["ms"] / 1e3)
        return {**more, **{f"phase {name}": ("ms", ms) for name, ms in result["phases"].items()}}

    def end(self):
        for host in HOSTS:
            if self.kind == "pid":
                self.tree.end(host)
            else:
                self.engine(host).remove(ident)
