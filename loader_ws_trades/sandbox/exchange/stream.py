"""Streams: each market's trades to all its subscribers, encoded once per form."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Iterable
from itertools import count
from typing import Protocol

from loader_ws_trades.sandbox.exchange.frames import Batch, Encoder, Form
from loader_ws_trades.sandbox.market.history import BLOCK
from loader_ws_trades.sandbox.market.market import Market

_TICK = 0.001
_IDLE = 0.25


class Subscriber(Protocol):
    """A client that takes frames."""

    form: Form

    def deliver(self, batches: Iterable[Batch]) -> None:
        """Send frames, without blocking."""

    async def drained(self) -> None:
        """Wait until there is room for more."""


class StreamFaults(Protocol):
    """The faults that strike at a trade."""

    def next_strike(self, market: Market, start: int, stop: int) -> int | None:
        """Return the position before `stop` at which the next fault strikes; none: no fault does."""

    def strike_at(self, market: Market, position: int) -> None:
        """Make those faults strike that are due before the trade at `position` is sent."""


class Stream:
    """One market's subscribers, served by its `Broadcast`.

    By the clock, a slow subscriber builds up its own backlog; flat out, the slowest one sets the pace for all.
    """

    def __init__(self, market: Market, broadcast: Broadcast) -> None:
        self.market = market
        self.encoder = Encoder(market)
        self.subscribers: dict[Subscriber, None] = {}
        self.sent = 0
        """Position of the next trade to send, while there are subscribers."""
        self._broadcast = broadcast

    @property
    def position(self) -> int:
        """Position of the next trade to send."""
        return self.sent if self.subscribers else self.market.issued

    def newest(self, count: int, form: Form) -> bytes:
        """Return the frames of the last `count` trades that were sent."""
        start = max(self.position - count, self.market.sequence_start)
        return b"".join(batch.data for batch in self.encoder.batches(start, self.position, form))

    def add(self, subscriber: Subscriber) -> None:
        """Send `subscriber` what is issued from now on; the first one may start the market."""
        first = not self.subscribers
        if first:
            # Read before the market begins, or its first trades would be missed.
            self.sent = self.market.issued
        self.subscribers[subscriber] = None
        self.market.begin()
        if first:
            self._broadcast.subscribed(self)

    def remove(self, subscriber: Subscriber) -> None:
        """Stop sending to `subscriber`."""
        self.subscribers.pop(subscriber, None)


class Broadcast:
    """Sends what is due on all streams, in one write for each subscriber and turn: a timer for each would cost more."""

    def __init__(self, faults: StreamFaults) -> None:
        self._faults = faults
        self._due: list[tuple[float, int, Stream]] = []
        """When each stream by the clock has its next trade; one without subscribers leaves at its turn."""
        self._waiting: set[Stream] = set()
        self._numbers = count()
        self._pending: dict[Subscriber, list[Batch]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flat_out: dict[Stream, asyncio.Event] = {}

    def subscribed(self, stream: Stream) -> None:
        """Send the trades of a stream that has its first subscriber."""
        if stream.market.flat_out:
            self._flat_out[stream].set()
        elif stream not in self._waiting:
            self._wait(stream, asyncio.get_running_loop().time())
            self._set_timer()

    async def run_flat_out(self, stream: Stream) -> None:
        """Send the trades of a market that runs flat out, until cancelled."""
        subscribed = self._flat_out[stream] = asyncio.Event()
        while True:
            if not stream.subscribers:
                subscribed.clear()
                await subscribed.wait()
            await self._send_block(stream)

    def stop(self) -> None:
        """Send nothing more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        # Each once: a filter is over when its market has passed it, and what is pending has not passed it yet.
        due = []
        while self._due and self._due[0][0] <= now:
            due.append(heapq.heappop(self._due)[-1])
        for stream in due:
            if stream.subscribers:
                self._advance(stream, stream.market.issued)
        self._deliver()
        for stream in due:
            self._waiting.discard(stream)
            if stream.subscribers:
                self._wait(stream, now)
        self._set_timer()

    def _wait(self, stream: Stream, now: float) -> None:
        wait = stream.market.wait(stream.sent)
        # Checked again from time to time: the market's end may be postponed, or a first subscriber may join.
        heapq.heappush(self._due, (now + (wait if wait < math.inf else _IDLE), next(self._numbers), stream))
        self._waiting.add(stream)

    def _set_timer(self) -> None:
        if not self._due:
            return
        loop = asyncio.get_running_loop()
        when = max(self._due[0][0], loop.time() + _TICK)
        if self._timer is None or when < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(when, self._turn)

    async def _send_block(self, stream: Stream) -> None:
        market = stream.market
        stop = (stream.sent // BLOCK + 1) * BLOCK
        if market.size is not None:
            stop = min(stop, market.size)
        if stop == stream.sent:
            await asyncio.sleep(_IDLE)
            return
        market.issue(stop)
        self._advance(stream, stop)
        self._deliver()
        for subscriber in list(stream.subscribers):
            await subscriber.drained()
        await asyncio.sleep(0)

    def _advance(self, stream: Stream, stop: int) -> None:
        while (next_strike := self._faults.next_strike(stream.market, stream.sent, stop)) is not None:
            self._encode(stream, next_strike)
            self._deliver()
            self._faults.strike_at(stream.market, next_strike)
        self._encode(stream, stop)

    def _encode(self, stream: Stream, stop: int) -> None:
        subscribers = stream.subscribers
        for form in {subscriber.form for subscriber in subscribers}:
            batches = stream.encoder.batches(stream.sent, stop, form)
            for subscriber in subscribers:
                if subscriber.form == form:
                    self._pending.setdefault(subscriber, []).extend(batches)
        stream.sent = stop

    def _deliver(self) -> None:
        while self._pending:
            subscriber, batches = self._pending.popitem()
            subscriber.deliver(batches)
