"""What the connections of one exchange share."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange.limits import Limits, Rolling
from loader_ws_trades.sandbox.exchange.rest import Rest
from loader_ws_trades.sandbox.exchange.stream import Stream
from loader_ws_trades.sandbox.faults.faults import Faults
from loader_ws_trades.sandbox.market.market import Market

if TYPE_CHECKING:
    from loader_ws_trades.sandbox.exchange.connection import Connection


@dataclass
class Venue:
    """What the connections of one exchange share; belongs to its event loop."""

    url: str
    """Base URL of REST."""
    markets: list[Market]
    streams: dict[str, Stream]
    """By name, in lower case."""
    rest: Rest
    limits: Limits
    faults: Faults
    counters: Counters
    ping_interval: float
    pong_timeout: float
    connections: set["Connection"] = field(default_factory=set)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last connection has gone."""
    _attempts: dict[str, Rolling] = field(default_factory=dict)

    def attempts(self, ip: str) -> Rolling:
        """Return the handshakes of the last 5 minutes from `ip`."""
        return self._attempts.setdefault(ip, Rolling(self.limits.connection_attempts, 300.0))
