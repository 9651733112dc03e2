"""Positions in a sequence of trade ids, and what may happen there: gaps, late trades, resets."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """A trade by its id and time (ms, 0 if unknown); where a run resumes, the time is of the newest one up to it."""

    trade_id: int
    timestamp: int = 0


class Gap(NamedTuple):
    """Missing trade ids, both ends included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Reset(NamedTuple):
    """The exchange reset its ids: the last id before, the first id after, and the connection that proved it."""

    last: int
    first: int
    connection: int = 0


class Late(NamedTuple):
    """Trades that arrived after their ids were given up, both ends included; they are dropped."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(Gap(*self))


Event = Gap | Reset | Late


class Standing(NamedTuple):
    """How far the trades of a run have come, at one moment."""

    newest_id: int
    """The highest id known, emitted or not; -1 if there is none."""
    newest_streamed: dict[int, int]
    """By open connection: the id that it brought last; -1 if it brought none."""
    behind: int
    """How many ids up to the newest one seen have not been emitted."""
    is_hint: bool
    """Whether the current gap shows only by a hint, and not by a trade."""
    is_confirmed: bool
    """Whether all open connections confirm the current gap, by having brought a higher id."""
