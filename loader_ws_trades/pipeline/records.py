"""The format of records on the topic, and its validation."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec

from loader_ws_trades.pipeline.trade import BAD_INPUT, FAR_AHEAD_MS

# partition, offset, timestamp in milliseconds (negated if the broker set it), value, key
AnyRecord = tuple[int, int, int, "bytes | None", "bytes | None"]

_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

# The exchange's digits as a JSON number. An exponent means that something converted them to a float.
is_decimal = re.compile(rb"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?").fullmatch


class Stored(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The six fields of a record, with price and quantity unparsed."""

    trade_id: _Whole
    price: msgspec.Raw
    quantity: msgspec.Raw
    timestamp: _Whole
    is_buyer_maker: bool
    symbol: str


class Place(msgspec.Struct, gc=False):
    """The fields that identify the trade of a record; without them it has none."""

    trade_id: _Whole
    timestamp: _Whole
    symbol: str


class _Loose(msgspec.Struct):
    trade_id: object = None
    symbol: object = None


decode = msgspec.json.Decoder(Stored).decode
decode_place = msgspec.json.Decoder(Place).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode


def place_in(value: bytes | None, symbol: str) -> Place | None:
    """What identifies the trade of a record; None if it holds no trade of `symbol`."""
    try:
        place = decode_place(value or b"")
    except BAD_INPUT:
        return None
    return place if place.symbol == symbol else None


def may_differ(moment: int, timestamp: int) -> bool:
    """Whether a record's `timestamp` may differ from the time of its trade, because a clock set it."""
    return timestamp < 0 or moment > timestamp + FAR_AHEAD_MS


class OtherSymbol(NamedTuple):
    """A record of another symbol, or of none."""

    name: str


class Flaw(NamedTuple):
    """Why a record of our symbol is invalid, and its trade id if readable."""

    reason: str
    trade_id: int | None


def quoted(symbol: str) -> bytes:
    """Bytes that every record of `symbol` contains."""
    return msgspec.json.encode(symbol)


def validate(record: AnyRecord, symbol: str) -> OtherSymbol | Flaw | None:
    """Check that a record is a valid one of `symbol`; None if it is."""
    value, key = record[3:]
    loose = _read_loosely(value)
    is_named = loose.symbol == symbol
    if key != symbol.encode() and not is_named and (key is not None or isinstance(loose.symbol, str)):
        return OtherSymbol(shown(key if key is not None else str(loose.symbol).encode("utf-8", "replace")))
    readable = is_named and type(loose.trade_id) is int and 0 <= loose.trade_id < 2**63
    trade_id = loose.trade_id if readable and isinstance(loose.trade_id, int) else None
    reason = _flaw(record, symbol)
    return None if reason is None else Flaw(reason, trade_id)


def _flaw(record: AnyRecord, symbol: str) -> str | None:
    _, _, timestamp, value, key = record
    if value is None:
        return "no value (a tombstone)"
    try:
        stored = decode(value)
    except BAD_INPUT as error:
        return f"{error} in {repr(value[:120])[1:]}"[:300]
    if key != symbol.encode() or stored.symbol != symbol:
        name = "none" if key is None else shown(key)
        return f"the key is {name}, the symbol {shown(stored.symbol.encode('utf-8', 'replace'))}"
    for name, number in (("price", stored.price), ("quantity", stored.quantity)):
        if not is_decimal(number):
            return f"the {name} {shown(bytes(number))} is not a plain decimal number"
    if stored.timestamp != timestamp and not may_differ(stored.timestamp, timestamp):
        return f"the record's timestamp is {timestamp}, the trade's {stored.timestamp}"
    return None


def _read_loosely(value: bytes | None) -> _Loose:
    try:
        return _decode_loose(value or b"")
    except BAD_INPUT:
        return _Loose()


def symbol_in(value: bytes | None) -> str:
    """The symbol of a record that may be malformed; empty if it has none."""
    symbol = _read_loosely(value).symbol
    return symbol if isinstance(symbol, str) else ""


def shown(text: bytes) -> str:
    """Text of a record made safe to display: bounded, and without control characters."""
    plain = text[:60].decode("utf-8", "replace")
    return plain if plain.isprintable() and plain else repr(plain)
