"""The live source: connections to the trade streams of pairs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.feed_context import FeedContext
from loader_ws_trades.binance.feed_thread import FeedThread
from loader_ws_trades.binance.group import Group
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.config.parsers import url_list
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Activity, Deadline
from loader_ws_trades.pipeline.interfaces import FrameReceiver, OnDeath
from loader_ws_trades.pipeline.trade import RejectedFrame


class Feed:
    """The trade streams of `symbols`, or of `settings.symbol`, in groups that share connections.

    Pairs may be added and removed. The owner calls `tick` and, to replace connections, `rotate`; `close` ends all.

    Args:
        settings: the URLs, the limits, and over how many connections at a time each stream comes.
        symbols: the pairs to start with.
        connect: makes a connection.
        stopping: set when it is closed.

    Raises:
        ConfigurationError: if the proxy to be used is invalid.
    """

    def __init__(
        self,
        settings: Settings,
        symbols: Iterable[str] = (),
        *,
        connect: Callable[..., Connection] = Connection,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._bases = url_list(settings.binance_ws_url)
        self.stopping = stopping or threading.Event()
        proxies = {base: proxy_for(base, os.environ) for base in self._bases}
        self._context = FeedContext(settings, connect, proxies, self.stopping)
        self._lock = self._context.lock
        self._is_started = False
        self._made = 0
        self.groups: list[Group] = []
        self._ended: list[Group] = []
        self._by_pair: dict[str, Group] = {}
        self.add(*(symbols or filter(None, [settings.symbol])))

    def start(
        self, receiver: FrameReceiver, on_death: OnDeath, *, take: Callable[[list[bytes], int], bool] | None = None
    ) -> None:
        """Start to connect.

        Args:
            receiver: takes the frames, and learns which connections are open.
            on_death: gets the exception that ended a thread.
            take: takes the frames instead of `receiver.take`.
        """
        self._context.begin(receiver, on_death, take)
        with self._lock:
            self._is_started, groups = True, list(self.groups)
        self._start(groups)

    def _start(self, groups: list[Group]) -> None:
        for place, group in enumerate(groups):
            group.start(place / len(groups))

    def add(self, *symbols: str) -> None:
        """Let pairs join, on connections with room or on new ones; before the start they are only noted."""
        made = []
        with self._lock:
            for symbol in symbols:
                group = next((group for group in reversed(self.groups) if group.has_room(symbol)), None)
                if group is None:
                    group = Group(self._made, self._context, self._bases)
                    self._made += 1
                    made.append(group)
                    self.groups = [*self.groups, group]
                group.add(symbol)
                self._by_pair[symbol] = group
            started = self._is_started and not self.stopping.is_set()
        if started:
            self._start(made)

    def remove(self, symbol: str) -> None:
        """Let a pair leave."""
        with self._lock:
            group = self._by_pair.pop(symbol)
            group.remove(symbol)
            if not group.pairs:
                self.groups = [each for each in self.groups if each is not group]
                self._ended.append(group)

    def group(self, symbol: str) -> int:
        """The number of the group that carries a pair: its pairs share connections."""
        return self._by_pair[symbol].number

    def is_open(self, symbol: str) -> bool:
        """Whether an open connection carries the pair."""
        group = self._by_pair.get(symbol)
        return group is not None and group.carries(symbol)

    def close(self) -> None:
        """Stop reading, without waiting; what was read is still passed on. May be called again."""
        with self._lock:
            self.stopping.set()
            for group in self.groups:
                group.close()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for all threads to end; returns whether they have."""
        deadline = Deadline(timeout)
        threads = [thread for group in (*self.groups, *self._ended) for thread in list(group.threads)]
        return all(thread.task is None or thread.task.join(deadline.remaining) for thread in threads)

    def trouble(self) -> str | None:
        """Why and since when pairs have no connection; None while all have one."""
        down = [(since, group) for group in self.groups if (since := group.outage.since) is not None]
        if not down:
            return None
        text, pairs = min(down, key=lambda each: each[0])[1].outage.text(), sum(len(group.pairs) for _, group in down)
        return f"{text}, for {pairs} of {len(self._by_pair)} pairs" if text and self._settings.many else text

    def _threads(self) -> list[FeedThread]:
        return [thread for group in self.groups for thread in list(group.threads)]

    @property
    def connections(self) -> int:
        """Connections opened so far."""
        return self._context.connections

    @property
    def reconnects(self) -> dict[str, int]:
        """Reconnects, by why the last connection or attempt ended."""
        return self._context.reconnects

    @property
    def opened(self) -> float | None:
        """When the newest open connection was opened (monotonic); None if none is open."""
        opened = (thread.opened for thread in self._threads())
        return max((each for each in opened if each is not None), default=None)

    @property
    def lost(self) -> float | None:
        """Since when (monotonic) pairs have had no connection; None while all have one, or before the start."""
        return min((since for group in self.groups if (since := group.outage.since) is not None), default=None)

    def activities(self) -> list[Activity]:
        """What its threads are doing, until it is closed; may be called from any thread."""
        found = []
        for thread in self._threads():
            if self.stopping.is_set():
                return []
            if not thread.ended:
                found.append(thread.activity)
            elif thread.successor is None:
                found.append(thread.activity._replace(what="been dead", limit=0.0))
        return found

    def announce_end(self, connection: int) -> None:
        """Note that the exchange announced the end of the connection with this number."""
        for group in self.groups:
            group.announce_end(connection)

    def note_answer(self, frame: RejectedFrame, connection: int) -> bool:
        """Take the exchange's answer to a message; returns whether it is one to ours."""
        return any(group.note_answer(frame, connection) for group in self.groups)

    def rotate(
        self, why: str, reason: str = "rotation", connection: int | None = None, symbol: str | None = None
    ) -> bool:
        """Replace a connection: the one with this number, or the oldest that carries this pair, or the oldest.

        It is closed once the new one delivers. Returns whether it can be replaced now.
        """
        groups = self.groups if symbol is None else [self._by_pair[symbol]]
        ready = [
            (thread.opened, thread.number, thread, group)
            for group in groups
            for thread in group.heads()
            if thread.opened is not None and thread.predecessor is None
            if connection is None or thread.serial == connection
        ]
        if ready:
            _, _, thread, group = min(ready)
            group.replace(thread, why, reason)
        return bool(ready)

    def note_delivery_time(self, seconds: float) -> None:
        """Read quick streams no faster than trades are delivered; two connections bring them out of step."""
        seconds *= self._settings.feed_connections
        for thread in self._threads():
            if connection := thread.connection:
                connection.note_delivery_time(seconds)

    def tick(self) -> None:
        """Replace connections that are due, let successors take over, subscribe; called regularly.

        Raises:
            RunError: if pairs had no connection for longer than the outage limit.
        """
        if self._is_started and not self.stopping.is_set():
            for group in self.groups:
                group.tick()

    def keep_only(self, connection: int) -> None:
        """Close the other connections of the same pairs as this one, without waiting; they reconnect."""
        for group in self.groups:
            if any(thread.serial == connection for thread in list(group.threads)):
                group.keep_only(connection)
