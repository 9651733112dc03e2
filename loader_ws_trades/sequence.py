"""Trade ids in, trades in order out: what repeats is dropped, what is missing is named. No clock, no lock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import NamedTuple

from loader_ws_trades.trade import Trade

_EMPTY = -1  # the expected id before the first trade

# A trade with an id that was passed already, but which happened this much later than the last one, cannot be a repeat:
# trade times never run backwards as ids grow. The exchange has begun its ids anew.
_RESET_AFTER_MS = 1000


class Gap(NamedTuple):
    """Trade ids that are missing, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Reset(NamedTuple):
    """The exchange began its ids anew: the last id before, the first id after."""

    last: int
    first: int


class Sequence:
    """The order of one symbol's trades.

    Two states: *empty*, before the first trade, whose id it takes as it comes; then *running*, with the next id
    expected. An id equal to it is next; a lower one is a duplicate, unless its time says that the ids began anew; a
    higher one leaves a gap.

    Invariants: between two resets the ids that come out are strictly ascending; each id between the first and the
    last that came out has come out or is in a gap that was returned.
    """

    def __init__(self) -> None:
        self._expected = _EMPTY
        self._last_time = 0
        self.duplicates = 0

    def push(self, trades: Many[Trade]) -> tuple[Many[Trade], list[Gap | Reset]]:
        """Take trades as they arrived; the ones to pass on, in order, and what was found missing or begun anew."""
        expected = self._expected
        for trade in trades:
            if trade.trade_id != expected:
                return self._sort_out(trades)
            expected += 1
        if trades:
            self._expected = expected
            self._last_time = trades[-1].timestamp
        return trades, []

    def _sort_out(self, trades: Many[Trade]) -> tuple[Many[Trade], list[Gap | Reset]]:
        out: list[Trade] = []
        events: list[Gap | Reset] = []
        expected = self._expected
        for trade in trades:
            if trade.trade_id < expected:
                if trade.timestamp <= self._last_time + _RESET_AFTER_MS:
                    self.duplicates += 1
                    continue
                events.append(Reset(expected - 1, trade.trade_id))
            elif trade.trade_id > expected and expected != _EMPTY:
                events.append(Gap(expected, trade.trade_id - 1))
            out.append(trade)
            expected = trade.trade_id + 1
            self._last_time = trade.timestamp
        self._expected = expected
        return out, events


def ranges(ids: Iterable[int]) -> list[Gap]:
    """Ids, in any order, as the fewest ascending ranges."""
    found: list[Gap] = []
    for trade_id in sorted(set(ids)):
        if found and found[-1].last + 1 == trade_id:
            found[-1] = Gap(found[-1].first, trade_id)
        else:
            found.append(Gap(trade_id, trade_id))
    return found
