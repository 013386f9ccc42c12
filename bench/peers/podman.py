"""Podman's own way: container checkpoint --export, copy, container restore --import. The image is at the target beforehand."""

from peers.base import TwoSides


class Podman(TwoSides):
    name = "podman checkpoint"

    # Without compression: on these links it costs more than it saves for most contents.
    source = """
podman container checkpoint --tcp-established --compress none --export "$DIR/export.tar" "$ID" >/dev/null
stamp checkpoint
address_leaves
send "$DIR"
"""
    target = """
receive "$DIR"
stamp copy
address_arrives
podman container restore --tcp-established --import "$DIR/export.tar" >/dev/null
address_opens
stamp restore
"""

    def house(self, workload):
        self.rig.engine("podman", "beta")
        self.rig.engine("podman", "alpha").start(self.ident, *workload.command(self.rig))

    def unhouse(self, host):
        self.rig.engine("podman", host).remove(self.ident)
