"""Faults of the trades themselves: missing, doubled, repeated, out of order, renumbered, or not trades at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import payload, text_frame
from loader_ws_trades.sandbox.exchange.venue import Venue
from loader_ws_trades.sandbox.faults.fault import Fault, Occasion, OnOpening
from loader_ws_trades.sandbox.faults.malformed import KINDS, malformed
from loader_ws_trades.sandbox.faults.tampering import Change, Frame, Shuffling, Stretch

_DIGITS_OF_MILLISECONDS = 13


@dataclass(frozen=True)
class _OfTrades(Fault):
    """A fault of the next `count` trades."""

    count: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("count")

    def stretch(self, occasion: Occasion) -> Stretch:
        """Return the positions of the trades."""
        only = None if self.connection is None else occasion.connections[0].number if occasion.connections else 0
        return Stretch(occasion.faults.market, occasion.position, occasion.position + self.count, only)


@dataclass(frozen=True)
class Skip(_OfTrades):
    """The next `count` trades do not come on the stream; REST has them."""

    ahead: ClassVar[bool] = True

    def strike(self, occasion: Occasion) -> None:
        """Leave them out."""
        occasion.faults.tamper(Change(self.stretch(occasion), lambda _: ()))


@dataclass(frozen=True)
class Hole(_OfTrades):
    """The next `count` ids are never issued: neither the stream nor REST has them."""

    ahead: ClassVar[bool] = True

    def strike(self, occasion: Occasion) -> None:
        """Pass over them; what REST may have shown already stays."""
        occasion.faults.market.omit(self.count, occasion.position, or_now=True)


@dataclass(frozen=True)
class Duplicate(_OfTrades):
    """The next `count` trades come twice each."""

    later: float | None = None
    """Seconds by which the second one's trade time is later; none: it is the same."""

    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("later")

    def strike(self, occasion: Occasion) -> None:
        """Double them."""

        def twice(frame: Frame) -> tuple[Frame, ...]:
            data = frame.data if self.later is None else _dated_later(frame.data, self.later)
            return frame, frame._replace(data=data, sound=False)

        occasion.faults.tamper(Change(self.stretch(occasion), twice))


@dataclass(frozen=True)
class Shuffle(_OfTrades):
    """The next `count` trades come out of order, `window` of them at a time."""

    count: int = 100
    window: int = 10
    seed: int = 0

    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise ValueError("window must be above 1")

    def strike(self, occasion: Occasion) -> None:
        """Shuffle them."""
        occasion.faults.tamper(Shuffling(self.stretch(occasion), self.window, self.seed))


@dataclass(frozen=True)
class Replay(OnOpening):
    """The next connection, or the next `times`, begins with the last `count` trades once more."""

    count: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("count")

    def greet(self, connection: Client, venue: Venue) -> None:
        """Send them again."""
        for name in connection.subscriptions.names():
            if name in venue.streams:
                connection.outlet.write_trades(venue.streams[name].newest(self.count, connection.form))


@dataclass(frozen=True)
class Malformed(_OfTrades):
    """Before each of the next `count` trades comes a frame that is none, of the kinds `what` in turn."""

    count: int = 10
    what: tuple[str, ...] = KINDS

    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.what) - set(KINDS):
            raise ValueError(f"what knows no {min(unknown)!r}; say one of {', '.join(KINDS)}")
        if not self.what:
            raise ValueError(f"what must be one of {', '.join(KINDS)}")

    def strike(self, occasion: Occasion) -> None:
        """Put them between the good ones."""

        def precede(frame: Frame) -> tuple[Frame, ...]:
            number, place = divmod(frame.position - occasion.position, len(self.what))
            data = malformed(self.what[place], number, frame.data)
            return frame._replace(data=data, sound=False), frame

        occasion.faults.tamper(Change(self.stretch(occasion), precede))


@dataclass(frozen=True)
class IdReset(Fault):
    """The exchange was set back: ids restart from `first_id`, and REST knows only what comes after; times go on."""

    first_id: int = 1

    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_id < 0:
            raise ValueError("first_id must not be below 0")

    def strike(self, occasion: Occasion) -> None:
        """Number anew; what REST may have shown already keeps its id."""
        occasion.faults.market.restart(self.first_id, occasion.position, or_now=True)


def _dated_later(frame: bytes, seconds: float) -> bytes:
    def moved(found: re.Match[bytes]) -> bytes:
        a_second = 1_000_000 if len(found[1]) > _DIGITS_OF_MILLISECONDS else 1000
        return b'"T":%d' % (int(found[1]) + round(seconds * a_second))

    return text_frame(re.sub(rb'"T":(\d+)', moved, payload(frame)))
