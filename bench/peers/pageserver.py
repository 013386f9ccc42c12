"""CRIU with its page server: memory goes straight to the target, only the small images are copied. For a bare process tree."""

from peers.base import BareTree, TwoSides


class PageServer(TwoSides):
    name = "criu page server"

    source = """
mkdir "$DIR/images"
criu dump --tree "$PID" --images-dir "$DIR/images" --tcp-established --network-lock nftables --page-server --address "$TARGET" --port 7601 || {
	cat "$DIR/images/dump.log" >&2
	exit 1
}
stamp dump
address_leaves
send "$DIR/images"
"""
    # The page server ends with the dump; then it and the copy have filled the same directory.
    target = """
mkdir "$DIR/images"
criu page-server --images-dir "$DIR/images" --address "$TARGET" --port 7601 &
receive "$DIR/images"
wait
stamp copy
address_arrives
criu restore --images-dir "$DIR/images" --tcp-established --network-lock nftables --restore-detached --log-file restore.log || {
	grep Error "$DIR/images/restore.log" >&2
	exit 1
}
address_opens
stamp restore
"""

    def variables(self):
        return {"PID": str(self.tree.pid)}

    def house(self, workload):
        self.tree = BareTree(self.rig)
        self.tree.start(workload)

    def unhouse(self, host):
        self.tree.end(host)
