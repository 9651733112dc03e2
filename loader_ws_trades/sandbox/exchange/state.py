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
from loader_ws_trades.sandbox.exchange.stream import Stream
from loader_ws_trades.sandbox.market.market import Market


class ConnectionFaults(Protocol):
    """The faults that change what a client gets."""

    def handshake(self, client: Client) -> bool:
        """Whether the exchange should answer a WebSocket handshake; if not, a fault has handled it."""

    def opened(self, client: Client) -> None:
        """Take note of a new WebSocket connection."""

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
    streams: dict[str, Stream]
    """By name, in lower case."""
    rest: Rest
    limits: Limits
    faults: ConnectionFaults
    counters: Counters
    ping_interval: float
    pong_timeout: float
    connections: set[Client] = field(default_factory=set)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last connection has gone."""
    _attempts: dict[str, RollingLimit] = field(default_factory=dict)

    def attempts(self, ip: str) -> RollingLimit:
        """Return the handshakes of the last 5 minutes from `ip`."""
        return self._attempts.setdefault(ip, RollingLimit(self.limits.connection_attempts, 300.0))
