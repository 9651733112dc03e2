"""The request weight that REST may use, and the pauses that the exchange asks for. No I/O."""

from __future__ import annotations

import time
from collections import deque

_MINUTE = 60.0  # seconds over which the exchange counts request weight
LONGEST_PAUSE = 3600.0  # seconds; after an hour it is worth a request to ask again, whatever was asked for
# Share of the limit that may be used as fast as it goes: it brings what a busy pair misses in a minute.
_AT_ONCE = 5 / 6


class WeightLimit:
    """Keeps the request weight of any 60 seconds below `limit`: ours, and what others on the same IP use.

    The exchange counts by the minute and does not say when its minute begins, so ours is counted over a window that
    slides; what its header counts beyond that is the others', and is assumed to last for a minute. Five sixths of the
    limit may be used at once. The rest is spread over the window, so that a small request never waits long behind a
    long repair.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent: deque[tuple[float, int]] = deque()
        self._others = (0.0, 0)  # when they were seen, and their weight
        self._not_before = 0.0

    @property
    def used(self) -> int:
        """What counts at present, ours and the others'; may be asked in any thread."""
        return self._ours + self._theirs

    @property
    def _ours(self) -> int:
        begin = time.monotonic() - _MINUTE
        return sum(weight for at, weight in self._spent.copy() if at > begin)

    @property
    def _theirs(self) -> int:
        seen, weight = self._others
        return weight if seen > time.monotonic() - _MINUTE else 0

    @property
    def paused(self) -> float:
        """Seconds for which nothing may be sent, because the exchange asked for it."""
        return max(0.0, self._not_before - time.monotonic())

    def wait_needed(self, weight: int) -> float:
        """Seconds until a request of `weight` keeps the limit, a pause not considered; 0 if it does now."""
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - _MINUTE:
            self._spent.popleft()
        used, theirs = self.used, self._theirs
        frees = [at + _MINUTE - now for at, _ in list(self._spent)[:1]]
        frees += [self._others[0] + _MINUTE - now] if theirs else []
        if not frees:
            return 0.0
        room = self._limit - used
        if weight > room:
            return max(0.01, min(frees))
        if not self._spent or used + weight <= self._limit * _AT_ONCE:
            return 0.0
        spacing = max(_MINUTE * weight / self._limit, min(frees) * weight / room)
        return max(0.0, self._spent[-1][0] + spacing - now)

    def spend(self, weight: int) -> None:
        """Count a request that is sent now."""
        self._spent.append((time.monotonic(), weight))

    def note(self, counted: int) -> None:
        """Take what the exchange has counted for our IP in its present minute."""
        self._others = (time.monotonic(), max(0, counted - self._ours))

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`, as the exchange asked."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)
