#!/usr/bin/env python3
"""Clients that hold their connections, check every answer and measure every wait: client.py http|state --host H --port P --json FILE

http asks for files below /, whose bodies must be what their names say (tree.py); state speaks with programs/ (see state_turn(), verify_turn()).
SIGUSR1 writes what was seen since the last one into FILE, SIGTERM ends it with a last one. A connection that ends is an error, and is
made again: the work goes on, the result shows it. One request at a time per connection: the wait is from the first byte sent to the
last one of the answer.
"""

import argparse
import json
import os
import random
import signal
import socket
import threading
import time

import tree  # beside this file

TIMEOUT_S = 30
ADDED_MAX = 1000
VERIFY_EVERY_S = 0.25


class Connection:
    """Lines and lengths of bytes over TCP."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode())

    def line(self):
        text = self.file.readline()
        if not text.endswith(b"\n"):
            raise ConnectionError("the connection ended")
        return text.decode().rstrip("\r\n")

    def read(self, length):
        data = self.file.read(length)
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
    """It looks after all that it has, which takes it some time; its timer must have gone on."""
    time.sleep(VERIFY_EVERY_S)
    connection.send("verify\n")
    answer = connection.line().split()
    if answer[0] != "ok":
        raise ValueError(f"verify: {' '.join(answer)}")
    ticks = int(answer[1])
    if ticks <= memory.get("ticks", 0):
        raise ValueError(f"its timer went from {memory['ticks']} to {ticks}")
    memory["ticks"] = ticks


# What the connections do, and what one of them does besides whose waits do not count.
TURNS = {"http": (http_turn, None), "state": (state_turn, verify_turn)}


class Client(threading.Thread):
    """One connection."""

    def __init__(self, options, turn, counts):
        super().__init__(daemon=True)
        self.options, self.turn, self.counts = options, turn, counts
        self.lock, self.stopping = threading.Lock(), False
        self.error = ""
        self.begin()

    def begin(self):
        self.ops = self.errors = self.reconnects = 0
        self.longest = 0.0

    def connect(self):
        self.memory = {}
        self.connection = Connection(self.options.host, self.options.port)

    def run(self):
        while not self.stopping:
            began, wrong = time.monotonic(), ""
            try:
                self.turn(self.connection, self.memory)
            except (OSError, ValueError, IndexError) as error:
                wrong = f"{type(error).__name__}: {error}"
            wait = (time.monotonic() - began) * 1000
            with self.lock:
                self.ops += not wrong
                self.errors += bool(wrong)
                if self.counts:
                    self.longest = max(self.longest, wait)
                self.error = self.error or wrong
            if wrong:
                self.reconnect()
            time.sleep(self.options.interval_ms / 1000)

    def reconnect(self):
        self.connection.close()
        while not self.stopping:
            try:
                self.connect()
                break
            except OSError:
                time.sleep(0.1)
        with self.lock:
            self.reconnects += 1

    def window(self):
        with self.lock:
            seen = {"ops": self.ops, "errors": self.errors, "reconnects": self.reconnects, "longest_wait_ms": round(self.longest, 3),
                    "first_error": self.error}
            self.begin()
        return seen


def write(path, snapshot, clients):
    windows = [client.window() for client in clients]
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
    clients = [Client(options, turn, True) for _ in range(options.connections)] + ([Client(options, other, False)] if other else [])
    for client in clients:
        client.connect()
        client.start()
    snapshot, number = 0, 0
    while number != signal.SIGTERM:
        number = signal.sigwait(signals)
        snapshot += 1
        if number == signal.SIGTERM:
            for client in clients:
                client.stopping = True
            for client in clients:
                client.join(timeout=TIMEOUT_S)
        write(options.json, snapshot, clients)


if __name__ == "__main__":
    main()
