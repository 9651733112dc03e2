"""A clock that a test moves: time passes only where the code under test waits, or the test says so."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import pytest

from loader_ws_trades.lifecycle import Wakeup


class FakeClock:
    """Stands for `time.monotonic`. A wait on one of its events runs what is due meanwhile, and takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Run `action` once `seconds` have passed."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), action))

    def advance(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let `seconds` pass, or fewer if `until` becomes true; what is due runs in its order."""
        end = self.now + seconds
        while not until():
            if not self._due or self._due[0][0] > end:
                self.now = end
                return
            self.now, _, action = heapq.heappop(self._due)
            action()

    def event(self) -> FakeEvent:
        """An event whose `wait` moves this clock."""
        return FakeEvent(self)

    def wakeup(self) -> FakeWakeup:
        """A wake-up whose `wait` moves this clock."""
        return FakeWakeup(self)


class FakeEvent(threading.Event):
    """Give it to code that waits. A wait without a timeout must be ended by something that is due."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Let the clock run until the event is set, for at most `timeout` seconds."""
        self._clock.advance(3600.0 if timeout is None else max(0.0, timeout), self.is_set)
        assert timeout is not None or self.is_set(), "a wait without end"
        return self.is_set()


class FakeWakeup(Wakeup):
    """Give it to code that waits."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float) -> None:
        """Let the clock run until it is set, for at most `timeout` seconds."""
        self._clock.advance(timeout, lambda: not self._calls.empty())
        super().wait(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A clock in place of `time.monotonic` for whatever looks it up as `time.monotonic()`."""
    fake = FakeClock()
    monkeypatch.setattr(time, "monotonic", lambda: fake.now)
    return fake
