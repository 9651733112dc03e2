"""A trade, decoded from a stream frame or a REST row, and encoded as a record.

Prices and quantities are never floats: they are kept exactly as the exchange sent them, and checked to be decimals.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec

# Times from this value on are in microseconds, lower ones in milliseconds; unambiguous until the year 5138.
_MICROSECONDS_FROM = 10**15

FAR_AHEAD_MS = 1_800_000
"""If a trade is further ahead of the local clock, its record gets the clock's time: brokers reject records more than an
hour ahead, and a single one would break every lookup by time."""

# What msgspec raises for invalid input; RecursionError if it is nested too deeply.
BAD_INPUT = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# From 1: to Kafka's producer, timestamp 0 means "now".
_Time = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]

# Both a decimal as the exchange sends it and a JSON number: no sign, exponent, NaN or leading zeros. The exchange sends
# 8 decimal places; without a bound a number could exceed the size limit of a record.
DECIMAL = r"(?:0|[1-9][0-9]{0,49})(?:\.[0-9]{1,50})?"
_is_decimal = re.compile(DECIMAL).fullmatch
_are_decimals = re.compile(f"(?:{DECIMAL}\\n)*").fullmatch  # one per line


class Trade(
    msgspec.Struct,
    gc=False,
    tag_field="e",
    tag="trade",
    rename={
        "trade_id": "t",
        "price": "p",
        "quantity": "q",
        "timestamp": "T",
        "is_buyer_maker": "m",
        "symbol": "s",
    },
):
    """One trade, as decoded from a stream frame; `timestamp` is the trade time in milliseconds."""

    trade_id: _Id
    price: str
    quantity: str
    timestamp: _Time
    is_buyer_maker: bool
    symbol: str


_Kind = TypeVar("_Kind", bound=Trade)


class _Combined(msgspec.Struct, Generic[_Kind]):
    data: _Kind


class _Other(msgspec.Struct):
    """The fields that identify frames that are not trades."""

    e: object = None
    code: object = None
    error: object = None
    result: object = msgspec.UNSET
    data: msgspec.Raw = msgspec.Raw()


class _Row(msgspec.Struct, gc=False, rename="camel"):
    id: _Id
    price: str
    qty: str
    time: _Time
    is_buyer_maker: bool


class RejectedFrame(NamedTuple):
    """A frame that is not a valid trade of our symbol: its kind, and the reason."""

    kind: str
    detail: str


SHUTDOWN = "event serverShutdown"
ANSWERS = ACKNOWLEDGEMENT, ERROR_MESSAGE = "acknowledgement", "error message"

# Kinds that are always counted separately; others are named after frames, so their number is not bounded.
KINDS = {
    SHUTDOWN,
    ACKNOWLEDGEMENT,
    ERROR_MESSAGE,
    "event",
    "invalid row",
    "invalid trade",
    "malformed",
    "old sequence",
    "other symbol",
    "unknown",
}

_NAMED_KINDS = 20  # kinds besides `KINDS` that are counted by name


class RejectedCounts(Counter[str]):
    """Rejected frames, by kind."""

    def kind_of(self, frame: RejectedFrame) -> str:
        """The kind that a frame counts as."""
        kind = frame.kind
        is_named = kind in KINDS or kind in self or len(self.keys() - KINDS) < _NAMED_KINDS
        return kind if is_named else "other"


_BOM = b"\xef\xbb\xbf"  # some programs write it at the start of a file


Symbols = AbstractSet[str] | Mapping[str, object]


class FrameDecoder:
    """Decodes the frames of trade streams.

    Source: the exchange's "Trade Streams" payload; a combined stream wraps it in `{"stream":..,"data":..}`.
    Frames of both forms may alternate.

    Args:
        symbols: trades of others are rejected; may change between calls.
        kind: what a frame becomes.
    """

    def __init__(self, symbols: Symbols, kind: type[Trade] = Trade) -> None:
        self._symbols = symbols
        self._decode: Callable[[bytes], Trade] = msgspec.json.Decoder(kind).decode
        self._decode_combined: Callable[[bytes], _Combined[Trade]] = msgspec.json.Decoder(_Combined[kind]).decode  # type: ignore[valid-type]
        self._are_combined = False  # whether the latest frame was

    def decode(self, frames: Sequence[bytes]) -> tuple[list[Trade], list[RejectedFrame]]:
        """Valid trades and rejected frames, in the order of `frames`; never raises for bad input."""
        try:
            if self._are_combined:
                trades = [wrapper.data for wrapper in map(self._decode_combined, frames)]
            else:
                trades = list(map(self._decode, frames))
        except BAD_INPUT:
            return self._decode_each(frames)
        return (trades, []) if self._are_ours(trades) else self._decode_each(frames)

    def _are_ours(self, trades: list[Trade]) -> bool:
        """Whether all trades are valid; if so, converts times to ms. One regex over all numbers is cheapest."""
        if len(trades) == 1:
            if not (_is_decimal(trades[0].price) and _is_decimal(trades[0].quantity)):
                return False
        else:
            numbers = "".join([f"{trade.price}\n{trade.quantity}\n" for trade in trades])
            if not _are_decimals(numbers) or numbers.count("\n") != 2 * len(trades):
                return False
        symbols = self._symbols
        for trade in trades:
            if trade.symbol not in symbols:
                return False
            if trade.timestamp >= _MICROSECONDS_FROM:
                trade.timestamp //= 1000
        return True

    def _decode_each(self, frames: Iterable[bytes]) -> tuple[list[Trade], list[RejectedFrame]]:
        trades: list[Trade] = []
        rejected: list[RejectedFrame] = []
        symbols, is_decimal = self._symbols, _is_decimal
        for frame in (frame.removeprefix(_BOM) for frame in frames):
            try:
                trade = self._decode_either(frame)
            except BAD_INPUT as error:
                rejected.append(_classify(frame, error))
                continue
            if trade.symbol not in symbols:
                rejected.append(RejectedFrame("other symbol", f"a trade of {trade.symbol!r:.40}"))
            elif not (is_decimal(trade.price) and is_decimal(trade.quantity)):
                rejected.append(
                    RejectedFrame(
                        "invalid trade",
                        f"price {trade.price!r:.40} or quantity {trade.quantity!r:.40} is not a decimal number",
                    )
                )
            else:
                if trade.timestamp >= _MICROSECONDS_FROM:
                    trade.timestamp //= 1000
                trades.append(trade)
        return trades, rejected

    def _decode_either(self, frame: bytes) -> Trade:
        try:
            return self._decode_as(frame, combined=self._are_combined)
        except BAD_INPUT as error:
            try:
                trade = self._decode_as(frame, combined=not self._are_combined)
            except BAD_INPUT:
                raise error from None
            self._are_combined = not self._are_combined
            return trade

    def _decode_as(self, frame: bytes, *, combined: bool) -> Trade:
        return self._decode_combined(frame).data if combined else self._decode(frame)


_decode_other = msgspec.json.Decoder(_Other).decode


def _classify(frame: bytes, error: Exception) -> RejectedFrame:
    """Classify a frame that failed to decode as a trade with `error`."""
    try:
        other = _decode_other(frame)
        if bytes(other.data):
            other = _decode_other(bytes(other.data))
    except BAD_INPUT:
        return RejectedFrame("malformed", f"{error} in {_excerpt(frame)}")
    if other.e == "trade":
        return RejectedFrame("invalid trade", f"{error} in {_excerpt(frame)}")
    if isinstance(other.e, str):
        return RejectedFrame(f"event {other.e}" if re.fullmatch(r"!?\w{1,40}", other.e) else "event", _excerpt(frame))
    if other.error is not None or other.code is not None:
        return RejectedFrame(ERROR_MESSAGE, _excerpt(frame))
    if other.result is not msgspec.UNSET:
        return RejectedFrame(ACKNOWLEDGEMENT, _excerpt(frame))
    return RejectedFrame("unknown", _excerpt(frame))


_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_row = msgspec.json.Decoder(_Row).decode


def decode_rows(body: bytes, symbol: str) -> tuple[list[Trade], list[RejectedFrame]]:
    """Valid trades and rejected rows of REST (source: `GET /api/v3/historicalTrades`), in order.

    Raises:
        ValueError: if `body` is not a list.
    """
    trades: list[Trade] = []
    rejected: list[RejectedFrame] = []
    try:
        rows = _decode_rows(body)
    except BAD_INPUT as error:
        raise ValueError(f"{error} in {_excerpt(body)}") from error
    for raw in rows:
        try:
            row = _decode_row(raw)
        except BAD_INPUT as error:
            rejected.append(RejectedFrame("invalid row", f"{error} in {_excerpt(bytes(raw))}"))
            continue
        if _is_decimal(row.price) and _is_decimal(row.qty):
            trades.append(Trade(row.id, row.price, row.qty, row.time, row.is_buyer_maker, symbol))
        else:
            rejected.append(RejectedFrame("invalid row", f"not a decimal number in {_excerpt(bytes(raw))}"))
    return trades, rejected


def _excerpt(frame: bytes) -> str:
    return repr(bytes(frame[:120]))[1:]


def record_encoder(symbol: str) -> Callable[[Trade], str]:
    """A function that encodes trades of `symbol` as JSON: the six documented fields, in order."""
    tail = f',"symbol":{msgspec.json.encode(symbol).decode()}}}'

    def encode(trade: Trade) -> str:
        side = "true" if trade.is_buyer_maker else "false"
        return (
            f'{{"trade_id":{trade.trade_id},"price":{trade.price},"quantity":{trade.quantity},'
            f'"timestamp":{trade.timestamp},"is_buyer_maker":{side}{tail}'
        )

    return encode
