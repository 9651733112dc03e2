"""Ids that were given up recently: a trade that arrives with one of them is late, not a duplicate."""

from __future__ import annotations

import time
from bisect import bisect_left
from operator import itemgetter

_KEPT = 600.0  # seconds
_AT_MOST = 10_000  # ranges; the oldest are forgotten first


class GivenUp:
    """Ranges of ids, added in ascending order and kept for a while."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, float]] = []  # first, last, when

    def add(self, first: int, last: int) -> None:
        """Add the ids from `first` to `last`, which are above all added before."""
        now, ranges = time.monotonic(), self._ranges
        if ranges and ranges[-1][1] == first - 1:
            first = ranges.pop()[0]
        elif len(ranges) == _AT_MOST:
            del ranges[: max(_AT_MOST // 2, bisect_left(ranges, now - _KEPT, key=itemgetter(2)))]
        ranges.append((first, last, now))

    @property
    def newest(self) -> int:
        """The highest of the ids; -1 if there is none."""
        return self._ranges[-1][1] if self._ranges else -1

    def has(self, trade_id: int, expected: int) -> bool:
        """Whether an id below the `expected` one was given up recently, or last, with nothing emitted since."""
        place = bisect_left(self._ranges, trade_id, key=itemgetter(1))
        if place == len(self._ranges):
            return False
        first, last, given_up_at = self._ranges[place]
        return first <= trade_id and (given_up_at > time.monotonic() - _KEPT or last == expected - 1)

    def clear(self) -> None:
        """Start over with a new sequence of ids."""
        self._ranges.clear()
