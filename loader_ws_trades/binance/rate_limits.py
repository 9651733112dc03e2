"""The exchange's limits: on connection attempts, and on the request weight of REST, with its pauses. No I/O."""

from __future__ import annotations

import time
from collections import deque

from loader_ws_trades.text import header_number

_MINUTE = 60.0  # seconds over which the exchange counts request weight
LONGEST_PAUSE = 3600.0  # seconds; after an hour a request is worth a try, whatever Retry-After said


def requested_pause(header: object) -> float:
    """Seconds to wait according to a `Retry-After` header, if there is one, at most `LONGEST_PAUSE`."""
    return min(float(header_number(str(header or "")) or 0), LONGEST_PAUSE)


class AttemptLimit:
    """At most `attempts` in any `period` seconds."""

    def __init__(self, attempts: int, period: float) -> None:
        self._period = period
        self._times: deque[float] = deque(maxlen=attempts)

    def wait_needed(self, kept: int = 0) -> float:
        """The seconds to wait until one more attempt is within the limit, less so many that are kept for others."""
        allowed = (self._times.maxlen or 0) - kept
        if len(self._times) < allowed:
            return 0.0
        return max(0.0, self._times[-allowed] + self._period - time.monotonic())

    def note(self) -> None:
        """Count an attempt made now."""
        self._times.append(time.monotonic())


class WeightLimit:
    """Keeps the request weight of any 60 seconds below `limit`: our own plus that of others on the same IP address.

    The exchange counts per minute and does not say when its minute begins, so our weight is counted over a sliding
    window. Anything its header reports beyond that is used by others, and is assumed to count for a minute.

    Args:
        limit: what may be used.
        at_once: the share of it that may be used at once. The rest is spread evenly over the time until it is free
            again, so that a long repair never stops to wait, and nothing waits long behind it.
    """

    def __init__(self, limit: int, at_once: float = 1.0) -> None:
        self._limit = limit
        self._at_once = limit * at_once
        self._spent: deque[tuple[float, int]] = deque()
        self._others = (0.0, 0)  # when it was reported, and the weight of others
        self._not_before = 0.0

    @property
    def used(self) -> int:
        """The weight used in the last minute, by us and by others; may be called from any thread."""
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
        """Seconds left of a pause that the exchange has required."""
        return max(0.0, self._not_before - time.monotonic())

    def wait_needed(self, weight: int) -> float:
        """Seconds until a request of `weight` is within the limit, regardless of a pause; 0 if it is now."""
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - _MINUTE:
            self._spent.popleft()
        used, theirs = self.used, self._theirs
        expiring = sorted([*self._spent, (self._others[0], theirs)] if theirs else self._spent)
        if not expiring:
            return 0.0
        room = self._limit - used
        if weight > room:
            return max(0.01, expiring[0][0] + _MINUTE - now)
        if not self._spent or used + weight <= self._at_once:
            return 0.0
        # The highest even rate at which there is always room.
        spacing = _MINUTE * weight / self._limit
        for at, expires in expiring:
            spacing = max(spacing, (at + _MINUTE - now) * weight / room)
            room += expires
        return max(0.0, self._spent[-1][0] + spacing - now)

    def spend(self, weight: int) -> None:
        """Count a request that is being sent."""
        self._spent.append((time.monotonic(), weight))

    def update(self, counted: int) -> None:
        """Set the weight that the exchange has counted for our IP address in its current minute."""
        self._others = (time.monotonic(), max(0, counted - self._ours))

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`, as the exchange requires."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)
