"""A market's stream: sends its trades to all subscribers, encoded once per form."""

import asyncio
from typing import Protocol

from loader_ws_trades.sandbox.exchange.frames import Batch, Encoder, Form
from loader_ws_trades.sandbox.market.history import BLOCK
from loader_ws_trades.sandbox.market.market import Market

_TICK = 0.001
_IDLE = 0.25


class Subscriber(Protocol):
    """A client that takes frames."""

    form: Form

    def deliver(self, batch: Batch) -> None:
        """Send frames, without blocking."""

    async def drained(self) -> None:
        """Wait until there is room for more."""


class StreamFaults(Protocol):
    """The faults that strike at a trade."""

    def next_strike(self, market: Market, start: int, stop: int) -> int | None:
        """Return the position before `stop` at which the next fault strikes; none: no fault does."""

    def strike_at(self, position: int) -> None:
        """Make those faults strike that are due before the trade at `position` is sent."""


class Stream:
    """One market's subscribers, served by `run` in the exchange's event loop.

    By the clock, a slow subscriber builds up its own backlog; flat out, the slowest one sets the pace for all.
    """

    def __init__(self, market: Market, faults: StreamFaults) -> None:
        self.market = market
        self._faults = faults
        self._encoder = Encoder(market)
        self._subscribers: dict[Subscriber, None] = {}
        self._position = 0
        self._subscribed = asyncio.Event()

    @property
    def position(self) -> int:
        """Position of the next trade to send."""
        return self._position if self._subscribers else self.market.issued

    def newest(self, count: int, form: Form) -> bytes:
        """Return the frames of the last `count` trades that were sent."""
        start = max(self.position - count, self.market.sequence_start)
        return b"".join(batch.data for batch in self._encoder.batches(start, self.position, form))

    def add(self, subscriber: Subscriber) -> None:
        """Send `subscriber` what is issued from now on; the first one may start the market."""
        if not self._subscribers:
            # Read before the market begins, or its first trades would be missed.
            self._position = self.market.issued
            self._subscribed.set()
        self._subscribers[subscriber] = None
        self.market.begin()

    def remove(self, subscriber: Subscriber) -> None:
        """Stop sending to `subscriber`."""
        self._subscribers.pop(subscriber, None)
        if not self._subscribers:
            self._subscribed.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        turn = self._flat_out if self.market.flat_out else self._by_the_clock
        while True:
            await self._subscribed.wait()
            await turn()

    async def _by_the_clock(self) -> None:
        self._advance(self.market.issued)
        await asyncio.sleep(min(max(self.market.wait(self._position), _TICK), _IDLE))

    async def _flat_out(self) -> None:
        stop = (self._position // BLOCK + 1) * BLOCK
        if self.market.size is not None:
            stop = min(stop, self.market.size)
        if stop == self._position:
            await asyncio.sleep(_IDLE)
            return
        self.market.issue(stop)
        self._advance(stop)
        for subscriber in list(self._subscribers):
            await subscriber.drained()
        await asyncio.sleep(0)

    def _advance(self, stop: int) -> None:
        while (next_strike := self._faults.next_strike(self.market, self._position, stop)) is not None:
            self._send(next_strike)
            self._faults.strike_at(next_strike)
        self._send(stop)

    def _send(self, stop: int) -> None:
        for form in {subscriber.form for subscriber in self._subscribers}:
            for batch in self._encoder.batches(self._position, stop, form):
                for subscriber in [one for one in self._subscribers if one.form == form]:
                    subscriber.deliver(batch)
        self._position = stop
