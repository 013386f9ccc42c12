"""What a workload of the benchmarks is: a command that beats every millisecond, and how to tell that it is unharmed."""


class Workload:
    """`name` is the one in the results; `bytes` what it has resident, where that is known."""

    service = None  # an address that its clients use, and that follows it
    paths = ()  # what belongs to it in the file system

    def __init__(self, name, resident_bytes=0):
        self.name, self.bytes = name, resident_bytes

    def command(self, rig):
        """Its argument vector, the beat's options included. As a container's init it finds the programs of tests/lib/rootfs.py."""
        raise NotImplementedError

    def ready(self, rig):
        """Called once it beats: fills it, starts its clients."""

    def work_of(self, rig):
        """A function that counts what it has done, or None where it does nothing that could be slowed down."""
        return None

    def verify(self, rig, host):
        """On the host where it is after the move: FieldError unless it is unharmed."""
        raise NotImplementedError

    def more(self):
        """{metric: (unit, value)} that its clients saw, once it is verified."""
        return {}

    def end(self, rig):
        """Ends its clients; the workload itself is ended by whoever started it."""
