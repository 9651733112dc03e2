"""The live source: a set of connections to one symbol's trade stream, each reopened when it ends."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from loader_ws_trades.binance import disconnects
from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.feed_thread import FeedThread, Slot
from loader_ws_trades.binance.outage import Outage
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.binance.rate_limits import AttemptLimit
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Activity, Deadline, spawn
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.interfaces import FrameReceiver, OnDeath
from loader_ws_trades.text import format_duration, redacted_url

log = logging.getLogger(__name__)

_ATTEMPTS = (300, 300.0)  # the exchange's limit: connection attempts, per seconds
_KEPT = 5  # one in so many attempts is reserved for when no connection is open
_LINES = (30, 600.0)  # log lines of each kind, per seconds: a connection may flap for days
# Seconds from one connection to the next at the start. Otherwise a trade of the second one might be handled first and
# begin the sequence, and earlier ones from the first would be lost.
_OPENED_APART = 1.0
_QUIET_TAKEOVER = 30.0  # seconds after which a new connection takes over even without a trade


class Feed:
    """The trade stream of `settings.symbol`, over `settings.feed_connections` connections at a time.

    Raises:
        ConfigurationError: if the proxy to be used is invalid.

    Each connection has a thread that reads it, or waits to reconnect; `close` ends all. To replace a connection,
    another thread connects, and closes the old one once the new one delivers: the owner calls `tick` and `rotate` for
    that. The ages of several connections are staggered, so that they are not rotated at the same time.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[..., Connection] = Connection,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._proxies = {url: proxy_for(url, os.environ) for url in settings.stream_urls}
        self.stopping = stopping or threading.Event()
        self._limit = AttemptLimit(*_ATTEMPTS)
        self._lines = Throttle(log, *_LINES)
        # Guards `_threads`, their `connection` against `stopping`, and the outage.
        self._lock = threading.Lock()
        self._threads: list[FeedThread] = []  # those whose connection may be open; successors come later
        self._started = 0
        self._outage = Outage()
        self.connections = 0
        """Connections opened so far."""
        self.reconnects = dict.fromkeys(disconnects.REASONS, 0)
        """Reconnects, by why the last connection or attempt ended."""

    def start(
        self, receiver: FrameReceiver, on_death: OnDeath, *, take: Callable[[list[bytes], int], bool] | None = None
    ) -> None:
        """Start to connect.

        Args:
            receiver: takes the frames, and learns which connections are open.
            on_death: gets the exception that ended a thread.
            take: takes the frames instead of `receiver.take`.
        """
        self._receiver = receiver
        self._take = take or receiver.take
        self._on_death = on_death
        self._outage.since = time.monotonic()
        count = self._settings.feed_connections
        for number in range(count):
            slot = Slot(number, list(self._settings.stream_urls))
            self._spawn(slot, None, first_age=1 - number / count, wait=number * _OPENED_APART)

    def close(self) -> None:
        """Stop reading, without waiting; what was read is still passed on. May be called again."""
        with self._lock:
            self.stopping.set()
            for thread in self._threads:
                if thread.connection:
                    thread.connection.close()
                    if thread.opened is None:
                        thread.connection.abort()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for all threads to end; returns whether they have."""
        deadline = Deadline(timeout)
        return all(thread.task is None or thread.task.join(deadline.remaining) for thread in list(self._threads))

    def trouble(self) -> str | None:
        """Why and since when the exchange is not connected; None while it is."""
        return self._outage.text()

    @property
    def opened(self) -> float | None:
        """When the newest open connection was opened (monotonic); None if none is open."""
        return max((thread.opened for thread in list(self._threads) if thread.opened is not None), default=None)

    @property
    def lost(self) -> float | None:
        """When the last open connection ended (monotonic); None while one is open, or before the start."""
        return self._outage.since

    def activities(self) -> list[Activity]:
        """What its threads are doing, until it is closed; may be called from any thread."""
        found = []
        for thread in list(self._threads) if not self.stopping.is_set() else []:
            if not thread.ended:
                found.append(thread.activity)
            elif thread.successor is None:
                found.append(thread.activity._replace(what="been dead", limit=0.0))
        return found

    def announce_end(self, connection: int) -> None:
        """Note that the exchange announced the end of the connection with this number."""
        for thread in list(self._threads):
            if thread.serial == connection and thread.opened is not None:
                thread.announced = True

    def rotate(self, why: str, reason: str = "rotation", connection: int | None = None) -> bool:
        """Replace the connection with this number, or the oldest one; returns whether it can be replaced now.

        It is closed once the new one delivers.
        """
        ready = [thread for thread in self._heads() if thread.opened is not None and thread.predecessor is None]
        if connection is not None:
            ready = [thread for thread in ready if thread.serial == connection]
        if ready:
            self._replace(min(ready, key=lambda thread: thread.opened or 0.0), why, reason)
        return bool(ready)

    def tick(self) -> None:
        """Replace connections that are due, and let successors take over that received no trade; called regularly.

        Raises:
            RunError: if there was no connection for longer than the outage limit.
        """
        if not self._started or self.stopping.is_set():
            return
        self._outage.check(self._settings)
        now = time.monotonic()
        heads = list(self._heads())
        settled = all(head.opened is not None and head.predecessor is None for head in heads)
        for head in heads:
            if head.opened is None:
                continue
            if head.predecessor:
                if now > head.opened + _QUIET_TAKEOVER:
                    self._take_over(head)
            elif head.announced and head.slot.may_replace(now - head.opened):
                self._replace(head, "the exchange announced its shutdown", "server_shutdown")
            elif settled and now > head.rotate_at:
                settled = False
                self._replace(head, "its age", "rotation")

    def keep_only(self, connection: int) -> None:
        """Close all connections but the one with this number, without waiting; they reconnect."""
        with self._lock:
            for thread in self._threads:
                if thread.connection and thread.serial != connection:
                    thread.connection.close()

    def _heads(self) -> Iterator[FeedThread]:
        """The threads without a successor, one for each slot."""
        return (thread for thread in list(self._threads) if thread.successor is None)

    def _replace(self, thread: FeedThread, why: str, reason: str) -> None:
        if self.stopping.is_set():
            return
        self._lines.info("rotating", f"Rotating the connection: {why}", reason=reason)
        self.reconnects[reason] += 1
        self._spawn(thread.slot, thread)

    def _spawn(self, slot: Slot, predecessor: FeedThread | None, *, first_age: float = 1.0, wait: float = 0.0) -> None:
        # Up to a tenth earlier, so that a fleet started at once does not reconnect at once.
        age = first_age * self._settings.max_connection_age * random.uniform(0.9, 1.0)
        with self._lock:
            self._started += 1
            thread = FeedThread(self._started, slot, predecessor, age)
            if predecessor:
                predecessor.successor = thread
            # Forget those that have ended and have a successor.
            self._threads = [each for each in self._threads if each.successor is None or not each.ended]
            self._threads.append(thread)
        thread.task = spawn(f"feed-{thread.number}", lambda: thread.run(self, wait), self._on_death)

    def _take_over(self, thread: FeedThread) -> None:
        with self._lock:
            old, thread.predecessor = thread.predecessor, None
            opened = old.opened if old else None
            if old and old.connection:
                old.connection.close()
        if old:
            lasted = f" after {format_duration(time.monotonic() - opened)}" if opened is not None else ""
            self._lines.info("rotated", f"The new connection has taken over; the old one is closed{lasted}")

    # -- called by the threads

    def attempt_wait(self) -> float:
        """Seconds until another connection attempt is within the exchange's limit; 0 counts the attempt."""
        with self._lock:
            kept = _ATTEMPTS[0] // _KEPT if self._is_open() else 0
            wait = self._limit.wait_needed(kept)
            if not wait:
                self._limit.note()
            return wait

    def make(self, thread: FeedThread, url: str) -> Connection | None:
        """A new connection for the thread; None if the feed is closed."""
        connection = self._connect(
            url,
            partial(self._on_frames, thread),
            partial(self._on_open, thread, url),
            silence_limit=self._settings.feed_silence_limit,
            proxy=self._proxies[url],
        )
        with self._lock:
            if self.stopping.is_set():
                connection.release()
                return None
            thread.connection = connection
        return connection

    def _on_open(self, thread: FeedThread, url: str) -> None:
        thread.set_activity("neither received nor passed on anything", self._settings.feed_silence_limit)
        thread.serial = self._receiver.connect(thread.slot.number)
        now = time.monotonic()
        with self._lock:
            thread.opened, thread.rotate_at, thread.announced = now, now + thread.age, False
            # Only the first connection of a slot has a shorter age; that keeps the slots apart.
            thread.age = self._settings.max_connection_age * random.uniform(0.9, 1.0)
            down_since = self._outage.end()
            number = self.connections = self.connections + 1
        down = now - down_since if number > 1 and down_since is not None else 0.0
        how = f" again after {format_duration(down)}" if down else ""
        self._lines.info("connected", f"Connected to {redacted_url(url)}{how}", connections=number, down=round(down, 3))

    def _on_frames(self, thread: FeedThread, frames: list[bytes]) -> None:
        # The old connection may still deliver trades that precede the first one of the new connection.
        if self._take(frames, thread.serial) and thread.predecessor and self._receiver.in_order():
            self._take_over(thread)

    def on_end(self, thread: FeedThread, ending: Exception | None, lasted: float | None) -> float | None:
        """Seconds to wait before reconnecting; None if the thread was replaced, or the feed is closed."""
        with self._lock:
            thread.connection = thread.opened = None
        if lasted is not None:
            self._receiver.disconnect(thread.serial)
        if self.stopping.is_set():
            return None
        text = disconnects.describe(ending) + (f", after {format_duration(lasted)}" if lasted is not None else "")
        is_down = self._note_down(text)
        if thread.successor is not None:
            if is_down:
                self._lines.warn("disconnected", f"No connection to the exchange: {text}; the new one is connecting")
            return None
        self.reconnects[disconnects.disconnect_reason(ending, opened=lasted is not None)] += 1
        # Other rejections may be temporary while an exchange starts.
        grace_over = time.monotonic() - (self._outage.since or math.inf) >= self._settings.startup_grace
        error = None if self.connections else disconnects.permanent_error(ending)
        if error and (disconnects.is_blocked(ending) or grace_over):
            raise error
        delay = max(thread.slot.backoff.next(), disconnects.retry_after(ending))
        what = "No connection to the exchange" if is_down else "A connection to the exchange ended, another is open"
        self._lines.warn("disconnected", f"{what}: {text}; reconnecting in {delay:.1f} s", delay=round(delay, 3))
        return delay

    def _is_open(self) -> bool:
        return any(thread.opened is not None for thread in self._threads)

    def _note_down(self, reason: str) -> bool:
        """Whether no connection is open; remembers since when, and why."""
        with self._lock:
            if self._is_open():
                return False
            self._outage.begin(reason)
            return True
