"""A Python and a Node program that have state of every kind and look after it themselves: programs/."""

import os

from dockers import ADDRESS
from rootfs import program_path
from services.service import CLIENT, PROGRAMS, PYTHON, Service


class Language(Service):
    port = 9100
    source = None

    def files(self):
        with open(os.path.join(PROGRAMS, self.source), encoding="utf-8") as program:
            return ((f"srv/{self.source}", program.read()),)

    def client(self):
        return (PYTHON, CLIENT, "state", "--host", ADDRESS, "--port", str(self.port), "--json", self.load_json)


class Python(Language):
    name, source = "python", "state.py"
    interpreter = os.path.realpath("/usr/bin/python3")
    trees = (f"/usr/lib/{os.path.basename(interpreter)}",)

    @property
    def programs(self):
        return (self.interpreter,)

    @property
    def first(self):
        return (os.path.basename(self.interpreter), f"/srv/{self.source}", str(self.port))


class Node(Language):
    name, source = "node", "state.js"
    programs = ("node",)
    # Debian's has parts of itself there.
    trees = tuple(path for path in ("/usr/share/nodejs/acorn", "/usr/share/nodejs/acorn-walk", "/usr/share/nodejs/cjs-module-lexer",
                                    "/usr/share/nodejs/undici") if os.path.isdir(path))
    first = ("node", f"/srv/{source}", "9100")

    def rootfs(self):
        program_path("node")
        return super().rootfs()
