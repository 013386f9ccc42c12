"""What the static checks in this folder share.

Every check is a program of its own: `NAME [ROOT [BUILD_DIR]]`. It prints one line per finding,
`FILE:LINE: sentence`, and exits 0 when there is none, 1 when there are some, 77 with one line that
says why when it could not look (what meson and automake call skipped). `run` calls them all;
`self-test` proves that each one finds what it is there to find.
"""

import os
import sys

SKIPPED = 77
JOBS = int(os.environ.get("LINT_JOBS", "0")) or min(2, os.cpu_count() or 1)


class Tree:
    """The tree that is looked at, and the folder with its build."""

    def __init__(self, argv):
        here = os.path.dirname(os.path.abspath(__file__))
        if len(argv) > 3 or any(a.startswith("-") for a in argv[1:]):
            print(f"usage: {os.path.basename(argv[0])} [ROOT [BUILD_DIR]]", file=sys.stderr)
            sys.exit(2)
        self.root = os.path.abspath(argv[1] if len(argv) > 1 else os.path.join(here, "../.."))
        self.build = os.path.abspath(argv[2] if len(argv) > 2 else os.path.join(self.root, "build"))
        if not os.path.isdir(self.root):
            print(f"no such folder: {self.root}", file=sys.stderr)
            sys.exit(2)

    def files(self, suffixes=("",), under=("",)):
        """Paths relative to the root, sorted; builds, .git and links are left out."""
        found = []
        for top in under:
            for folder, folders, names in os.walk(os.path.join(self.root, top)):
                folders[:] = [f for f in folders if not self._ignored(os.path.join(folder, f))]
                for name in names:
                    path = os.path.join(folder, name)
                    if name.endswith(tuple(suffixes)) and os.path.isfile(path) and not os.path.islink(path):
                        found.append(os.path.relpath(path, self.root))
        return sorted(set(found))

    def c_files(self, suffixes=(".c", ".h")):
        return self.files(suffixes, ("src", "tests", "bench"))

    def read(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
            return file.read()

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def _ignored(self, folder):
        name = os.path.basename(folder)
        top = os.path.dirname(folder) == self.root
        return (name in (".git", "__pycache__") or folder == self.build or os.path.islink(folder)
                or (top and (name == "build" or name.startswith("build-"))))


def head_comment(text):
    """Lines of the comment that opens a file; none if it opens with something else."""
    lines = text.split("\n")
    if lines[0].startswith("//"):
        count = next((i for i, line in enumerate(lines) if not line.startswith("//")), len(lines))
        return lines[:count]
    if not lines[0].startswith("/*"):
        return []
    for i, line in enumerate(lines):
        if "*/" in line:
            return lines[:i + 1]
    return lines


def says(comment, phrase):
    """Whether the phrase stands in the comment, be it over the end of a line."""
    words = " ".join(line.strip().lstrip("/*").strip() for line in comment)
    return phrase in " ".join(words.split())


def skip(why):
    print(why)
    sys.exit(SKIPPED)


def finish(findings):
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)
