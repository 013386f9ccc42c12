"""The cells of the fault matrix: who is struck at which point, and what must come of it (the table of docs/handover.md).

POINTS are in the order in which a migration passes them. A victim that does not exist at a point has no cell there.
"""

MIGRATED, ABORTED, REFUSED, UNKNOWN = 0, 1, 3, 4
SOURCE, TARGET = "alpha", "beta"

# Named hooks (src/migration/hook.h): before each stage of the source, before each message at the target, and those in between.
POINTS = ("source-connect", "target-hello", "source-plan", "target-plan", "source-begin", "target-begin", "source-files",
          "source-copy", "target-round", "source-arm", "target-arm", "source-freeze", "source-final", "source-finish", "target-finish",
          "source-commit", "source-stopped", "source-committed", "target-commit", "target-resuming", "target-resumed",
          "target-running", "source-settle", "source-running", "target-done", "source-fill")

VICTIMS = ("source", "source-criu", "service", "worker", "target-criu", "pager", "link 2 s", "link", "full", "stop")


class Cell:
    """What is done to whom at which point, and where the workload lives afterwards."""

    def __init__(self, victim, point, lives, status=None, settle=False, held=False, options=()):
        self.victim = victim    # one of VICTIMS, or what a special calls it
        self.point = point      # name of the hook
        self.lives = lives      # SOURCE or TARGET; None: either, as the exit status says
        self.status = status    # exit status of phaul migrate; None: it is killed
        self.settle = settle    # phaul resume at the source is needed
        self.held = held        # until then both copies are held
        self.options = options  # of phaul migrate
        self.name = f"{victim} at {point}"

    @property
    def kills_itself(self):
        """The hook kills the victim in the very moment."""
        return self.victim == ("source" if self.point.startswith("source-") else "worker")

    @property
    def leaves_directory(self):
        """The source dies with a work directory and no journal: the next migration sweeps it away, or phaul cleanup --yes."""
        return self.victim == "source" and between(self.point, "source-plan", "source-begin")


def between(point, first, last):
    return POINTS.index(first) <= POINTS.index(point) <= POINTS.index(last)


def before(point, first):
    return POINTS.index(point) < POINTS.index(first)


def source_cell(point):
    """phaul at the source is killed: it has to be started again, if there was anything to settle."""
    if before(point, "target-begin"):
        return Cell("source", point, SOURCE)
    if before(point, "source-committed"):
        return Cell("source", point, SOURCE, settle=True)
    settled = point in ("target-done", "source-fill")
    return Cell("source", point, TARGET, settle=not settled, held=point == "source-committed")


def source_criu_cell(point):
    """It is started at the end of `arm`. Stopped firmly, the tasks do not need it any more."""
    if before(point, "source-freeze") or not before(point, "target-done"):
        return None
    if before(point, "source-stopped"):
        return Cell("source-criu", point, SOURCE, ABORTED)
    return Cell("source-criu", point, TARGET, MIGRATED)


def service_cell(point):
    """Killed and started again, as by an init; its workers live on, but cannot be given further connections."""
    lost = between(point, "target-hello", "target-begin")
    return Cell("service", point, SOURCE if lost else TARGET, ABORTED if lost else MIGRATED)


def worker_cell(point):
    if point == "source-connect":
        return None
    if before(point, "target-resumed"):
        return Cell("worker", point, SOURCE, ABORTED)
    return Cell("worker", point, TARGET, MIGRATED)


def target_criu_cell(point):
    """Found at COMMIT: the source has its copy back."""
    if not between(point, "source-freeze", "target-resuming"):
        return None
    return Cell("target-criu", point, SOURCE, ABORTED)


def pager_cell(point):
    if not between(point, "source-commit", "target-resumed"):
        return None
    return Cell("pager", point, TARGET, MIGRATED)


def short_cut_cell(point):
    """Mended, but for the beginning and the freeze, where it may be noticed or not."""
    either = before(point, "source-files") or between(point, "source-freeze", "target-finish")
    return Cell("link 2 s", point, None) if either else Cell("link 2 s", point, TARGET, MIGRATED)


def cut_cell(point):
    if before(point, "source-commit"):
        # What is prepared in spite of the cut is held until the source's ABORT can be delivered.
        return Cell("link", point, SOURCE, ABORTED, settle=point == "target-finish")
    if before(point, "source-settle"):
        held = point in ("source-commit", "source-stopped", "source-committed")
        return Cell("link", point, TARGET, UNKNOWN, settle=True, held=held)
    return Cell("link", point, TARGET, MIGRATED)


def full_cell(point):
    """Images have to fit; the journal's records do, in the block that it has."""
    if before(point, "source-begin"):
        return Cell("full", point, SOURCE, REFUSED)
    if before(point, "target-finish"):
        return Cell("full", point, SOURCE, ABORTED)
    return Cell("full", point, None if point == "target-finish" else TARGET, MIGRATED)


def stop_cell(point):
    """The peer of the side that is at the point stands still for longer than --timeout, and not as long as --reconnect-timeout."""
    options = ("--reconnect-timeout", "14")
    if before(point, "target-begin"):
        return Cell("stop", point, SOURCE, ABORTED, options=options)
    if point == "target-begin" or between(point, "source-freeze", "target-finish"):
        return Cell("stop", point, None, options=options)
    return Cell("stop", point, TARGET, MIGRATED, options=options)


RULES = {"source": source_cell, "source-criu": source_criu_cell, "service": service_cell, "worker": worker_cell,
         "target-criu": target_criu_cell, "pager": pager_cell, "link 2 s": short_cut_cell, "link": cut_cell,
         "full": full_cell, "stop": stop_cell}

CELLS = tuple(cell for point in POINTS for cell in (RULES[victim](point) for victim in VICTIMS) if cell)
