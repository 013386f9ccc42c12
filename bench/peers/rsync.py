"""rsync and CRIU by hand, for a tree of files: rsync while it runs, dump, rsync again, copy the images, restore."""

from peers.base import BareTree, TwoSides
from workloads.files import TREE

PORT = "7602"
CONFIG = f"""uid = root
gid = root
use chroot = no
[tree]
path = {TREE}
read only = no
"""


class RsyncAndCriu(TwoSides):
    name = "rsync + criu"
    works_meanwhile = True

    source = f"""
sync() {{ rsync --archive --hard-links --acls --xattrs --numeric-ids --delete --inplace "{TREE}/" "rsync://$TARGET:{PORT}/tree/"; }}
sync
stamp rsync
mkdir "$DIR/images"
criu dump --tree "$PID" --images-dir "$DIR/images" || {{
	cat "$DIR/images/dump.log" >&2
	exit 1
}}
stamp dump
sync
stamp "second-rsync"
send "$DIR/images"
"""
    target = """
mkdir "$DIR/images"
receive "$DIR/images"
stamp copy
criu restore --images-dir "$DIR/images" --restore-detached --log-file restore.log || {
	grep Error "$DIR/images/restore.log" >&2
	exit 1
}
stamp restore
"""

    def variables(self):
        return {"PID": str(self.tree.pid)}

    def house(self, workload):
        self.field.run("beta", "mkdir", "-p", TREE)
        self.field.put("beta", "/tmp/rsyncd.conf", CONFIG)
        self.daemon = self.field.start("beta", "rsync", "--daemon", "--no-detach", "--config", "/tmp/rsyncd.conf", "--port", PORT)
        self.tree = BareTree(self.rig)
        self.tree.start(workload)

    def unhouse(self, host):
        self.tree.end(host)
        if self.daemon.poll() is None:
            self.daemon.terminate()
            self.daemon.wait(timeout=10)
