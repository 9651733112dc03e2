"""A simulated exchange with faults and an embedded broker, for `demo`, `sandbox` and the tests."""

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.counters import Attempt, Counters, Request, Session
from loader_ws_trades.sandbox.exchange.limits import Limits
from loader_ws_trades.sandbox.faults.connection_faults import (
    Cut,
    Fragments,
    Freeze,
    HalfOpen,
    HugeFrame,
    ServerShutdown,
)
from loader_ws_trades.sandbox.faults.delays import Delay
from loader_ws_trades.sandbox.faults.fault import Fault
from loader_ws_trades.sandbox.faults.handshake_faults import HandshakeSilence, HandshakeStatus
from loader_ws_trades.sandbox.faults.injector import FaultInjector
from loader_ws_trades.sandbox.faults.market_faults import Delist, List, Silent
from loader_ws_trades.sandbox.faults.random_faults import REPAIRABLE, Random
from loader_ws_trades.sandbox.faults.rest_faults import (
    RestCut,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestSilence,
    RestStatus,
    RestTruncated,
)
from loader_ws_trades.sandbox.faults.syntax import KINDS, fault_text, parse_fault
from loader_ws_trades.sandbox.faults.trade_faults import Duplicate, Hole, IdReset, Malformed, Replay, Shuffle, Skip
from loader_ws_trades.sandbox.market.crowd import crowd
from loader_ws_trades.sandbox.market.history import Generated, Recorded, Trade
from loader_ws_trades.sandbox.market.market import Market
from loader_ws_trades.sandbox.market.numbering import Sequence
from loader_ws_trades.sandbox.server import Exchange

__all__ = [
    "KINDS",
    "REPAIRABLE",
    "Attempt",
    "Counters",
    "Cut",
    "Delay",
    "Delist",
    "Duplicate",
    "EmbeddedBroker",
    "Exchange",
    "Fault",
    "FaultInjector",
    "Fragments",
    "Freeze",
    "Generated",
    "HalfOpen",
    "HandshakeSilence",
    "HandshakeStatus",
    "Hole",
    "HugeFrame",
    "IdReset",
    "Limits",
    "List",
    "Malformed",
    "Market",
    "Random",
    "Recorded",
    "Replay",
    "Request",
    "RestCut",
    "RestDrip",
    "RestLag",
    "RestOtherRows",
    "RestSilence",
    "RestStatus",
    "RestTruncated",
    "Sequence",
    "ServerShutdown",
    "Session",
    "Shuffle",
    "Silent",
    "Skip",
    "Trade",
    "crowd",
    "fault_text",
    "parse_fault",
]
