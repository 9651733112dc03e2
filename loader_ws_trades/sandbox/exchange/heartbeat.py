"""Pings to one client, and the pongs that are due."""

import asyncio
import time
from collections.abc import Callable


class Heartbeat:
    """Pings at an interval, and reports an overdue pong."""

    def __init__(
        self, interval: float, timeout: float, ping: Callable[[bytes], bool], overdue: Callable[[], None]
    ) -> None:
        """Times in seconds; `ping` sends a ping with that payload, or returns false if it cannot."""
        self._interval = interval
        self._timeout = timeout
        self._ping = ping
        self._overdue = overdue
        self._next: asyncio.TimerHandle | None = None
        self._unanswered: dict[bytes, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """Ping at each interval from now on."""
        self._next = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def pong(self, payload: bytes) -> None:
        """Process a pong; it answers all earlier pings too (RFC 6455, 5.5.3)."""
        if payload in self._unanswered:
            for earlier in list(self._unanswered):
                self._unanswered.pop(earlier).cancel()
                if earlier == payload:
                    break

    def forget_pings(self) -> None:
        """Expect no pong for the pings so far."""
        for timer in self._unanswered.values():
            timer.cancel()
        self._unanswered.clear()

    def stop(self) -> None:
        """Stop pinging."""
        if self._next is not None:
            self._next.cancel()
        self.forget_pings()

    def _beat(self) -> None:
        payload = str(time.time_ns() // 1000).encode()
        if self._ping(payload):
            loop = asyncio.get_running_loop()
            self._unanswered[payload] = loop.call_later(self._timeout, self._overdue)
        self.start()
