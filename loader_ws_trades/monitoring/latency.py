"""How long it takes from a read of the stream to the delivery report of its last trade, without a cost a trade."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_WAITING = 10_000  # reads that are kept in mind; those that come while so many wait are not counted


class Latencies:
    """A histogram of times from read to delivery: one append a read, settled by whoever serves delivery reports.

    Reads are told apart by how many trades the sink had taken by then, as it delivers in the order of taking.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many reads took up to each of `BOUNDS`, and longer than the one before; the last are longer than all."""
        self.sum = 0.0
        self._waiting: deque[tuple[int, float]] = deque()
        self._noted = 0

    def note(self, taken: int, came: float) -> None:
        """A read returned at `came` (monotonic), and the sink has taken `taken` trades since the run began.

        A read that brought nothing out counts for nothing: what it held waits behind a gap.
        """
        if taken > self._noted and len(self._waiting) < _WAITING:
            self._noted = taken
            self._waiting.append((taken, came))

    def settle(self, delivered: int, now: float) -> None:
        """The sink has delivered `delivered` trades since the run began."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= delivered:
            seconds = now - waiting.popleft()[1]
            self.counts[bisect_left(BOUNDS, seconds)] += 1
            self.sum += seconds
