"""What an exchange has done, in counts and times."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Session:
    """One WebSocket connection, by its number, from 1; the times are monotonic seconds."""

    number: int
    opened: float = field(default_factory=time.monotonic)
    closed: float | None = None
    """When the exchange sent its close frame, or saw the connection end; none: not yet."""

    def end(self) -> None:
        """Note that it is closed, the first time."""
        if self.closed is None:
            self.closed = time.monotonic()


@dataclass(frozen=True)
class Attempt:
    """One WebSocket handshake and the status that it was answered with; none: unanswered."""

    status: int | None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Request:
    """One REST request and the status that it was answered with; none: unanswered."""

    path: str
    status: int | None
    at: float = field(default_factory=time.monotonic)


@dataclass
class Counters:
    """What the exchange has done; counted before it is done, so that whoever sees the effect finds the count."""

    connections: int = 0
    """WebSocket handshakes accepted."""
    refused: int = 0
    """WebSocket handshakes rejected."""
    frames: int = 0
    """Trade frames due to clients; faults may have dropped some and added others."""
    pings: int = 0
    cut_off: int = 0
    """Clients disconnected because they read too slowly."""
    weight: int = 0
    """Request weight used, over all windows and IPs."""
    peak_weight: int = 0
    """The greatest request weight that an IP has used in one window."""
    requests: Counter[str] = field(default_factory=Counter)
    """REST requests, by path."""
    answers: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    """REST requests, by path and the status of the answer; none: not answered."""
    history: list[Request] = field(default_factory=list)
    """REST requests, in order."""
    attempts: list[Attempt] = field(default_factory=list)
    """WebSocket handshakes, in order."""
    sessions: list[Session] = field(default_factory=list)
    """WebSocket connections, in order."""

    def count_answer(self, path: str, status: int | None) -> None:
        """Count the answer to a REST request; none: no answer."""
        self.answers[path, status] += 1
        self.history.append(Request(path, status))

    def count_handshake(self, status: int | None) -> None:
        """Count a WebSocket handshake; none: not answered."""
        self.attempts.append(Attempt(status))
        self.connections += status == 101
        self.refused += status not in {101, None}

    @property
    def most_open(self) -> int:
        """The greatest number of WebSocket connections that were open at the same time."""
        changes = [(session.opened, 1) for session in list(self.sessions)]
        changes += [(session.closed, -1) for session in list(self.sessions) if session.closed is not None]
        most = now_open = 0
        for _, change in sorted(changes):
            now_open += change
            most = max(most, now_open)
        return most

    def most_attempts(self, seconds: float) -> int:
        """Return the greatest number of WebSocket handshakes within any `seconds`."""
        return _most_within((attempt.at for attempt in list(self.attempts)), seconds)

    def most_requests(self, seconds: float) -> int:
        """Return the greatest number of REST requests within any `seconds`."""
        return _most_within((request.at for request in list(self.history)), seconds)


def _most_within(moments: Iterable[float], seconds: float) -> int:
    times = list(moments)
    return max((bisect_left(times, moment + seconds) - place for place, moment in enumerate(times)), default=0)
