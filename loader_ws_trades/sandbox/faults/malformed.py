"""Malformed frames, made from a trade's frame; whoever accepts one publishes a visibly wrong trade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from loader_ws_trades.sandbox.exchange.frames import payload, text_frame


def malformed(kind: str, number: int, frame: bytes) -> bytes:
    """Return malformed frame `number` of a kind, made from a trade's frame."""
    message = msgspec.json.decode(payload(frame))
    trade = message.get("data", message)
    # A price that gives the frame away if it is accepted.
    trade["p"] = "0.00000001"
    made = _MAKERS[kind](trade, number)
    if isinstance(made, bytes):
        return text_frame(made)
    if "data" in message and "e" in made:
        made = message | {"data": made}
    return text_frame(msgspec.json.encode(made))


def _json(trade: dict[str, Any], number: int) -> bytes:
    encoded = msgspec.json.encode(trade)
    return (encoded[:-1], encoded[: len(encoded) // 2], encoded[:-1] + b",}", b"", b"trade", b"\xff" + encoded)[
        number % 6
    ]


def _types(trade: dict[str, Any], number: int) -> object:
    changes: tuple[dict[str, Any], ...] = (
        {"t": str(trade["t"])},
        {"p": 0.5},
        {"q": None},
        {"m": "true"},
        {"T": "now"},
        {"t": trade["t"] + 0.5},
        {"p": "cheap"},
        {"t": -1},
        {"p": "NaN"},
        {"p": "1e5"},
        {"q": ""},
        {"p": {"price": trade["p"]}},
    )
    place = number % (len(changes) + 1)
    if place < len(changes):
        return trade | changes[place]
    return {name: value for name, value in trade.items() if name != "t"}


def _symbol(trade: dict[str, Any], _: int) -> object:
    return trade | {"s": "XX" + trade["s"]}


def _event(trade: dict[str, Any], number: int) -> object:
    return trade | {"e": ("aggTrade", "depthUpdate", "somethingNew")[number % 3]}


def _ack(_: dict[str, Any], number: int) -> object:
    return ({"result": None, "id": 1}, {"result": ["btcusdt@trade"], "id": 2})[number % 2]


def _error(_: dict[str, Any], number: int) -> object:
    nested = {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 19}
    return ({"code": 2, "msg": "Invalid request: unknown variant"}, nested)[number % 2]


_MAKERS: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "json": _json,
    "types": _types,
    "symbol": _symbol,
    "event": _event,
    "ack": _ack,
    "error": _error,
}

KINDS = tuple(_MAKERS)
"""Kinds: invalid JSON, wrong types, another symbol, unknown events, acknowledgements, errors."""
