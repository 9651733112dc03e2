"""A simulated exchange with faults and an embedded broker, for `demo`, `sandbox` and the tests."""

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.chance import REPAIRABLE, Random
from loader_ws_trades.sandbox.connection_faults import Cut, Fragments, Freeze, HalfOpen, HugeFrame, ServerShutdown
from loader_ws_trades.sandbox.counters import Attempt, Counters, Request, Session
from loader_ws_trades.sandbox.exchange import Exchange
from loader_ws_trades.sandbox.fault import Fault
from loader_ws_trades.sandbox.fault_text import KINDS, fault_text, parse_fault
from loader_ws_trades.sandbox.faults import Faults
from loader_ws_trades.sandbox.handshake_faults import HandshakeSilence, HandshakeStatus
from loader_ws_trades.sandbox.history import Generated, Recorded, Trade
from loader_ws_trades.sandbox.ledger import Sequence
from loader_ws_trades.sandbox.limits import Limits
from loader_ws_trades.sandbox.market import Market
from loader_ws_trades.sandbox.rest_faults import (
    RestCut,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestSilence,
    RestStatus,
    RestTruncated,
)
from loader_ws_trades.sandbox.trade_faults import Duplicate, Hole, IdReset, Malformed, Replay, Shuffle, Skip

__all__ = [
    "KINDS",
    "REPAIRABLE",
    "Attempt",
    "Counters",
    "Cut",
    "Duplicate",
    "EmbeddedBroker",
    "Exchange",
    "Fault",
    "Faults",
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
    "Skip",
    "Trade",
    "fault_text",
    "parse_fault",
]
