"""Rate limits of the exchange."""

import math
import time
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The exchange's limits; none disables one. Times in seconds."""

    connection_age: float | None = 24 * 3600.0
    connection_attempts: int | None = 300
    """Handshakes in 5 minutes, per IP."""
    client_frames: int | None = 5
    """Frames a second from a client, pongs included: to ping faster than that, raise it."""
    message_spacing: float | None = 0.25
    """Least time between two messages (not pongs) of a client, which is disconnected for less."""
    streams: int = 1024
    """Streams per connection."""
    url: int = 8000
    """Characters of a stream's URL."""
    backlog: int = 64 * 1024 * 1024
    """Bytes buffered for a slow client, which is disconnected beyond it."""
    weight: int = 6000
    """Request weight per window, per IP."""
    weight_window: float = 60.0
    refusals: int = 10
    """429 answers in a window, after which the IP is banned."""
    ban: float = 120.0


class RollingLimit:
    """Allows at most `most` events in any `seconds`."""

    def __init__(self, most: int | None, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allows(self) -> bool:
        """Count an event that happens now, and return whether it is within the limit."""
        if self._most is None:
            return True
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] <= now - self._seconds:
            self._times.popleft()
        return len(self._times) <= self._most

    def wait(self) -> int:
        """Return the whole seconds until the oldest event leaves the window."""
        return math.ceil(max(self._times[0] + self._seconds - time.monotonic(), 0)) if self._times else 0


@dataclass(frozen=True)
class Rejection:
    """A request is rejected: 429, or 418 for an IP that did not back off."""

    status: int
    retry_after: int


class WeightWindow:
    """The request weight that one IP has used in the current window."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window = 0
        self._rejected = 0
        self._banned_until = 0.0
        self._used = 0

    @property
    def used(self) -> int:
        """Weight used in the current window."""
        self._roll_over(time.monotonic())
        return self._used

    def spend(self, weight: int) -> Rejection | None:
        """Count a request, and return a rejection if it exceeds the limit."""
        now = time.monotonic()
        self._roll_over(now)
        if now < self._banned_until:
            return Rejection(418, math.ceil(self._banned_until - now))
        self._used += weight
        if self._used <= self._limits.weight:
            return None
        self._rejected += 1
        if self._rejected > self._limits.refusals:
            self._banned_until = now + self._limits.ban
            return Rejection(418, math.ceil(self._limits.ban))
        return Rejection(429, math.ceil((self._window + 1) * self._limits.weight_window - now))

    def _roll_over(self, now: float) -> None:
        window = int(now / self._limits.weight_window)
        if window != self._window:
            self._window, self._used, self._rejected = window, 0, 0
