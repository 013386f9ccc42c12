"""PostgreSQL with its usual shared memory, in the middle of pgbench: no transaction fails, and in the end the sums agree.

pgbench does RATE transactions a second: without a rate its clients take all processors, and wait for each other more than for the move.
"""

import glob
import os
import re
import time

from dockers import ADDRESS
from field import wait_for
from services.service import OBSERVER, Service
from tap import check, equal

LOG = "/srv/shared/pgbench_log"
SCALE, CLIENTS, RATE = 5, 4, 150
# Its files are made at the first start, by its own user as by a package.
START = """#!/bin/sh
run="/bin/setpriv --reuid 998 --regid 998 --clear-groups"
mkdir -p /run/postgresql /var/lib/postgresql
busybox chown 998:998 /run/postgresql /var/lib/postgresql
$run @HOME@/bin/initdb --pgdata /var/lib/postgresql/data --auth trust --encoding UTF8 --locale C --data-checksums --no-sync >/dev/null 2>&1
echo "host all all all trust" >> /var/lib/postgresql/data/pg_hba.conf
exec $run @HOME@/bin/postgres -D /var/lib/postgresql/data -c listen_addresses=0.0.0.0 -c unix_socket_directories=/run/postgresql \\
	-c jit=off -c logging_collector=on
"""
SUMS = ("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
        "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)")


def newest(pattern):
    return max(glob.glob(pattern), default="/usr/lib/postgresql/0", key=lambda path: int(os.path.basename(path)))


class Postgres(Service):
    name, port = "postgresql", 5432
    home = newest("/usr/lib/postgresql/*")
    programs = ("setpriv",)
    trees = (home, home.replace("/lib/", "/share/"))
    first = ("/bin/sh", "/start")

    def files(self):
        return (("start", START.replace("@HOME@", self.home)),)

    def psql(self, *words, check_=True):
        return self.field.run(OBSERVER, f"{self.home}/bin/psql", "-h", ADDRESS, "-U", "postgres", "-At", *words, check=check_, timeout=120)

    def answers(self):
        return self.psql("-c", "SELECT 1", check_=False).stdout == "1\n"

    def pgbench(self, *words):
        return (f"{self.home}/bin/pgbench", "-h", ADDRESS, "-U", "postgres", *words, "postgres")

    def client(self):
        self.field.run(OBSERVER, *self.pgbench("-i", "-q", "-s", str(SCALE)), timeout=120)
        return self.pgbench("-n", "-c", str(CLIENTS), "-j", "1", "-R", str(RATE), "-T", "100000", "-l", f"--log-prefix={LOG}")

    def begin(self):
        self.transactions = []  # (when it ended, seconds since 1970; how long it took, ms)
        self.read_bytes, self.rest = 0, ""
        super().begin()

    def mark(self):
        self.since = time.time()

    def read(self):
        """What pgbench has written of its transactions: "client number us script seconds us late-us" each, some kilobytes at a time.

        Each is measured from when it should have begun; how late it began is not a wait for an answer.
        """
        check(self.load.poll() is None, f"pgbench ended: {self.said()}")
        new = self.field.run(OBSERVER, "sh", "-c", f"tail -qc +{self.read_bytes + 1} {LOG}.*").stdout
        self.read_bytes += len(new)
        *lines, self.rest = (self.rest + new).split("\n")
        for line in lines:
            words = line.split()
            self.transactions.append((int(words[4]) + int(words[5]) / 1e6, (int(words[2]) - int(words[6])) / 1000))
        return self.transactions[-1][0] if self.transactions else 0

    def seen(self, where):
        now = time.time() + 0.3
        wait_for("pgbench's log", lambda: self.read() > now, timeout=60, interval=0.1)
        self.nothing_failed(where)
        return max(took for ended, took in self.transactions if ended >= self.since)

    def nothing_failed(self, where):
        wrong = [line for line in self.said().splitlines() if re.search("abort|error|fatal|lost", line, re.IGNORECASE)]
        check(not wrong, f"pgbench {where}: {wrong}")

    def finish(self):
        self.nothing_failed("in the end")
        self.read()
        self.load.terminate()
        self.load.wait(timeout=20)
        accounts, tellers, branches, deltas, count = (int(word) for word in self.psql("-c", SUMS).stdout.strip().split("|"))
        equal((accounts, tellers, branches), (deltas, deltas, deltas), "sums of accounts, tellers and branches, which the history has")
        check(count >= len(self.transactions), f"{count} transactions in the history, {len(self.transactions)} seen")
