"""Trade ids in, trades in order out: what repeats is dropped, what is missing is waited for or named.

No clock, no lock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import NamedTuple

from loader_ws_trades.trade import Trade

WINDOW = 50_000  # ids ahead of the next one within which trades are held: at most as many trades, about 20 MB

_EMPTY = -1  # the expected id before the first trade

# A trade with an id that was passed long ago, but which did not happen before the last one, cannot be a repeat: trade
# times do not run backwards as ids grow. The exchange has begun its ids anew. An id that is near wants more proof: many
# trades share a millisecond.
_RESET_AFTER_MS = 1000
_NEAR = 10_000


class Position(NamedTuple):
    """The last trade that needs not come again: its id, and the time (ms) of the newest one up to it."""

    trade_id: int
    timestamp: int


class Gap(NamedTuple):
    """Trade ids that are missing, both ends included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Reset(NamedTuple):
    """The exchange began its ids anew: the last id before, the first id after."""

    last: int
    first: int


def began_anew(trade_id: int, timestamp: int, expected: int, last_time: int) -> bool:
    """Whether a trade with an id below the `expected` one begins a new sequence, and is no repeat."""
    is_near = trade_id >= expected - _NEAR
    return timestamp >= last_time + (_RESET_AFTER_MS if is_near else 0)


class Sequence:
    """The order of one symbol's trades, from any number of streams and from REST.

    States:
    - *empty*: no trade yet and nothing resumed; the first trade is taken as it comes.
    - *in order*: nothing is missing before the newest trade seen.
    - *behind*: the next id is missing. Later trades within `window` ids of it are held; those further ahead are let
      go, to be fetched again: only the newest of them is remembered, as a sign that there is more.

    A trade with the next id comes out, and with it the held ones that follow. One with a lower id is a duplicate,
    unless its time says that the ids began anew: then what is held belongs to the old sequence and comes out, what is
    missing before it is named, and a new sequence begins. `skip` gives up on ids. With a `window` of 0 nothing is
    held: each gap is given up at once.

    Invariants: between two resets the ids that come out are strictly ascending; each id between the first and the
    last that came out has come out or is in a gap that was returned; at most `window` trades are held.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._expected = _EMPTY
        self.last_time = 0
        """Milliseconds since 1970, of the last trade that came out."""
        self._seen_time = 0
        self._held: dict[int, Trade] = {}
        self._newest = _EMPTY  # id of the stream's last trade, if it was too far ahead to be held
        self.duplicates = 0
        self._counts_repeats = True
        self.gaps = 0
        """How often ids began to be missing."""

    def resume(self, last: Position) -> None:
        """Go on behind `last`, which is out already; only while nothing is held back."""
        self._expected = last.trade_id + 1
        self.last_time = last.timestamp

    def expect(self, newest: int) -> None:
        """Know that there are trades up to the id `newest`, though none of them has come."""
        if newest >= self._expected > _EMPTY:
            self.gaps += self.in_order
            self._newest = newest

    @property
    def newest_time(self) -> int:
        """Milliseconds since 1970, of the newest trade seen, whether it came out or not."""
        return max(self.last_time, self._seen_time)

    @property
    def held(self) -> int:
        """Number of trades held."""
        return len(self._held)

    def gap(self) -> Gap | None:
        """The ids that hold back what follows; None in order. Its end is a guess where trades were let go."""
        if self._held:
            return Gap(self._expected, min(self._held) - 1)
        if self._newest >= self._expected > _EMPTY:
            return Gap(self._expected, self._newest)
        return None

    @property
    def behind(self) -> int:
        """How many ids there are up to the newest trade seen that have not come out."""
        return max(0, self._newest_seen - self._expected + 1)

    @property
    def _newest_seen(self) -> int:
        return max(max(self._held, default=_EMPTY), self._newest)

    @property
    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""
        return not self._held and self._newest == _EMPTY

    def push(self, trades: Many[Trade]) -> tuple[Many[Trade], list[Gap | Reset]]:
        """Take trades of a stream as they came; the ones to pass on, in order, and what was given up or begun anew."""
        if self._held:
            return self._sort_in(trades)
        expected = self._expected
        for trade in trades:
            if trade.trade_id != expected:
                return self._sort_in(trades)
            expected += 1
        if trades:
            self._expected = expected
            self.last_time = trades[-1].timestamp
            # What came far ahead before it was no sign of more: the stream itself goes on here.
            self._newest = _EMPTY
        return trades, []

    def fill(self, rows: Many[Trade]) -> tuple[Many[Trade], list[Gap | Reset]]:
        """Take trades from REST, ascending; as `push`.

        Only ids that are missing count, so that rows of another question are no trades, no sign of more, and no proof
        that the ids began anew. Those that have come meanwhile are no repeats.
        """
        newest, last = self._newest, self._newest_seen
        self._counts_repeats = False
        found = self._sort_in([row for row in rows if self._expected <= row.trade_id <= last])
        self._counts_repeats = True
        self._newest = newest if newest >= self._expected else _EMPTY
        return found

    def _sort_in(self, trades: Many[Trade]) -> tuple[Many[Trade], list[Gap | Reset]]:
        out: list[Trade] = []
        events: list[Gap | Reset] = []
        for trade in trades:
            self._take(trade, out, events)
        if trades:
            self._seen_time = max(self._seen_time, trades[-1].timestamp)
        return out, events

    def skip(self, before: int) -> tuple[Many[Trade], list[Gap | Reset]]:
        """Give up on the ids that are missing before the id `before`; as `push`, with the ids given up as gaps."""
        out: list[Trade] = []
        events: list[Gap | Reset] = []
        while self._expected < before:
            gap = self.gap()
            last = before - 1 if gap is None or not self._held else min(gap.last, before - 1)
            events.append(Gap(self._expected, last))
            self._expected = last + 1
            self._release(out)
        if self._newest < self._expected:
            self._newest = _EMPTY
        return out, events

    def _take(self, trade: Trade, out: list[Trade], events: list[Gap | Reset]) -> None:
        trade_id = trade.trade_id
        if trade_id < self._expected:
            if not began_anew(trade_id, trade.timestamp, self._expected, self.last_time):
                self.duplicates += self._counts_repeats
                return
            self._begin_anew(trade_id, out, events)
        elif self._expected == _EMPTY:
            self._expected = trade_id
        elif trade_id > self._expected and not self._window:
            self.gaps += 1
            events.append(Gap(self._expected, trade_id - 1))
            self._expected = trade_id
        if trade_id == self._expected:
            self._emit(trade, out)
            self._release(out)
            self._newest = _EMPTY
        elif trade_id - self._expected > self._window:
            self.gaps += self.in_order
            self._newest = trade_id
        elif trade_id in self._held:
            self.duplicates += self._counts_repeats
        else:
            self.gaps += self.in_order
            self._held[trade_id] = trade
            self._newest = _EMPTY

    def _begin_anew(self, first: int, out: list[Trade], events: list[Gap | Reset]) -> None:
        while self._held:
            found, gaps = self.skip(min(self._held))
            out += found
            events += gaps
        if self._newest >= self._expected:
            events.append(Gap(self._expected, self._newest))
        events.append(Reset(self._expected - 1, first))
        self._expected = first
        self._newest = _EMPTY

    def _emit(self, trade: Trade, out: list[Trade]) -> None:
        out.append(trade)
        self._expected = trade.trade_id + 1
        self.last_time = trade.timestamp

    def _release(self, out: list[Trade]) -> None:
        while self._held and (trade := self._held.pop(self._expected, None)) is not None:
            self._emit(trade, out)


def ranges(ids: Iterable[int]) -> list[Gap]:
    """Ids, in any order, as the fewest ascending ranges."""
    found: list[Gap] = []
    for trade_id in sorted(set(ids)):
        if found and found[-1].last + 1 == trade_id:
            found[-1] = Gap(found[-1].first, trade_id)
        else:
            found.append(Gap(trade_id, trade_id))
    return found
