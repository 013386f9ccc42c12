"""What a host holds, to compare before and after: whatever a move, an engine or a refusal may not leave behind."""

import difflib
import time

from field import FieldError, wait_for
from tap import Failed


# Podman binds its storage onto itself, and takes that away whenever a command of its finds no container mounted: not ours to keep or leave.
PODMANS_OWN = "mount /var/lib/containers/storage/overlay "


def without_journals(line):
    """All but journals, which are kept on purpose."""
    return "/migrations" not in line and not line.startswith(PODMANS_OWN)


def engine_things(line):
    """Processes, mounts, network, firewall rules. The directories that an engine keeps go with the host."""
    return not line.startswith(("file ", "cgroup ", PODMANS_OWN))


def settled(field, host, counts=without_journals):
    """The lines of a snapshot that count, once nothing is about to go: no zombie, and the same twice in a row."""
    def look():
        return [line for line in field.snapshot(host).splitlines() if counts(line)]

    def steady():
        lines = look()
        if any("zombie" in line for line in lines):
            return None
        time.sleep(0.2)
        return lines if look() == lines else None

    return wait_for(f"{host} to come to rest", steady)


def same_again(field, host, before, counts=without_journals, timeout=10):
    """Waits until the host is as settled() saw it; Failed with the difference when it does not become so."""
    try:
        wait_for(f"{host} as it was before", lambda: settled(field, host, counts) == before, timeout=timeout)
    except FieldError as error:
        now = [line for line in field.snapshot(host).splitlines() if counts(line)]
        changed = difflib.unified_diff(before, now, "before", "after", n=0, lineterm="")
        raise Failed("\n".join([str(error), *changed])) from None
