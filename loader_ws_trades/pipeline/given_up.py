"""Ids that were given up recently: a trade that arrives with one of them is late, not a duplicate."""

from __future__ import annotations

import time
from bisect import bisect_left

_KEPT = 600.0  # seconds
_AT_MOST = 10_000  # ranges; the oldest are forgotten first


class GivenUp:
    """Ranges of ids, added in ascending order and kept for a while."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._times: list[float] = []

    def add(self, first: int, last: int) -> None:
        """Add the ids from `first` to `last`, which are above all added before."""
        now = time.monotonic()
        if self._lasts and self._lasts[-1] == first - 1:
            self._lasts[-1], self._times[-1] = last, now
            return
        if len(self._times) == _AT_MOST:
            self._forget(max(_AT_MOST // 2, bisect_left(self._times, now - _KEPT)))
        self._firsts.append(first)
        self._lasts.append(last)
        self._times.append(now)

    @property
    def newest(self) -> int:
        """The highest of the ids; -1 if there is none."""
        return self._lasts[-1] if self._lasts else -1

    def has(self, trade_id: int, expected: int) -> bool:
        """Whether an id below the `expected` one was given up recently, or last, with nothing emitted since."""
        place = bisect_left(self._lasts, trade_id)
        if place == len(self._lasts) or trade_id < self._firsts[place]:
            return False
        return self._times[place] > time.monotonic() - _KEPT or self._lasts[place] == expected - 1

    def _forget(self, count: int) -> None:
        del self._firsts[:count], self._lasts[:count], self._times[:count]

    def clear(self) -> None:
        """Start over with a new sequence of ids."""
        self._forget(len(self._times))
