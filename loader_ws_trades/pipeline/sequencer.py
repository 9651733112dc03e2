"""Puts trades in order by id: drops duplicates, and holds trades back until gaps are closed or given up.

No locks, no I/O, and no clock but that of `given_up`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from loader_ws_trades.pipeline.events import Event, Gap, Late, Position, Reset
from loader_ws_trades.pipeline.given_up import GivenUp
from loader_ws_trades.pipeline.trade import Trade

WINDOW = 50_000  # trades up to so many ids ahead of the next one are held: about 20 MB at most
_EMPTY = -1  # the expected id before the first trade
PROOF = 3  # trades in a row on one connection that prove an id reset


class Sequencer:
    """Orders one symbol's trades from any number of streams and from REST.

    States:
    - *empty*: no trade yet and not resumed; the first trade sets the position.
    - *in order*: nothing is missing before the newest trade seen.
    - *behind*: the next id is missing. Later trades up to `window` ids ahead are held; those further ahead are dropped
      and fetched again, and only the newest id is remembered. With a `window` of 0 each gap is given up at once.

    A trade with the next id is emitted, and with it the held ones that follow. A trade with a lower id is late if the
    id was given up recently, else a duplicate.

    A *reset*: trades with lower ids that are later than all emitted ones, or of the same millisecond as the latest but
    below its ids, cannot be duplicates. They are set aside; three in a row on one connection, with consecutive ids,
    prove that a new sequence has started. Then held trades are emitted, gaps before them are returned, and the trades
    set aside follow. Without proof they are dropped.

    Invariants: between two resets the emitted ids ascend; each id between the first and the last of them was emitted or
    is in a gap that was returned; at most `window` trades are held.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._expected = _EMPTY
        self.left: int | None = None
        """How many trades may still be emitted, if limited. Nothing is given up after the last of them."""
        self.last_time = 0
        """Time of the last emitted trade, in ms since 1970."""
        self._seen_time = 0
        # The latest time of the trades emitted in this sequence, and the lowest id that may have it.
        self._latest_time = self._latest_from = 0
        self._held: dict[int, Trade] = {}
        self._order: list[int] = []  # a heap of the ids held
        self._top = _EMPTY  # the highest id held, if any
        self._newest = _EMPTY  # id of the stream's last trade, if too far ahead to be held
        self._is_hint = False  # whether `_newest` is only a hint, not the id of a trade seen
        self._given_up = GivenUp()
        self._runs: dict[int, list[Trade]] = {}  # connection -> trades that may start a new sequence
        self._of_stream = True
        self.duplicates = self.late = 0
        self.gaps = 0
        """How often a gap appeared."""

    def resume(self, last: Position) -> None:
        """Continue after `last`, which is published; only while nothing is held back."""
        self._expected = last.trade_id + 1
        self.last_time = self._latest_time = last.timestamp
        self._latest_from = 0
        self._given_up.clear()

    def start_after(self, trade_id: int) -> None:
        """Start after `trade_id`, if there was no trade yet."""
        if self._expected == _EMPTY:
            self._expected = trade_id + 1

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; a `hint` only until `drop_hint`, unless trades confirm it."""
        if newest > self._newest_seen and newest >= self._expected > _EMPTY:
            self.gaps += self.in_order
            self._newest, self._is_hint = newest, hint

    def drop_hint(self) -> bool:
        """Forget a hint that no held trade confirms; returns whether there was one."""
        if not self.is_hint:
            return False
        self._newest = _EMPTY
        return True

    @property
    def newest_id(self) -> int:
        """The highest id known, emitted or not; -1 if there is none."""
        return max(self._expected - 1, self._newest_seen, -1)

    @property
    def is_hint(self) -> bool:
        """Whether the current gap shows only by a hint, and not by a trade."""
        return self._is_hint and not self._order and self._newest >= self._expected > _EMPTY

    @property
    def newest_time(self) -> int:
        """Time of the newest trade seen, emitted or not, in ms since 1970."""
        return max(self.last_time, self._seen_time)

    @property
    def held(self) -> int:
        """Number of trades held."""
        return len(self._held)

    def gap(self) -> Gap | None:
        """The missing ids that hold trades back; None if in order. The end is a guess if trades were dropped."""
        if self._order:
            return Gap(self._expected, self._order[0] - 1)
        if self._newest >= self._expected > _EMPTY:
            return Gap(self._expected, self._newest)
        return None

    @property
    def behind(self) -> int:
        """How many ids up to the newest trade seen have not been emitted."""
        return max(0, self._newest_seen - self._expected + 1)

    @property
    def _newest_seen(self) -> int:
        return max(self._top, self._newest) if self._held else self._newest

    @property
    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""
        return not self._held and self._newest == _EMPTY

    def push(self, trades: Sequence[Trade], connection: int = 0) -> tuple[Sequence[Trade], list[Event]]:
        """Take trades of a stream as received; returns those to emit, in order, and gaps, resets and late trades.

        If these are the trades given, all is in order.
        """
        if self._held or self._runs or (self.left is not None and len(trades) > self.left):
            return self._sort_in(trades, connection)
        expected, latest, latest_from = self._expected, self._latest_time, self._latest_from
        for trade in trades:
            if trade.trade_id != expected:
                if trade.trade_id < expected and self._are_repeats(trades):
                    self.duplicates += len(trades)
                    return [], []
                return self._sort_in(trades, connection)
            if trade.timestamp > latest:
                latest, latest_from = trade.timestamp, expected
            expected += 1
        if trades:
            self._expected, self._latest_time, self._latest_from = expected, latest, latest_from
            self.last_time = trade.timestamp
            # Earlier trades that were far ahead do not count: the stream itself continues here.
            self._newest = _EMPTY
            if self.left is not None:
                self.left -= len(trades)
        return trades, []

    def fill(self, rows: Sequence[Trade]) -> tuple[Sequence[Trade], list[Event]]:
        """Take trades from REST, ascending; otherwise like `push`. Those already present do not count as duplicates.

        Only missing ids count: other rows are ignored, do not announce more, and do not prove a reset.
        """
        newest, last = self._newest, self._newest_seen
        self._of_stream = False
        found = self._sort_in([row for row in rows if row.trade_id <= last], 0)
        self._of_stream = True
        self._newest = newest if newest >= self._expected else _EMPTY
        return found

    def skip(self, before: int) -> tuple[Sequence[Trade], list[Event]]:
        """Give up on the ids missing before `before`; returns like `push`, with these ids as gaps."""
        out, events = list[Trade](), list[Event]()
        self._give_up(before, out, events)
        return out, events

    def end(self) -> list[Event]:
        """Take no more trades; returns the ids set aside without proof of a reset as gaps."""
        undecided = {trade.trade_id for run in self._runs.values() for trade in run}
        self._runs.clear()
        return [Gap(trade_id, trade_id) for trade_id in sorted(undecided)]

    def _sort_in(self, trades: Sequence[Trade], connection: int) -> tuple[Sequence[Trade], list[Event]]:
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
        # Trades of other connections emitted since then may be later, as after a disconnect.
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
                self._start_new_sequence(connection, out, events)

    def _are_repeats(self, trades: Sequence[Trade]) -> bool:
        """Whether all of a read has come out before: the second copy, from another connection."""
        expected, latest, latest_from = self._expected, self._latest_time, self._latest_from
        given_up = self._given_up.newest
        for trade in trades:
            if not given_up < trade.trade_id < expected or trade.timestamp > latest:
                return False
            if trade.timestamp == latest and trade.trade_id < latest_from:
                return False
        return True

    def _may_repeat(self, trade: Trade) -> bool:
        """Whether a trade with a lower id than the expected one may have been emitted before."""
        return (trade.timestamp, self._latest_from) <= (self._latest_time, trade.trade_id)

    def _end_run(self, connection: int) -> None:
        self.duplicates += len(self._runs.pop(connection, ()))

    def _start_new_sequence(self, connection: int, out: list[Trade], events: list[Event]) -> None:
        """End the old sequence, and start a new one with the trades set aside by any connection."""
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
                self.duplicates += 1  # from two connections
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
