"""Trade ids in, trades in order out: what repeats is dropped, what is missing is waited for or named.

No lock, no I/O, and no clock but that of `given_up`.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from heapq import heappop, heappush
from typing import NamedTuple

from loader_ws_trades.pipeline.given_up import GivenUp
from loader_ws_trades.pipeline.trade import Trade

WINDOW = 50_000  # ids ahead of the next one within which trades are held: at most as many trades, about 20 MB

_EMPTY = -1  # the expected id before the first trade

PROOF = 3  # trades in a row on one connection that prove that the ids began anew


class Position(NamedTuple):
    """The last trade that needs not come again: its id, and the time (ms, 0 if unknown) of the newest one up to it."""

    trade_id: int
    timestamp: int = 0


class Gap(NamedTuple):
    """Trade ids that are missing, both ends included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Reset(NamedTuple):
    """The exchange began its ids anew: the last id before, the first id after, the connection that proved it."""

    last: int
    first: int
    connection: int = 0


class Late(NamedTuple):
    """Trades that came after their ids were given up, both ends included; they do not come out."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(Gap(*self))


Event = Gap | Reset | Late


class Sequence:
    """The order of one symbol's trades, from any number of streams and from REST.

    States:
    - *empty*: no trade yet and nothing resumed; the first trade is taken as it comes.
    - *in order*: nothing is missing before the newest trade seen.
    - *behind*: the next id is missing. Later trades within `window` ids of it are held; of those further ahead, which
      are fetched again, only the newest is remembered, as a sign that there is more. With a `window` of 0 each gap is
      given up at once.

    A trade with the next id comes out, and with it the held ones that follow. One with a lower id is late, if the id
    was given up lately, else a duplicate.

    A *reset*: trades with lower ids, later than all that came out or of the last millisecond but below its ids,
    are no repeats. They wait; three in a row on one connection, their ids rising by one, prove that a new sequence has
    begun. Then what is held comes out, what is missing before it is named, and what waited follows; else it is dropped.

    Invariants: between two resets the ids that come out ascend; each id between the first and the last of them has come
    out or is in a gap that was returned; at most `window` trades are held.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._expected = _EMPTY
        self.left: int | None = None
        """How many trades may still come out, if that is bounded. Nothing is given up behind the last of them."""
        self.last_time = 0
        """Milliseconds since 1970, of the last trade that came out."""
        self._seen_time = 0
        # The greatest time of all that came out in this sequence; no trade with a lower id than the second has it.
        self._latest_time = self._latest_from = 0
        self._held: dict[int, Trade] = {}
        self._order: list[int] = []  # a heap of the ids held
        self._top = _EMPTY  # the highest id held, if one is
        self._newest = _EMPTY  # id of the stream's last trade, if it was too far ahead to be held
        self._is_hint = False  # whether `_newest` is of no trade of the stream, but what somebody said
        self._given_up = GivenUp()
        self._runs: dict[int, list[Trade]] = {}  # what may begin a new sequence, by connection
        self._of_stream = True
        self.duplicates = 0
        self.late = 0
        self.gaps = 0
        """How often ids began to be missing."""

    def resume(self, last: Position) -> None:
        """Go on behind `last`, which is out already; only while nothing is held back."""
        self._expected = last.trade_id + 1
        self.last_time = self._latest_time = last.timestamp
        self._latest_from = 0
        self._given_up.clear()

    def begin_after(self, trade_id: int) -> None:
        """Begin behind `trade_id`, if no trade has come yet."""
        if self._expected == _EMPTY:
            self._expected = trade_id + 1

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; with `hint` until `drop_hint`, unless trades show that they are."""
        if newest > self._newest_seen and newest >= self._expected > _EMPTY:
            self.gaps += self.in_order
            self._newest, self._is_hint = newest, hint

    def drop_hint(self) -> bool:
        """Expect nothing more for a hint, unless trades are held that show the gap; whether there was such a hint."""
        if not self.is_hint:
            return False
        self._newest = _EMPTY
        return True

    @property
    def newest_id(self) -> int:
        """The highest id known, whether its trade came out or not; -1 if there is none."""
        return max(self._expected - 1, self._newest_seen, -1)

    @property
    def is_hint(self) -> bool:
        """Whether no trade shows the present gap, but only a hint."""
        return self._is_hint and not self._order and self._newest >= self._expected > _EMPTY

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
        if self._order:
            return Gap(self._expected, self._order[0] - 1)
        if self._newest >= self._expected > _EMPTY:
            return Gap(self._expected, self._newest)
        return None

    @property
    def behind(self) -> int:
        """How many ids there are up to the newest trade seen that have not come out."""
        return max(0, self._newest_seen - self._expected + 1)

    @property
    def _newest_seen(self) -> int:
        return max(self._top, self._newest) if self._held else self._newest

    @property
    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""
        return not self._held and self._newest == _EMPTY

    def push(self, trades: Many[Trade], connection: int = 0) -> tuple[Many[Trade], list[Event]]:
        """Take trades of a stream as they came; the ones to pass on, in order, and what was given up or begun anew."""
        if self._held or self._runs or (self.left is not None and len(trades) > self.left):
            return self._sort_in(trades, connection)
        expected, latest, latest_from = self._expected, self._latest_time, self._latest_from
        for trade in trades:
            if trade.trade_id != expected:
                return self._sort_in(trades, connection)
            if trade.timestamp > latest:
                latest, latest_from = trade.timestamp, expected
            expected += 1
        if trades:
            self._expected, self._latest_time, self._latest_from = expected, latest, latest_from
            self.last_time = trade.timestamp
            # What came far ahead before it was no sign of more: the stream itself goes on here.
            self._newest = _EMPTY
            if self.left is not None:
                self.left -= len(trades)
        return trades, []

    def fill(self, rows: Many[Trade]) -> tuple[Many[Trade], list[Event]]:
        """Take trades from REST, ascending; as `push`. Those that have come meanwhile are no repeats.

        Only ids that are missing count: rows of another question are no trades, no sign of more, and prove no reset.
        """
        newest, last = self._newest, self._newest_seen
        self._of_stream = False
        found = self._sort_in([row for row in rows if row.trade_id <= last], 0)
        self._of_stream = True
        self._newest = newest if newest >= self._expected else _EMPTY
        return found

    def skip(self, before: int) -> tuple[Many[Trade], list[Event]]:
        """Give up on the ids that are missing before the id `before`; as `push`, with the ids given up as gaps."""
        found: tuple[list[Trade], list[Event]] = [], []
        self._give_up(before, *found)
        return found

    def end(self) -> list[Event]:
        """Take nothing more; the ids of trades that may belong to a new sequence, too few to prove it, as gaps."""
        undecided = {trade.trade_id for run in self._runs.values() for trade in run}
        self._runs.clear()
        return [Gap(trade_id, trade_id) for trade_id in sorted(undecided)]

    def _sort_in(self, trades: Many[Trade], connection: int) -> tuple[Many[Trade], list[Event]]:
        out: list[Trade] = []
        events: list[Event] = []
        for trade in trades:
            if self.left == 0:
                break
            if trade.trade_id >= self._expected:
                if self._runs and self._of_stream:
                    self._end_run(connection)
                self._take(trade, out, events)
            elif self._of_stream:
                self._take_low(trade, connection, out, events)
        # What others have brought since then may be later, as after the end of a connection.
        for other in [other for other, run in self._runs.items() if self._may_repeat(run[0])]:
            self._end_run(other)
        if trades:
            self._seen_time = max(self._seen_time, trades[-1].timestamp)
        return out, events

    def _take(self, trade: Trade, out: list[Trade], events: list[Event]) -> None:
        """Take a trade with the expected id or a higher one."""
        trade_id = trade.trade_id
        if self._expected == _EMPTY:
            self._expected = trade_id
        elif trade_id > self._expected and not self._window:
            self.gaps += 1
            self._give_up(trade_id, out, events)
        if trade_id == self._expected:
            self._emit(trade, out)
            self._release(out)
            self._newest = _EMPTY
        elif trade_id - self._expected > self._window:
            self.gaps += self.in_order
            self._newest = trade_id
            self._is_hint &= not self._of_stream
        elif trade_id in self._held:
            self.duplicates += self._of_stream
        else:
            self.gaps += self.in_order
            self._top = max(self._top, trade_id) if self._held else trade_id
            self._held[trade_id] = trade
            heappush(self._order, trade_id)
            self._newest = _EMPTY

    def _take_low(self, trade: Trade, connection: int, out: list[Trade], events: list[Event]) -> None:
        """Take a trade of a stream with a lower id than the expected one."""
        trade_id = trade.trade_id
        run, may_repeat = self._runs.get(connection), self._may_repeat(trade)
        if may_repeat or not (run and trade_id == run[-1].trade_id + 1):
            self._end_run(connection)
            run = None
        if run is None and self._given_up.has(trade_id, self._expected):
            self.late += 1
            if events and isinstance(last := events[-1], Late) and last.last + 1 == trade_id:
                events[-1] = Late(last.first, trade_id)
            else:
                events.append(Late(trade_id, trade_id))
        elif may_repeat:
            self.duplicates += 1
        else:
            run = self._runs.setdefault(connection, [])
            run.append(trade)
            if len(run) == PROOF:
                self._begin_anew(connection, out, events)

    def _may_repeat(self, trade: Trade) -> bool:
        """Whether a trade with a lower id than the expected one may have come out before."""
        return (trade.timestamp, self._latest_from) <= (self._latest_time, trade.trade_id)

    def _end_run(self, connection: int) -> None:
        self.duplicates += len(self._runs.pop(connection, ()))

    def _begin_anew(self, connection: int, out: list[Trade], events: list[Event]) -> None:
        """Let go of the old sequence, and begin with what waits, of whichever connection it came."""
        waiting = sorted((trade for run in self._runs.values() for trade in run), key=lambda trade: trade.trade_id)
        self._runs.clear()
        self._give_up(self._newest_seen + 1, out, events)
        if self.left == 0:
            return
        events.append(Reset(self._expected - 1, waiting[0].trade_id, connection))
        self._expected = waiting[0].trade_id
        self._newest, self._latest_time = _EMPTY, 0
        self._given_up.clear()
        for trade in waiting:
            if trade.trade_id < self._expected:
                self.duplicates += 1  # both connections had it
            elif self.left != 0:
                self._take(trade, out, events)

    def _give_up(self, before: int, out: list[Trade], events: list[Event]) -> None:
        while self._expected < before and self.left != 0:
            last = min(self._order[0], before) - 1 if self._order else before - 1
            events.append(Gap(self._expected, last))
            self._given_up.add(self._expected, last)
            self._expected = last + 1
            self._release(out)
        if self._newest < self._expected:
            self._newest = _EMPTY

    def _emit(self, trade: Trade, out: list[Trade]) -> None:
        out.append(trade)
        self._expected = trade.trade_id + 1
        self.last_time = trade.timestamp
        if trade.timestamp > self._latest_time:
            self._latest_from = trade.trade_id if self._latest_time else 0
            self._latest_time = trade.timestamp
        if self.left is not None:
            self.left -= 1

    def _release(self, out: list[Trade]) -> None:
        while self._order and self._order[0] == self._expected and self.left != 0:
            heappop(self._order)
            self._emit(self._held.pop(self._expected), out)
