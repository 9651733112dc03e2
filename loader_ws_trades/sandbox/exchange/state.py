"""What the connections of one exchange share."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.exchange.limits import Limits, RollingLimit
from loader_ws_trades.sandbox.exchange.pending_answer import PendingAnswer
from loader_ws_trades.sandbox.exchange.rest import Rest
from loader_ws_trades.sandbox.exchange.stream import Broadcast, Stream
from loader_ws_trades.sandbox.market.market import Market


class ConnectionFaults(Protocol):
    """The faults that change what a client gets."""

    def handshake(self, client: Client) -> bool:
        """Whether the exchange should answer a WebSocket handshake; if not, a fault has handled it."""

    def opened(self, client: Client) -> None:
        """Take note of a new WebSocket connection."""

    def touch(self, client: Client, batch: Batch) -> bool:
        """Whether any of them changes the batch, or strikes while it is sent."""

    def frames(self, client: Client, batch: Batch) -> bytes:
        """Return the bytes to send in place of the batch's; may be none."""

    def answer(self, pending: PendingAnswer) -> None:
        """Send a REST answer, or what a fault makes of it."""


@dataclass
class ExchangeState:
    """What the connections of one exchange share; belongs to its event loop."""

    url: str
    """Base URL of REST."""
    markets: list[Market]
    """Those that are listed."""
    broadcast: Broadcast
    rest: Rest
    limits: Limits
    faults: ConnectionFaults
    counters: Counters
    ping_interval: float
    pong_timeout: float
    streams: dict[str, Stream] = field(default_factory=dict)
    """By name, in lower case; they outlive a delisting."""
    connections: set[Client] = field(default_factory=set)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last connection has gone."""
    _attempts: dict[str, RollingLimit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for market in self.markets:
            self._open(market)

    def list(self, market: Market) -> None:
        """Add a market; raises `ValueError` if there is one of that symbol."""
        if self.market(market.symbol) is not None:
            raise ValueError(f"the exchange has {market.symbol} already")
        self.markets.append(market)
        self._open(market)

    def delist(self, symbol: str) -> None:
        """Remove a market; its stream falls silent, and REST does not know it any more."""
        self.markets[:] = [one for one in self.markets if one.symbol != symbol]
        self.rest.markets.pop(symbol, None)

    def market(self, symbol: str) -> Market | None:
        """Return the market of that symbol; none if it is not listed."""
        return self.rest.markets.get(symbol)

    def _open(self, market: Market) -> None:
        self.rest.markets[market.symbol] = market
        self.streams[market.stream] = Stream(market, self.broadcast)

    def attempts(self, ip: str) -> RollingLimit:
        """Return the handshakes of the last 5 minutes from `ip`."""
        return self._attempts.setdefault(ip, RollingLimit(self.limits.connection_attempts, 300.0))
