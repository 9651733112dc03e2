"""A market's stream: hands out what the market issues to all who subscribed, encoded once for each form."""

import asyncio
from typing import Protocol

from loader_ws_trades.sandbox.exchange.frames import Batch, Encoder, Form
from loader_ws_trades.sandbox.market.history import BLOCK
from loader_ws_trades.sandbox.market.market import Market

_TICK = 0.001
_IDLE = 0.25


class Subscriber(Protocol):
    """Who can take frames."""

    form: Form

    def deliver(self, batch: Batch) -> None:
        """Take frames; does not block."""

    async def drained(self) -> None:
        """Wait until there is room for more."""


class StreamFaults(Protocol):
    """The faults that strike at a trade."""

    def mark(self, market: Market, start: int, stop: int) -> int | None:
        """Return the position before `stop` at which the next fault strikes; none: no fault does."""

    def reach(self, position: int) -> None:
        """Let strike what is due before the trade at `position` goes out."""


class Stream:
    """One market's subscribers, served by `run` in the exchange's event loop.

    In step with the clock a subscriber that is too slow piles up a backlog of its own; flat out, the slowest one sets
    the pace for all.
    """

    def __init__(self, market: Market, faults: StreamFaults) -> None:
        self.market = market
        self._faults = faults
        self._encoder = Encoder(market)
        self._subscribers: dict[Subscriber, None] = {}
        self._position = 0
        self._wanted = asyncio.Event()

    @property
    def position(self) -> int:
        """Position of the trade that goes out next."""
        return self._position if self._subscribers else self.market.issued

    def newest(self, count: int, form: Form) -> bytes:
        """Return the frames of the last `count` trades that went out."""
        start = max(self.position - count, self.market.opening)
        return b"".join(batch.data for batch in self._encoder.batches(start, self.position, form))

    def add(self, subscriber: Subscriber) -> None:
        """Send `subscriber` what is issued from now on; the first one of all may set the market going."""
        if not self._subscribers:
            # Read before the market begins, or its first trades would be missed.
            self._position = self.market.issued
            self._wanted.set()
        self._subscribers[subscriber] = None
        self.market.begin()

    def remove(self, subscriber: Subscriber) -> None:
        """Send `subscriber` nothing more."""
        self._subscribers.pop(subscriber, None)
        if not self._subscribers:
            self._wanted.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        turn = self._flat_out if self.market.flat_out else self._by_the_clock
        while True:
            await self._wanted.wait()
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
        while (mark := self._faults.mark(self.market, self._position, stop)) is not None:
            self._send(mark)
            self._faults.reach(mark)
        self._send(stop)

    def _send(self, stop: int) -> None:
        for form in {subscriber.form for subscriber in self._subscribers}:
            for batch in self._encoder.batches(self._position, stop, form):
                for subscriber in [one for one in self._subscribers if one.form == form]:
                    subscriber.deliver(batch)
        self._position = stop
