"""File trees on two hosts, compared entry by entry, and moves that are held just before the freeze."""

import json
import threading

from field import PHAUL, wait_for
from tap import equal

HOOKS = "/srv/shared/hooks"

# Runs on a host: every entry of a tree with everything that must come along, as JSON. Blocks that a file takes are compared
# only as "has holes", for two file systems may allocate differently.
WALKER = """
import hashlib, json, os, stat, sys
top = sys.argv[1]
first, tree = {}, {}
for folder, folders, files in os.walk(top):
    folders.sort()
    for name in sorted(["."] + folders + files) if folder == top else sorted(folders + files):
        path = os.path.join(folder, name)
        s = os.lstat(path)
        short = os.path.relpath(path, top)
        entry = [stat.filemode(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns,
                 sorted((key, os.getxattr(path, key, follow_symlinks=False).hex())
                        for key in os.listxattr(path, follow_symlinks=False))]
        if not stat.S_ISDIR(s.st_mode):
            entry += [first.setdefault(s.st_ino, short)]  # who its hard links are
        if stat.S_ISREG(s.st_mode):
            with open(path, "rb") as file:
                entry += [s.st_size, hashlib.sha256(file.read()).hexdigest(), s.st_blocks * 512 < s.st_size // 2]
        elif stat.S_ISLNK(s.st_mode):
            entry += [os.readlink(path)]
        elif stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
            entry += [s.st_rdev]
        tree[short] = entry
print(json.dumps(tree))
"""


def tree_of(field, host, path):
    return json.loads(field.run(host, "python3", "-c", WALKER, path).stdout)


def compare(field, source, target, path, unlike=(), target_path=None):
    """Both hosts have the same tree, except for the files `unlike`, which are still written."""
    here, there = ({name: entry for name, entry in tree_of(field, host, at).items() if name not in unlike}
                   for host, at in ((source, path), (target, target_path or path)))
    wrong = [f"{name}: {here.get(name)} at {source}, {there.get(name)} at {target}"
             for name in sorted(set(here) | set(there)) if here.get(name) != there.get(name)]
    equal(wrong[:5], [], f"differences ({len(wrong)})")
    return len(here)


def held_move(field, source, target, ident, *options, before_freeze, at="source-freeze"):
    """A move that waits before the freeze, with everything made ready for it, until before_freeze() was called. at: the hook."""
    field.run(source, "sh", "-c", f"rm -rf {HOOKS}; mkdir -p {HOOKS}")
    answer = []
    env = {"PHAUL_HOOK": f"{at}=hold", "PHAUL_HOOK_DIRECTORY": HOOKS}
    thread = threading.Thread(target=lambda: answer.append(
        field.migrate(source, target, "pid", ident, *options, env=env)))
    thread.start()
    try:
        wait_for("the freeze", lambda: answer or field.run(source, "test", "-e", f"{HOOKS}/{at}.reached",
                                                           check=False).returncode == 0, timeout=60)
        before_freeze()
    finally:
        field.run(source, "touch", f"{HOOKS}/{at}.go")
        thread.join()
    status, result, events, errors = answer[0]
    equal((status, result and result["outcome"]), (0, "migrated"), f"the move ({errors.strip()})")
    return result, events


def start_held(field, source, target, ident, *options):
    """A move that waits before the freeze; it has come there. The process of `lab exec`."""
    field.run(source, "sh", "-c", f"rm -rf {HOOKS}; mkdir -p {HOOKS}")
    process = field.start(source, PHAUL, "migrate", "pid", str(ident), "--to", field.address(target), *options,
                          env={"PHAUL_HOOK": "source-freeze=hold", "PHAUL_HOOK_DIRECTORY": HOOKS})
    wait_for("the freeze", lambda: field.run(source, "test", "-e", f"{HOOKS}/source-freeze.reached", check=False).returncode == 0,
             timeout=60)
    return process
