"""What is to be done at which time, in an event loop that may end and be followed by another."""

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count


class Agenda:
    """Does things when their time has come; what falls due while no event loop runs is done when one begins."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a time."""
        heapq.heappush(self._entries, (time.monotonic() + seconds, next(self._numbers), action))
        self.go_on()

    def clear(self) -> None:
        """Do nothing of what is left."""
        self._entries.clear()

    def go_on(self) -> None:
        """Do what is due, and the rest in the present event loop."""
        while self._entries and self._entries[0][0] <= time.monotonic():
            heapq.heappop(self._entries)[-1]()
        if self._timer is not None:
            self._timer.cancel()
        if self._entries:
            wait = max(self._entries[0][0] - time.monotonic(), 0)
            self._timer = asyncio.get_running_loop().call_later(wait, self.go_on)
