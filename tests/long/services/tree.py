"""The files that nginx serves: their names and contents follow from their numbers."""

import functools
import hashlib

FILES = 200
LARGE_EVERY, LARGE_BYTES = 20, 1 << 20
SMALL_BYTES = 16384


def name_of(number):
    return f"tree/{number % 10}/{number:04d}.bin"


@functools.lru_cache(None)
def content_of(number):
    length = LARGE_BYTES if number % LARGE_EVERY == 0 else 1 + number * 97 % SMALL_BYTES
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (length // len(seed) + 1))[:length]
