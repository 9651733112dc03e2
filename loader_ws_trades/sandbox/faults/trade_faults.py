"""Faults of the trade stream: missing, duplicate, replayed, out-of-order, renumbered or malformed trades."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import payload, text_frame
from loader_ws_trades.sandbox.exchange.state import ExchangeState
from loader_ws_trades.sandbox.faults.fault import Context, Fault, OnOpening
from loader_ws_trades.sandbox.faults.frame_filters import Frame, Positions, Replacement, ShuffleFilter
from loader_ws_trades.sandbox.faults.malformed import KINDS, malformed

_DIGITS_OF_MILLISECONDS = 13


@dataclass(frozen=True)
class _OfTrades(Fault):
    """A fault of the next `count` trades."""

    count: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("count")

    def positions(self, context: Context) -> Positions:
        """Return the positions of the trades."""
        only = None if self.connection is None else context.connections[0].number if context.connections else 0
        return Positions(context.injector.market(self), context.position, context.position + self.count, only)


@dataclass(frozen=True)
class Skip(_OfTrades):
    """The next `count` trades are left out of the stream; REST has them."""

    in_advance: ClassVar[bool] = True

    def strike(self, context: Context) -> None:
        """Leave the trades out."""
        context.injector.add_filter(Replacement(self.positions(context), lambda _: ()))


@dataclass(frozen=True)
class Hole(_OfTrades):
    """The next `count` ids are never issued: neither the stream nor REST has them."""

    in_advance: ClassVar[bool] = True

    def strike(self, context: Context) -> None:
        """Skip the ids; trades that REST may already have shown stay."""
        context.injector.market(self).omit(self.count, context.position, or_now=True)


@dataclass(frozen=True)
class Duplicate(_OfTrades):
    """The next `count` trades are sent twice each."""

    later: float | None = None
    """Seconds that are added to the trade time of the copy; none: an exact copy."""

    in_advance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("later")

    def strike(self, context: Context) -> None:
        """Send each trade twice."""

        def duplicate(frame: Frame) -> tuple[Frame, ...]:
            data = frame.data if self.later is None else _with_later_time(frame.data, self.later)
            return frame, frame._replace(data=data, genuine=False)

        context.injector.add_filter(Replacement(self.positions(context), duplicate))


@dataclass(frozen=True)
class Shuffle(_OfTrades):
    """The next `count` trades are sent out of order, shuffled `window` at a time."""

    count: int = 100
    window: int = 10
    seed: int = 0

    in_advance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise ValueError("window must be above 1")

    def strike(self, context: Context) -> None:
        """Shuffle the trades."""
        context.injector.add_filter(ShuffleFilter(self.positions(context), self.window, self.seed))


@dataclass(frozen=True)
class Replay(OnOpening):
    """The next connection, or the next `times`, starts by replaying the last `count` trades."""

    count: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("count")

    def on_open(self, connection: Client, state: ExchangeState) -> None:
        """Send the last trades again."""
        for name in connection.subscriptions.names():
            if name in state.streams:
                connection.writer.write_trades(state.streams[name].newest(self.count, connection.form))


@dataclass(frozen=True)
class Malformed(_OfTrades):
    """A malformed frame precedes each of the next `count` trades, of the kinds `what` in turn."""

    count: int = 10
    what: tuple[str, ...] = KINDS

    in_advance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.what) - set(KINDS):
            raise ValueError(f"what must be some of {', '.join(KINDS)}, not {min(unknown)!r}")
        if not self.what:
            raise ValueError(f"what must be some of {', '.join(KINDS)}")

    def strike(self, context: Context) -> None:
        """Insert the malformed frames."""

        def precede(frame: Frame) -> tuple[Frame, ...]:
            number, place = divmod(frame.position - context.position, len(self.what))
            data = malformed(self.what[place], number, frame.data)
            return frame._replace(data=data, genuine=False), frame

        context.injector.add_filter(Replacement(self.positions(context), precede))


@dataclass(frozen=True)
class IdReset(Fault):
    """The exchange is reset: ids restart at `first_id`, REST has only later trades, times continue."""

    first_id: int = 1

    in_advance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_id < 0:
            raise ValueError("first_id must not be below 0")

    def strike(self, context: Context) -> None:
        """Renumber; trades that REST may already have shown keep their ids."""
        context.injector.market(self).restart(self.first_id, context.position, or_now=True)


def _with_later_time(frame: bytes, seconds: float) -> bytes:
    def moved(found: re.Match[bytes]) -> bytes:
        one_second = 1_000_000 if len(found[1]) > _DIGITS_OF_MILLISECONDS else 1000
        return b'"T":%d' % (int(found[1]) + round(seconds * one_second))

    return text_frame(re.sub(rb'"T":(\d+)', moved, payload(frame)))
