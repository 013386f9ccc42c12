"""runc, stop and copy: checkpoint, copy, restore. The bundle is at the target beforehand; the images are in memory on both sides."""

from peers.base import TwoSides
from rig import HOSTS


class RuncStopAndCopy(TwoSides):
    name = "runc stop-and-copy"

    source = """
runc checkpoint --tcp-established --image-path "$DIR" --work-path /tmp/work "$ID" || {
	grep Error /tmp/work/dump.log >&2
	exit 1
}
stamp checkpoint
address_leaves
send "$DIR"
"""
    target = """
receive "$DIR"
stamp copy
address_arrives
runc restore --detach --tcp-established --bundle "$BUNDLE" --image-path "$DIR" --work-path /tmp/work "$ID" </dev/null >/dev/null 2>/tmp/restore.log || {
	grep Error /tmp/work/restore.log /tmp/restore.log >&2
	exit 1
}
address_opens
stamp restore
"""

    def variables(self):
        return {"BUNDLE": self.rig.engine("runc", "alpha").bundle(self.ident)}

    def house(self, workload):
        command = workload.command(self.rig)
        self.rig.engine("runc", "beta").make_bundle(self.ident, *command)
        for host in HOSTS:
            # CRIU's default lock for established connections does not work on every kernel (engines differ in what they pass on).
            self.field.put(host, "/etc/criu/runc.conf", "network-lock nftables\n", 0o644)
        self.rig.engine("runc", "alpha").start(self.ident, *command)

    def unhouse(self, host):
        self.rig.engine("runc", host).remove(self.ident)
        self.field.run(host, "rm", "-rf", "/tmp/work", "/etc/criu/runc.conf")
