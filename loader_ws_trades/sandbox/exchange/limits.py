"""The exchange's limits on its clients."""

import math
import time
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the exchange allows; none switches a limit off. Seconds, unless said otherwise."""

    connection_age: float | None = 24 * 3600.0
    connection_attempts: int | None = 300
    """Handshakes in 5 minutes, per IP."""
    client_frames: int | None = 5
    """Frames a second from a client, its pongs included: who pings at more than that rate must allow more."""
    streams: int = 1024
    """Streams per connection."""
    backlog: int = 64 * 1024 * 1024
    """Bytes kept for a client that is too slow to read; past it, the client is cut off."""
    weight: int = 6000
    """Request weight per window, per IP."""
    weight_window: float = 60.0
    refusals: int = 10
    """429 answers in a window, after which the IP is banned."""
    ban: float = 120.0


class Rolling:
    """Counts events in a rolling window; at most `most` of them may lie within `seconds`."""

    def __init__(self, most: int | None, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allows(self) -> bool:
        """Count one event that happens now, and say whether it is within the limit."""
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
class Refusal:
    """A request is not served: 429, or 418 for an IP that went on all the same."""

    status: int
    retry_after: int


class Weights:
    """The request weight that one IP has used in the present window."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window = 0
        self._refused = 0
        self._banned_until = 0.0
        self._used = 0

    @property
    def used(self) -> int:
        """Weight used in the present window."""
        self._turn(time.monotonic())
        return self._used

    def spend(self, weight: int) -> Refusal | None:
        """Count a request, and say whether it is refused."""
        now = time.monotonic()
        self._turn(now)
        if now < self._banned_until:
            return Refusal(418, math.ceil(self._banned_until - now))
        self._used += weight
        if self._used <= self._limits.weight:
            return None
        self._refused += 1
        if self._refused > self._limits.refusals:
            self._banned_until = now + self._limits.ban
            return Refusal(418, math.ceil(self._limits.ban))
        return Refusal(429, math.ceil((self._window + 1) * self._limits.weight_window - now))

    def _turn(self, now: float) -> None:
        window = int(now / self._limits.weight_window)
        if window != self._window:
            self._window, self._used, self._refused = window, 0, 0
