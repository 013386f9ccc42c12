"""20 000 small files, and a writer that rewrites and verifies some of them all the time."""

from field import FieldError
from peers.base import PYTHON
from rig import HOSTS
from workloads.base import Workload

TREE = "/srv/local/tree"
FOLDERS, FILES_EACH, SIZE = 200, 100, 4096

MAKER = f"""
import os
for folder in range({FOLDERS}):
    os.makedirs(f"{TREE}/{{folder:03}}", exist_ok=True)
    for number in range({FILES_EACH}):
        with open(f"{TREE}/{{folder:03}}/{{number:03}}", "wb") as file:
            file.write(os.urandom({SIZE - 8}) + bytes(8))
"""

# Every file that it comes by must hold the number that it wrote there last: 100 rewritten per second, in a walk over all of them.
WRITER = f"""
import os, sys, time
last, number = {{}}, 0
while True:
    number += 1
    turn = number * 7919 % {FOLDERS * FILES_EACH}
    path = f"{TREE}/{{turn // {FILES_EACH}:03}}/{{turn % {FILES_EACH}:03}}"
    with open(path, "r+b") as file:
        file.seek({SIZE - 8})
        found = int.from_bytes(file.read(8), "little")
        if found != last.get(turn, 0):
            sys.exit(f"{{path}} holds {{found}}, expected {{last.get(turn, 0)}}")
        last[turn] = number
        file.seek({SIZE - 8})
        file.write(number.to_bytes(8, "little"))
    time.sleep(0.01)
"""

# What the writer's next rounds would find, at once: the newest numbers are all there.
HIGHEST = f"""
import os
print(max(int.from_bytes(open(os.path.join(folder, name), "rb").read()[-8:], "little")
          for folder, _, names in os.walk("{TREE}") for name in names))
"""


class Files(Workload):
    paths = (TREE,)

    def __init__(self):
        super().__init__(f"{FOLDERS * FILES_EACH} files, a writer")

    def command(self, rig):
        rig.field.run("alpha", PYTHON, "-c", MAKER)
        return ["heartbeat", *rig.beat_options(), "--", PYTHON, "-ISc", WRITER]

    def verify(self, rig, host):
        """The writer ends at the first file that is not as it left it, and its beats with it."""
        first, second = (int(rig.field.run(host, PYTHON, "-c", HIGHEST).stdout) for _ in range(2))
        if second <= first or rig.beats()["silent_ms"] > 1000:
            raise FieldError(f"the writer does not write on {host} (last numbers {first}, {second})")

    def end(self, rig):
        for host in HOSTS:
            rig.field.run(host, "rm", "-rf", TREE)
