"""A Python program with state of every kind, which checks itself: counters per connection, data and their hashes, a timer, a pool of threads
in an event loop (epoll, eventfd or socket pair), a child behind pipes with semaphores, a database in memory. Protocol: client.py, state_turn(), verify_turn().
"""

import asyncio
import hashlib
import multiprocessing
import os
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

BLOBS, BLOB_BYTES = 64, 262144
TICK_S = 0.01


def child_main(questions, answers):
    total = 0
    while True:
        total += questions.get()
        answers.put((os.getpid(), total))


class State:
    def __init__(self):
        self.blobs = [bytearray(os.urandom(BLOB_BYTES)) for _ in range(BLOBS)]
        self.hashes = [hashlib.sha256(blob).digest() for blob in self.blobs]
        self.generation, self.ticks, self.loop_ticks, self.asked = 0, 0, 0, 0
        self.lock, self.ticked = threading.Lock(), threading.Condition()
        context = multiprocessing.get_context("fork")
        self.questions, self.answers = context.Queue(), context.Queue()
        self.child = context.Process(target=child_main, args=(self.questions, self.answers), daemon=True)
        self.child.start()
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("CREATE TABLE changes (generation INTEGER PRIMARY KEY, blob INTEGER)")
        threading.Thread(target=self.tick, daemon=True).start()
        self.pool = ThreadPoolExecutor(max_workers=4)

    def tick(self):
        while True:
            time.sleep(TICK_S)
            with self.ticked:
                self.ticks += 1
                self.ticked.notify_all()

    def change(self):
        with self.lock:
            self.generation += 1
            number = self.generation % BLOBS
            self.blobs[number][self.generation % BLOB_BYTES] ^= 0xff
            self.hashes[number] = hashlib.sha256(self.blobs[number]).digest()
            self.database.execute("INSERT INTO changes VALUES (?, ?)", (self.generation, number))
            return f"generation {self.generation}"

    def verify(self):
        with self.lock:
            for number, blob in enumerate(self.blobs):
                if hashlib.sha256(blob).digest() != self.hashes[number]:
                    return f"blob {number} is not what it was"
            rows = self.database.execute("SELECT count(*), coalesce(max(generation), 0) FROM changes").fetchone()
            if rows != (self.generation, self.generation):
                return f"the database has {rows}, expected {self.generation} generations"
            self.asked += 1
            self.questions.put(1)
            pid, total = self.answers.get(timeout=20)
            if (pid, total) != (self.child.pid, self.asked):
                return f"the child {pid} counted {total}, expected {self.child.pid} and {self.asked}"
            before = self.ticks, self.loop_ticks
        with self.ticked:
            if not self.ticked.wait_for(lambda: self.ticks > before[0], timeout=20):
                return "the timer's thread does not tick any more"
        return f"ok {self.ticks}"

    async def loop_tick(self):
        while True:
            await asyncio.sleep(TICK_S)
            self.loop_ticks += 1

    async def serve(self, reader, writer):
        total, loop = 0, asyncio.get_running_loop()
        while line := await reader.readline():
            words = line.decode().split()
            if words[0] == "add":
                total += int(words[1])
                answer = f"total {total}"
            elif words[0] == "change":
                answer = await loop.run_in_executor(self.pool, self.change)
            else:
                answer = await loop.run_in_executor(self.pool, self.verify)
                before, patience = self.loop_ticks, 100
                while self.loop_ticks == before and patience:
                    await asyncio.sleep(2 * TICK_S)
                    patience -= 1
                if not patience:
                    answer = "the loop's timer does not tick any more"
            writer.write(f"{answer}\n".encode())
            await writer.drain()
        writer.close()


async def main():
    state = State()
    server = await asyncio.start_server(state.serve, "0.0.0.0", int(sys.argv[1]))
    asyncio.ensure_future(state.loop_tick())
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
