"""Trades with what `RECORD_HEADERS` adds to their records: when and from where they were received."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from loader_ws_trades.pipeline.trade import FrameDecoder, RejectedFrame, Symbols, Trade


class StampedTrade(Trade, gc=False, tag_field="e", tag="trade"):
    """A trade with what `RECORD_HEADERS` adds to its record."""

    event_time: int = msgspec.field(name="E", default=0)
    """The exchange's time of the event, as sent; 0 where there was no event."""
    # Set after decoding; no frame of the exchange's has these names.
    received: int = msgspec.field(name=" received", default=0)
    """Nanoseconds since 1970 at which the read returned that held it."""
    source: str = msgspec.field(name=" source", default="")
    """`stream`, `rest`, `archive` or `recording`."""


def stamped(trades: Iterable[Trade], source: str) -> list[Trade]:
    """Trades that were received now, from `source`."""
    received = time.time_ns()
    return [
        StampedTrade(
            trade.trade_id,
            trade.price,
            trade.quantity,
            trade.timestamp,
            trade.is_buyer_maker,
            trade.symbol,
            event_time=trade.event_time if isinstance(trade, StampedTrade) else 0,
            received=received,
            source=source,
        )
        for trade in trades
    ]


class StampingDecoder(FrameDecoder):
    """Decodes frames that were received now, from `source`."""

    def __init__(self, symbols: Symbols, source: str) -> None:
        super().__init__(symbols, StampedTrade)
        self._source = source

    def decode(self, frames: Sequence[bytes]) -> tuple[list[Trade], list[RejectedFrame]]:
        """As `FrameDecoder.decode`."""
        received = time.time_ns()
        trades, rejected = super().decode(frames)
        for trade in trades:
            if isinstance(trade, StampedTrade):
                trade.received, trade.source = received, self._source
        return trades, rejected


def record_headers(trade: Trade) -> list[tuple[str, str | bytes | None]]:
    """The headers of a record beside its six fields; none for a trade that is not stamped."""
    if not isinstance(trade, StampedTrade):
        return []
    headers: list[tuple[str, str | bytes | None]] = [("received", str(trade.received)), ("source", trade.source)]
    if trade.event_time:
        headers.append(("event_time", str(trade.event_time)))
    return headers
