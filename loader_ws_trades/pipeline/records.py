"""What a record on the topic must be, and what is wrong with one that is not so."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec

from loader_ws_trades.pipeline.trade import BAD_INPUT, FAR_AHEAD_MS

# partition, offset, timestamp in milliseconds (-1 where it is not the writer's), value, key
AnyRecord = tuple[int, int, int, "bytes | None", "bytes | None"]

_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

# The exchange's digits as a JSON number. An exponent says that a float was on the way.
is_decimal = re.compile(rb"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?").fullmatch


class Stored(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The six fields of a record; price and quantity as they stand."""

    trade_id: _Whole
    price: msgspec.Raw
    quantity: msgspec.Raw
    timestamp: _Whole
    is_buyer_maker: bool
    symbol: str


class Place(msgspec.Struct, gc=False):
    """Which trade a record holds, and when that happened; a record that lacks one of these holds none."""

    trade_id: _Whole
    timestamp: _Whole
    symbol: str


class _Loose(msgspec.Struct):
    trade_id: object = None
    symbol: object = None


decode = msgspec.json.Decoder(Stored).decode
decode_place = msgspec.json.Decoder(Place).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode


def may_differ(moment: int, timestamp: int) -> bool:
    """Whether a record's `timestamp` need not be the `moment` of its trade: a clock gave it."""
    return timestamp < 0 or moment > timestamp + FAR_AHEAD_MS


class Foreign(NamedTuple):
    """A record of another symbol, or of none."""

    name: str


class Flaw(NamedTuple):
    """What is wrong with a record of ours; its trade id where one can be read all the same."""

    reason: str
    trade_id: int | None


def quoted(symbol: str) -> bytes:
    """What a record of `symbol` holds for certain."""
    return msgspec.json.encode(symbol)


def judge(record: AnyRecord, symbol: str) -> Foreign | Flaw | None:
    """Whether a record belongs to `symbol` and what is wrong with it; None if nothing is."""
    value, key = record[3:]
    loose = _read_loosely(value)
    is_named = loose.symbol == symbol
    if key != symbol.encode() and not is_named and (key is not None or isinstance(loose.symbol, str)):
        return Foreign(shown(key if key is not None else str(loose.symbol).encode("utf-8", "replace")))
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
            return f"the {name} {shown(bytes(number))} is no plain decimal number"
    if stored.timestamp != timestamp and not may_differ(stored.timestamp, timestamp):
        return f"the record's timestamp is {timestamp}, the trade's {stored.timestamp}"
    return None


def _read_loosely(value: bytes | None) -> _Loose:
    try:
        return _decode_loose(value or b"")
    except BAD_INPUT:
        return _Loose()


def shown(text: bytes) -> str:
    """A text out of a record for people: bounded, and without what would move a terminal's cursor."""
    plain = text[:60].decode("utf-8", "replace")
    return plain if plain.isprintable() and plain else repr(plain)
