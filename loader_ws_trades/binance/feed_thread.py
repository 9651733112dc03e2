"""One thread of the feed: reads a connection, and reconnects when it ends, until a successor takes over."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.subscriptions import Subscriptions
from loader_ws_trades.binance.transport import CONNECT_LIMIT
from loader_ws_trades.lifecycle import SLACK, Activity, Backoff, Task

# Seconds that a connection must last to reset the delays. Trades do not count: an exchange that keeps cutting us off
# must not see an attempt per second. Twice the cap, so that attempts are then as rare as at the cap.
_LASTED = 60.0
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay between attempts
_FIRST_PAUSE, _PAUSE_CAP = 10.0, 300.0  # seconds; the same between replacements of connections whose end was announced
_CALM = 600.0  # seconds that a connection must last to reset those pauses
_NAME_LIMIT = 120.0  # seconds after which even the slowest name resolution has failed
_LOOK = 1.0  # seconds between checks whether the limit on attempts still applies


class Slot:
    """One of the wanted connections of a group: the state that its threads share, one after the other.

    Args:
        number: from 0.
        bases: base URLs; each attempt uses the next one, and each slot starts with a different one.
    """

    def __init__(self, number: int, bases: list[str]) -> None:
        self.number = number
        self._bases = bases
        self._attempts = number
        self.backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._pauses = Backoff(_FIRST_PAUSE, _PAUSE_CAP)
        self._replace_from = -math.inf

    def next_base(self) -> str:
        """The base URL for the next attempt."""
        self._attempts += 1
        return self._bases[(self._attempts - 1) % len(self._bases)]

    def may_replace(self, lasted: float) -> bool:
        """Whether a connection whose end was announced after `lasted` seconds may be replaced now; counts it if so.

        Servers that shut down announce it on each new connection too.
        """
        now = time.monotonic()
        if now < self._replace_from:
            return False
        if lasted >= _CALM:
            self._pauses.reset()
        self._replace_from = now + self._pauses.next()
        return True


class Owner(Protocol):
    """What a thread needs of its group; called in the thread."""

    stopping: threading.Event

    def attempt_wait(self) -> float:
        """Seconds until another connection attempt is within the exchange's limit; 0 counts the attempt."""

    def make(self, thread: FeedThread) -> Connection | None:
        """A new connection for the thread; None if its group has ended, or the feed is closed."""

    def on_end(self, thread: FeedThread, ending: Exception | None, lasted: float | None) -> float | None:
        """Seconds to wait before reconnecting; None if the thread was replaced, or will not."""


class FeedThread:
    """A connection of `slot`, and the thread that runs it.

    Args:
        number: of the thread.
        slot: the connection's slot.
        predecessor: the thread that it replaces once it delivers.
        age: seconds after which it is due for rotation.
    """

    def __init__(self, number: int, slot: Slot, predecessor: FeedThread | None, age: float) -> None:
        self.number = number
        self.slot = slot
        self.predecessor = predecessor
        self.successor: FeedThread | None = None
        self.task: Task | None = None
        self.connection: Connection | None = None
        self.carried: Subscriptions | None = None
        """What the connection carries."""
        self.serial = 0
        """The open connection's number, for the receiver of its frames."""
        self.opened: float | None = None
        """When it was opened (monotonic); None while it is not open."""
        self.age = age
        self.rotate_at = math.inf
        self.announced = False
        """Whether the exchange announced the end of the open connection."""
        self.set_activity("not started", 0.0)

    def set_activity(self, what: str, limit: float) -> None:
        """Set what the thread is doing from now on, and how many seconds that may take."""
        self._activity = Activity(f"The thread feed-{self.number}", what, time.monotonic(), limit + SLACK)

    @property
    def ended(self) -> bool:
        """Whether the thread was started and has ended."""
        return self.task is not None and self.task.join(0)

    @property
    def activity(self) -> Activity:
        """What the thread is doing."""
        connection = self.connection  # read before the activity, which is set before a connection is taken away
        activity = self._activity
        return activity._replace(since=max(activity.since, connection.last_received)) if connection else activity

    def run(self, group: Owner, wait: float = 0.0) -> None:
        """Connect after a `wait`, read and reconnect until a successor takes over or the feed is closed."""
        self.set_activity("been waiting to connect", wait)
        group.stopping.wait(wait)
        while self.successor is None and not group.stopping.is_set():
            while wait := group.attempt_wait():
                self.set_activity("been waiting for the limit on connection attempts", wait)
                if group.stopping.wait(min(wait, _LOOK)) or self.successor is not None:
                    return
            connection = group.make(self)
            if connection is None:
                return
            self.set_activity("been connecting", CONNECT_LIMIT + _NAME_LIMIT)
            ending = connection.run()
            self.set_activity("been closing a connection", 0.0)
            lasted = time.monotonic() - self.opened if self.opened is not None else None
            if lasted is not None and lasted >= _LASTED:
                self.slot.backoff.reset()
            delay = group.on_end(self, ending, lasted)
            if delay is None:
                return
            self.set_activity("been waiting to reconnect", delay)
            group.stopping.wait(delay)
