"""Docker's own way: checkpoint create, copy, start --checkpoint. Image and container are at the target beforehand.

`docker start` takes no checkpoint from a directory of one's choice, so the copy goes from one daemon's directory of the container to
the other's.
"""

from peers.base import TwoSides


class Docker(TwoSides):
    name = "docker checkpoint"

    source = """
docker checkpoint create "$ID" move >/dev/null
stamp checkpoint
address_leaves
send "$HERE"
"""
    target = """
receive "$THERE"
stamp copy
address_arrives
docker start --checkpoint move "$ID" >/dev/null
address_opens
stamp restore
"""

    def variables(self):
        place = "/var/lib/docker/containers/{}/checkpoints/move"
        return {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin:/usr/local/sbin",  # the client that came with the daemon
                "HERE": place.format(self.idents["alpha"]), "THERE": place.format(self.idents["beta"])}

    def house(self, workload):
        command = workload.command(self.rig)
        alpha, beta = self.rig.engine("docker", "alpha"), self.rig.engine("docker", "beta")
        beta.create(self.ident, *command, start=False)
        alpha.start(self.ident, *command)
        self.idents = {engine.host: engine.ident(self.ident) for engine in (alpha, beta)}

    def unhouse(self, host):
        self.rig.engine("docker", host).remove(self.ident)
