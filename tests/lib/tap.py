"""TAP for integration tests: each test is a function that raises when something is not as it should be."""

import sys
import time
import traceback


class Failed(AssertionError):
    """What a test found wrong, in one sentence."""


def check(condition, sentence):
    if not condition:
        raise Failed(sentence)


def equal(found, expected, what):
    if found != expected:
        raise Failed(f"{what}: {found!r}, expected {expected!r}")


def at_most(found, limit, what):
    if not found <= limit:
        raise Failed(f"{what}: {found}, expected at most {limit}")


def run(tests):
    """Runs (name, callable) pairs one after the other and ends the program with the right status."""
    wanted = sys.argv[1:]
    tests = [(name, test) for name, test in tests if not wanted or any(word in name for word in wanted)]
    print(f"1..{len(tests)}", flush=True)
    failures = 0
    for number, (name, test) in enumerate(tests, 1):
        began = time.monotonic()
        try:
            note = test()
        except Exception as error:  # pylint: disable=broad-except
            failures += 1
            print(f"not ok {number} - {name}", flush=True)
            text = str(error) if isinstance(error, Failed) else traceback.format_exc()
            for line in text.splitlines():
                print(f"# {line}", flush=True)
        else:
            extra = f" # {note}" if note else ""
            print(f"ok {number} - {name} ({time.monotonic() - began:.1f} s){extra}", flush=True)
    sys.exit(1 if failures else 0)
