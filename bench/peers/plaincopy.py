"""Only a copy, nothing moves: a file as large as the workload goes from memory to memory, without encryption, while the workload runs.

What the workload loses by this is what copying as such costs it on this machine, where both hosts and the clients share the processors.
"""

from peers.base import BareTree, TwoSides


class PlainCopy(TwoSides):
    name = "plain copy, no move"
    works_meanwhile = True
    ends_at = "alpha"

    source = """
send "$DIR"
stamp copy
"""
    target = """
receive "$DIR"
"""

    def move(self, workload):
        more = super().move(workload)
        return {**more, "bulk speed": ("MB/s", workload.bytes / more["copy"][1] / 1e3)}

    def house(self, workload):
        self.field.run("alpha", "sh", "-c", 'head -c "$0" /dev/urandom >/tmp/move/file', str(workload.bytes))
        self.tree = BareTree(self.rig)
        self.tree.start(workload)

    def unhouse(self, host):
        self.tree.end(host)
