"""What all connections of a feed share: their limits, their numbers, and where their frames go."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from loader_ws_trades.binance import disconnects
from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.proxies import Proxy
from loader_ws_trades.binance.rate_limits import AttemptLimit
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.interfaces import FrameReceiver, OnDeath

log = logging.getLogger(__name__)

_ATTEMPTS = (300, 300.0)  # the exchange's limit: connection attempts, per seconds
_KEPT = 5  # every fifth attempt is reserved for when no connection is open
_LINES = (30, 600.0)  # log lines of each kind, per seconds: a connection may flap for days


@dataclass
class FeedContext:
    """Made by the feed, used by its groups."""

    settings: Settings
    connect: Callable[..., Connection]
    proxies: Mapping[str, Proxy | None]
    """By base URL."""
    stopping: threading.Event
    lines: Throttle = field(default_factory=lambda: Throttle(log, *_LINES))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """For threads and messages."""
    # Guards the attempts, and in each group the pairs, the threads, their `connection` against `stopping`, what they
    # carry, and the outage.
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: int = 0
    """Connections opened so far."""
    reconnects: dict[str, int] = field(default_factory=lambda: dict.fromkeys(disconnects.REASONS, 0))
    _attempts: AttemptLimit = field(default_factory=lambda: AttemptLimit(*_ATTEMPTS))

    def begin(
        self, receiver: FrameReceiver, on_death: OnDeath, take: Callable[[list[bytes], int], bool] | None
    ) -> None:
        """Set where the frames go, and exceptions that end a thread."""
        self.receiver, self.on_death, self.take = receiver, on_death, take or receiver.take

    def attempt_wait(self, *, kept: bool) -> float:
        """Seconds until another connection attempt is within the limit; 0 counts it. Under the lock.

        Args:
            kept: whether it can wait, so that some attempts are kept for those that cannot.
        """
        wait = self._attempts.wait_needed(_ATTEMPTS[0] // _KEPT if kept else 0)
        if not wait:
            self._attempts.note()
        return wait
