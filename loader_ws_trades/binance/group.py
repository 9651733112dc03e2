"""The connections that carry the streams of a group of pairs, each reopened when it ends."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from functools import partial

from loader_ws_trades.binance import disconnects
from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.feed_context import FeedContext
from loader_ws_trades.binance.feed_thread import FeedThread, Slot
from loader_ws_trades.binance.outage import Outage
from loader_ws_trades.binance.stream_urls import combined_url, length_in_url, stream_url
from loader_ws_trades.binance.subscriptions import Subscriptions
from loader_ws_trades.lifecycle import spawn
from loader_ws_trades.pipeline.trade import ACKNOWLEDGEMENT, RejectedFrame
from loader_ws_trades.text import counted, format_duration, redacted_url

_PAIRS = 200  # pairs of a group at most; the exchange allows 1,024 streams on a connection
_URL_LENGTH = 7000  # characters that their streams may have in a URL; the exchange takes URLs of 8,000
# Seconds from one connection to the next at the start. Otherwise a trade of the second one might be handled first and
# begin the sequence, and earlier ones from the first would be lost.
_OPENED_APART = 1.0
_QUIET_TAKEOVER = 30.0  # seconds after which a new connection takes over even without a trade
# Seconds that an old connection with several pairs stays open beside a new one: a trade of one pair says nothing about
# the others, whose trades may still be on their way.
_OVERLAP = 5.0


class Group:
    """Connections that carry the same pairs, `FEED_CONNECTIONS` at a time; the group ends with its last pair.

    Each connection has a thread that reads it, or waits to reconnect. To replace a connection, another thread connects,
    and closes the old one once the new one delivers. The ages of several connections are staggered, so that they are
    not rotated at the same time.

    Args:
        number: of the group, from 0.
        feed: what it shares with others.
        bases: base URLs of the streams.
    """

    def __init__(self, number: int, feed: FeedContext, bases: list[str]) -> None:
        self.number = number
        self.stopping = feed.stopping
        self.threads: list[FeedThread] = []
        """Those whose connection may be open; successors come later."""
        self.outage = Outage()
        self.pairs: dict[str, None] = {}
        self._feed = feed
        self._settings = feed.settings
        self._bases = bases
        self._lock = feed.lock
        self._lines = feed.lines
        self._opened = 0  # connections so far
        self._version = 0  # changes with the pairs
        self._length = 0  # characters of their streams in a URL

    def has_room(self, symbol: str) -> bool:
        """Whether a pair can join."""
        return len(self.pairs) < _PAIRS and self._length + length_in_url(symbol) <= _URL_LENGTH

    def add(self, symbol: str) -> None:
        """Let a pair join; under the lock."""
        self.pairs[symbol] = None
        self._length += length_in_url(symbol)
        self._version += 1

    def remove(self, symbol: str) -> None:
        """Let a pair leave; under the lock."""
        del self.pairs[symbol]
        self._length -= length_in_url(symbol)
        self._version += 1
        if not self.pairs:
            self.close()

    def start(self, place: float) -> None:
        """Start to connect; `place` from 0 to 1 among the groups started now staggers the ages."""
        self.outage.since = time.monotonic()
        count = self._settings.feed_connections
        for number in range(count):
            slot = Slot(number, self._bases)
            self._spawn(slot, None, first_age=1 - (number + place) / count, wait=number * _OPENED_APART)

    def close(self) -> None:
        """Stop reading, without waiting; under the lock."""
        for thread in self.threads:
            if thread.connection:
                thread.connection.close()
                if thread.opened is None:
                    thread.connection.abort()

    def carries(self, symbol: str) -> bool:
        """Whether an open connection carries a pair."""
        return any(
            thread.opened is not None and thread.carried is not None and symbol in thread.carried.pairs
            for thread in list(self.threads)
        )

    @property
    def of(self) -> str:
        """How many pairs it has, to be added to a sentence; empty in a feed for one pair."""
        return f" for {counted(len(self.pairs), 'pair')}" if self._settings.many else ""

    def note_answer(self, frame: RejectedFrame, connection: int) -> bool:
        """Take the exchange's answer to a message; returns whether it is one to ours."""
        joined: list[str] | None = None
        with self._lock:
            for thread in self.threads:
                if thread.serial == connection and thread.carried:
                    joined = thread.carried.answer(frame.detail, accepted=frame.kind == ACKNOWLEDGEMENT)
        if joined:
            self._feed.receiver.add_streams(connection, joined)
        return joined is not None

    def announce_end(self, connection: int) -> None:
        """Note that the exchange announced the end of the connection with this number."""
        for thread in list(self.threads):
            if thread.serial == connection and thread.opened is not None:
                thread.announced = True

    def tick(self) -> None:
        """Do what is due: replace connections, let successors take over, subscribe.

        Raises:
            RunError: if there was no connection for longer than the outage limit.
        """
        self.outage.check(self._settings.feed_outage_limit, lambda: self._place(self._bases[0]))
        now = time.monotonic()
        heads = list(self.heads())
        settled = all(head.opened is not None and head.predecessor is None for head in heads)
        for head in heads:
            if head.opened is None:
                continue
            if head.predecessor:
                if now > head.opened + _QUIET_TAKEOVER:
                    self._take_over(head)
            elif head.announced and head.slot.may_replace(now - head.opened):
                self.replace(head, "the exchange announced its shutdown", "server_shutdown")
            elif settled and now > head.rotate_at:
                settled = False
                self.replace(head, "its age", "rotation")
        with self._lock:
            for thread in self.threads:
                if thread.opened is not None and thread.connection and thread.carried:
                    message = thread.carried.message(self.pairs, self._version)
                    if message:
                        thread.connection.send(message)

    def keep_only(self, connection: int) -> None:
        """Close all connections but the one with this number, without waiting; they reconnect."""
        with self._lock:
            for thread in self.threads:
                if thread.connection and thread.serial != connection:
                    thread.connection.close()

    def heads(self) -> Iterator[FeedThread]:
        """The threads without a successor, one for each slot."""
        return (thread for thread in list(self.threads) if thread.successor is None)

    def replace(self, thread: FeedThread, why: str, reason: str) -> None:
        """Replace a connection by another one."""
        if self.stopping.is_set():
            return
        self._lines.info("rotating", f"Rotating the connection: {why}", reason=reason)
        self._feed.reconnects[reason] += 1
        self._spawn(thread.slot, thread)

    def _spawn(self, slot: Slot, predecessor: FeedThread | None, *, first_age: float = 1.0, wait: float = 0.0) -> None:
        # Up to a tenth earlier, so that a fleet started at once does not reconnect at once.
        age = first_age * self._settings.max_connection_age * random.uniform(0.9, 1.0)
        with self._lock:
            thread = FeedThread(next(self._feed.numbers), slot, predecessor, age)
            if predecessor:
                predecessor.successor = thread
            # Forget those that have ended and have a successor.
            self.threads = [each for each in self.threads if each.successor is None or not each.ended]
            self.threads.append(thread)
        thread.task = spawn(f"feed-{thread.number}", lambda: thread.run(self, wait), self._feed.on_death)

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
            return self._feed.attempt_wait(kept=self.is_open())

    def make(self, thread: FeedThread) -> Connection | None:
        """A new connection for the thread; None if the group has ended, or the feed is closed."""
        base = thread.slot.next_base()
        with self._lock:
            url = stream_url(base, self.pairs, combined=self._settings.many)
            carried = Subscriptions(self.pairs, self._version, self._feed.numbers, self._lines)
        connection = self._feed.connect(
            url,
            partial(self._on_frames, thread),
            partial(self._on_open, thread, base),
            silence_limit=self._settings.feed_silence_limit,
            proxy=self._feed.proxies[base],
            sends=self._settings.many,
        )
        with self._lock:
            if self.stopping.is_set() or not self.pairs:
                return None
            thread.connection, thread.carried = connection, carried
        return connection

    def _place(self, base: str) -> str:
        """What a connection is to, for people."""
        return redacted_url(combined_url(base) if self._settings.many else stream_url(base, self.pairs)) + self.of

    def _on_open(self, thread: FeedThread, base: str) -> None:
        thread.set_activity("neither received nor passed on anything", self._settings.feed_silence_limit)
        feed, carried = self._feed, list(thread.carried.pairs) if thread.carried else []
        thread.serial = feed.receiver.connect(thread.slot.number, carried)
        now = time.monotonic()
        with self._lock:
            thread.opened, thread.rotate_at, thread.announced = now, now + thread.age, False
            # Only the first connection of a slot has a shorter age; that keeps the slots apart.
            thread.age = self._settings.max_connection_age * random.uniform(0.9, 1.0)
            down_since = self.outage.end()
            number = feed.connections = feed.connections + 1
            self._opened += 1
        down = now - down_since if self._opened > 1 and down_since is not None else 0.0
        how = f" again after {format_duration(down)}" if down else ""
        self._lines.info("connected", f"Connected to {self._place(base)}{how}", connections=number, down=round(down, 3))

    def _on_frames(self, thread: FeedThread, frames: list[bytes]) -> None:
        # The old connection may still deliver trades that precede the first one of the new connection.
        if self._feed.take(frames, thread.serial) and thread.predecessor and self._may_take_over(thread):
            self._take_over(thread)

    def _may_take_over(self, thread: FeedThread) -> bool:
        overlap = _OVERLAP if len(self.pairs) > 1 else 0.0
        is_time = thread.opened is not None and time.monotonic() >= thread.opened + overlap
        return is_time and self._feed.receiver.in_order(thread.serial)

    def on_end(self, thread: FeedThread, ending: Exception | None, lasted: float | None) -> float | None:
        """Seconds to wait before reconnecting; None if the thread was replaced, or the feed is closed."""
        with self._lock:
            thread.connection = thread.opened = thread.carried = None
        if lasted is not None:
            self._feed.receiver.disconnect(thread.serial)
        if self.stopping.is_set() or not self.pairs:
            return None
        text = disconnects.describe(ending) + (f", after {format_duration(lasted)}" if lasted is not None else "")
        is_down = self._note_down(text)
        if thread.successor is not None:
            if is_down:
                self._lines.warn(
                    "disconnected", f"No connection to the exchange{self.of}: {text}; the new one is connecting"
                )
            return None
        self._feed.reconnects[disconnects.disconnect_reason(ending, opened=lasted is not None)] += 1
        # Other rejections may be temporary while an exchange starts.
        grace_over = time.monotonic() - (self.outage.since or math.inf) >= self._settings.startup_grace
        error = None if self._feed.connections else disconnects.permanent_error(ending)
        if error and (disconnects.is_blocked(ending) or grace_over):
            raise error
        delay = max(thread.slot.backoff.next(), disconnects.retry_after(ending))
        what = f"No connection to the exchange{self.of}"
        if not is_down:
            what = f"A connection to the exchange{self.of} ended (another is open)"
        self._lines.warn("disconnected", f"{what}: {text}; reconnecting in {delay:.1f} s", delay=round(delay, 3))
        return delay

    def is_open(self) -> bool:
        """Whether a connection is open."""
        return any(thread.opened is not None for thread in self.threads)

    def _note_down(self, reason: str) -> bool:
        """Whether no connection is open; remembers since when, and why."""
        with self._lock:
            if self.is_open():
                return False
            self.outage.begin(reason)
            return True
