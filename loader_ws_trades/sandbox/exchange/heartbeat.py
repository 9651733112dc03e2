"""The pings that one client gets, and the pongs that it owes."""

import asyncio
import time
from collections.abc import Callable


class Heartbeat:
    """Pings at an interval, and says so when a pong is overdue."""

    def __init__(
        self, interval: float, timeout: float, ping: Callable[[bytes], bool], overdue: Callable[[], None]
    ) -> None:
        """Times in seconds; `ping` sends one with that payload, or returns false if it cannot."""
        self._interval = interval
        self._timeout = timeout
        self._ping = ping
        self._overdue = overdue
        self._next: asyncio.TimerHandle | None = None
        self._unanswered: dict[bytes, asyncio.TimerHandle] = {}

    def begin(self) -> None:
        """Ping after an interval, and then again and again."""
        self._next = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def pong(self, payload: bytes) -> None:
        """Take a pong; it answers the pings before its own as well (RFC 6455, 5.5.3)."""
        if payload in self._unanswered:
            for earlier in list(self._unanswered):
                self._unanswered.pop(earlier).cancel()
                if earlier == payload:
                    break

    def forgive(self) -> None:
        """Expect no pong for the pings so far."""
        for timer in self._unanswered.values():
            timer.cancel()
        self._unanswered.clear()

    def end(self) -> None:
        """Ping no more."""
        if self._next is not None:
            self._next.cancel()
        self.forgive()

    def _beat(self) -> None:
        payload = str(time.time_ns() // 1000).encode()
        if self._ping(payload):
            loop = asyncio.get_running_loop()
            self._unanswered[payload] = loop.call_later(self._timeout, self._overdue)
        self.begin()
