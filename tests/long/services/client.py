#!/usr/bin/env python3
"""Clients that hold their connections, check every answer and measure every wait: client.py http|state --host H --port P --json FILE

http asks for files below /, whose bodies must be what their names say (tree.py); state speaks with programs/ (see state_turn(), verify_turn()).
SIGUSR1 writes what was seen since the last one into FILE, SIGTERM ends it with a last one. A connection that ends is an error, and is
made again: the work goes on, the result shows it. One request at a time per connection: the wait is from the first byte sent to the
last one of the answer, and what is done with the answer then is not in it.

Each connection has a process of its own, so that none waits for another here; the first process only asks them for what they saw.
"""

import argparse
import json
import os
import random
import select
import signal
import socket
import time

import tree  # beside this file

TIMEOUT_S = 30
ADDED_MAX = 1000


class Connection:
    """Lines and lengths of bytes over TCP. `wait_s`: how long the last answer, or that of it which was read, took."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.asked, self.wait_s = 0.0, 0.0

    def send(self, text):
        self.asked = time.monotonic()
        self.socket.sendall(text.encode())

    def took(self):
        self.wait_s = time.monotonic() - self.asked

    def line(self):
        text = self.file.readline()
        self.took()
        if not text.endswith(b"\n"):
            raise ConnectionError("the connection ended")
        return text.decode().rstrip("\r\n")

    def read(self, length):
        data = self.file.read(length)
        self.took()
        if len(data) != length:
            raise ConnectionError("the connection ended within an answer")
        return data

    def close(self):
        self.file.close()
        self.socket.close()


def http_turn(connection, memory):
    """One file, whole."""
    number = random.randrange(tree.FILES)
    connection.send(f"GET /{tree.name_of(number)} HTTP/1.1\r\nHost: c1\r\n\r\n")
    status, length = connection.line(), None
    while line := connection.line():
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    if " 200 " not in status or length is None:
        raise ValueError(f"{tree.name_of(number)}: {status!r}, length {length}")
    if connection.read(length) != tree.content_of(number):
        raise ValueError(f"{tree.name_of(number)} is not what it should be")
    memory["turns"] = memory.get("turns", 0) + 1


def state_turn(connection, memory):
    """The program counts for each connection, and has data, timers, threads and children."""
    turn = memory["turns"] = memory.get("turns", 0) + 1
    if turn % 10 == 0:
        connection.send("change\n")
        generation = int(connection.line().split()[1])
        if generation <= memory.get("generation", 0):
            raise ValueError(f"its generation went from {memory['generation']} to {generation}")
        memory["generation"] = generation
    else:
        added = random.randrange(ADDED_MAX)
        memory["total"] = memory.get("total", 0) + added
        connection.send(f"add {added}\n")
        answer = connection.line()
        if answer != f"total {memory['total']}":
            raise ValueError(f"{answer!r}, expected total {memory['total']}")


def verify_turn(connection, memory):
    """It looks after all that it has; its timer must have gone on."""
    connection.send("verify\n")
    answer = connection.line().split()
    if answer[0] != "ok":
        raise ValueError(f"verify: {' '.join(answer)}")
    ticks = int(answer[1])
    if ticks <= memory.get("ticks", 0):
        raise ValueError(f"its timer went from {memory['ticks']} to {ticks}")
    memory["ticks"] = ticks


# What the connections do, and what one of them does each time that the figures are asked for: everybody else would wait for it.
TURNS = {"http": (http_turn, None), "state": (state_turn, verify_turn)}


class Client:
    """One connection, in a process of its own from start() on. `interval_s` None: it has a turn only when it is asked for its window."""

    def __init__(self, options, turn, interval_s):
        self.options, self.turn, self.interval_s = options, turn, interval_s
        self.error = ""
        self.begin()
        self.connect()

    def begin(self):
        self.ops = self.errors = self.reconnects = 0
        self.longest_s = 0.0

    def connect(self):
        self.memory = {}
        self.connection = Connection(self.options.host, self.options.port)

    def start(self, others):
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ours.close()
            for other in others:
                other.asker.close()  # or that one would not see the end of the first process
            self.work(theirs)
            os._exit(0)
        theirs.close()
        self.connection.close()
        self.asker = ours.makefile("rw")
        ours.close()

    def work(self, asker):
        """Until whoever asks is gone."""
        while True:
            asked, _, _ = select.select([asker], [], [], self.interval_s)
            if asked and not asker.recv(1):
                return
            if not asked or self.interval_s is None:
                self.one_turn()
            if asked:
                asker.sendall(f"{json.dumps(self.seen())}\n".encode())
                self.begin()

    def one_turn(self):
        try:
            self.turn(self.connection, self.memory)
            self.ops += 1
        except (OSError, ValueError, IndexError) as error:
            self.errors += 1
            self.error = self.error or f"{type(error).__name__}: {error}"
            self.connection.took()
            self.reconnect()
        self.longest_s = max(self.longest_s, self.connection.wait_s)

    def reconnect(self):
        self.connection.close()
        while True:
            try:
                self.connect()
                break
            except OSError:
                time.sleep(0.1)
        self.reconnects += 1

    def seen(self):
        return {"ops": self.ops, "errors": self.errors, "reconnects": self.reconnects, "first_error": self.error,
                "longest_wait_ms": round(self.longest_s * 1000, 3) if self.interval_s is not None else 0}

    def window(self):
        """What it saw since the last call; from the first process."""
        self.asker.write("?")
        self.asker.flush()
        return json.loads(self.asker.readline())


def write(path, snapshot, clients, other):
    windows = [client.window() for client in clients]
    if other:
        windows.append(other.window())
        # It had everybody wait: that does not count.
        for client, window in zip(clients, windows):
            later = client.window()
            for name in ("ops", "errors", "reconnects"):
                window[name] += later[name]
            window["first_error"] = window["first_error"] or later["first_error"]
    merged = {name: sum(window[name] for window in windows) for name in ("ops", "errors", "reconnects")}
    merged["longest_wait_ms"] = max(window["longest_wait_ms"] for window in windows)
    merged["first_error"] = next((window["first_error"] for window in windows if window["first_error"]), "")
    with open(f"{path}.new", "w", encoding="utf-8") as out:
        json.dump({"snapshot": snapshot, "window": merged}, out)
    os.rename(f"{path}.new", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=sorted(TURNS))
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--interval-ms", type=int, default=3)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    signals = (signal.SIGUSR1, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    turn, other = TURNS[options.protocol]
    clients = [Client(options, turn, options.interval_ms / 1000) for _ in range(options.connections)]
    other = Client(options, other, None) if other else None
    started = []
    for client in (*clients, *((other,) if other else ())):
        client.start(started)
        started.append(client)
    snapshot, number = 0, 0
    while number != signal.SIGTERM:
        number = signal.sigwait(signals)
        snapshot += 1
        write(options.json, snapshot, clients, other)


if __name__ == "__main__":
    main()
