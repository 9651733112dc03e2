"""A simulated exchange and an embedded broker, for `demo`, `sandbox` and the tests."""

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.counters import Counters
from loader_ws_trades.sandbox.exchange import Exchange
from loader_ws_trades.sandbox.faults import Faults
from loader_ws_trades.sandbox.history import Generated, Recorded, Trade
from loader_ws_trades.sandbox.limits import Limits
from loader_ws_trades.sandbox.market import Market

__all__ = [
    "Counters",
    "EmbeddedBroker",
    "Exchange",
    "Faults",
    "Generated",
    "Limits",
    "Market",
    "Recorded",
    "Trade",
]
