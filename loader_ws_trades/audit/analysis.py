"""Records of a topic in, findings out. No I/O, no clock.

Memory grows with the number of ranges of ids, never with the number of records or of faults.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from loader_ws_trades.audit.findings import LISTED, Findings, Listed, Malformed, Span
from loader_ws_trades.audit.line import Line, Stretches
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import (
    AnyRecord,
    Flaw,
    Foreign,
    decode,
    is_decimal,
    judge,
    may_differ,
    quoted,
    shown,
)
from loader_ws_trades.pipeline.sequencer import PROOF, Gap
from loader_ws_trades.pipeline.trade import BAD_INPUT

_LINES = 20  # sequences of ids that may still be filled; those before the last so many are closed
_OTHERS = 1000  # names of other symbols that are told apart
_MORE = "(more)"
_END = 2**63

# A record with a lower id that happened later begins a new sequence: at once if its id is far below or its time far
# ahead, as those that follow it may be missing here; else with two more in a row.
_NEAR, _AFTER_MS = 10_000, 1000


class _Placed(NamedTuple):
    trade_id: int
    partition: int
    offset: int
    timestamp: int


class Examination:
    """Looks at the records of a topic, one partition after the other, each in the order of its offsets."""

    def __init__(self, symbol: str, bounds: Bounds | None = None) -> None:
        self._symbol = symbol
        self._key = symbol.encode()
        self._quoted = quoted(symbol)
        self._bounds = bounds = bounds or Bounds()
        self._from_id = bounds.from_id or 0
        self._to_id = _END if bounds.to_id is None else bounds.to_id
        self._since = -_END if bounds.since is None else bounds.since
        self._until = _END if bounds.until is None else bounds.until
        self._before = -1  # the highest id before the time that is judged
        self._after = _END  # the lowest one behind it
        self._here: int | None = None  # the last id that was read, judged or not
        self._lines: list[Line] = []
        self._spans: Listed[Span] = Listed()  # of the sequences that are closed
        self._missing: Listed[Gap] = Listed()
        self._fillable: list[Gap] = []
        self._run: list[_Placed] = []  # records in a row that may begin a new sequence
        self._partition = -1
        self._scanned = 0
        self._partitions: dict[int, int] = {}
        self._others: dict[str, int] = {}
        self._duplicates, self._disorder, self._filled = Stretches(), Stretches(), Stretches()
        self._malformed: Listed[Malformed] = Listed()

    def take(self, records: Iterable[AnyRecord]) -> None:
        """Look at the next records."""
        key, quoted_symbol, symbol = self._key, self._quoted, self._symbol
        since, until, to_id = self._since, self._until, self._to_id
        scanned = counted = 0
        line, expected, begin = self._resume()
        current = self._partition
        for record in records:
            scanned += 1
            partition, _, timestamp, value, its_key = record
            if its_key != key and its_key is not None and (value is None or quoted_symbol not in value):
                if timestamp < 0 or since <= timestamp < until:
                    self._count_other(shown(its_key))
                continue
            trade_id = -1
            try:
                stored = decode(value or b"")
            except BAD_INPUT:
                pass
            else:
                moment = stored.timestamp
                if (
                    (moment == timestamp or may_differ(moment, timestamp))
                    and stored.symbol == symbol
                    and its_key == key
                    and is_decimal(stored.price)
                    and is_decimal(stored.quantity)
                ):
                    trade_id, timestamp = stored.trade_id, moment
            is_next = trade_id == expected and partition == current
            if is_next and begin <= timestamp < until and trade_id <= to_id:
                # All that most records take.
                expected += 1
                counted += 1
                if timestamp > line.top_time:  # noqa: PLR1730 - `max` takes three times as long
                    line.top_time = timestamp
                continue
            self._leave(line, expected, counted)
            counted = 0
            self._look_at(record, trade_id, timestamp)
            line, expected, begin = self._resume()
            current = self._partition
        self._leave(line, expected, counted)
        self._scanned += scanned

    def _resume(self) -> tuple[Line, int, int]:
        """The current sequence, the id that is next in it, and the time it began."""
        if not self._lines:
            return Line(-1, 0, 0, 0), -2, 0  # no id is next
        line = self._lines[-1]
        return line, -2 if self._run else line.top + 1, line.begin

    def _leave(self, line: Line, expected: int, counted: int) -> None:
        """Note `counted` trades in order."""
        if counted:
            line.top = self._here = expected - 1
            line.partition = self._partition
            self._partitions[self._partition] += counted

    def _look_at(self, record: AnyRecord, trade_id: int, timestamp: int) -> None:
        """A record that is not the next trade in order; `trade_id` is below 0 if it is not well-formed."""
        partition, offset = record[:2]
        if trade_id >= 0:
            self._here = trade_id
            if self._is_judged(trade_id, timestamp):
                self._place(trade_id, partition, offset, timestamp, sound=True)
            return
        found = judge(record, self._symbol)
        if isinstance(found, Foreign):
            if self._is_within(timestamp):
                self._count_other(found.name)
        elif isinstance(found, Flaw):
            place = found.trade_id
            if place is None and self._here is not None:
                place = self._here + 1  # where the next id should stand
            if (place is None or self._from_id <= place <= self._to_id) and self._is_within(timestamp):
                self._malformed.add(Malformed(partition, offset, found.reason))
                if found.trade_id is not None:
                    self._place(found.trade_id, partition, offset, timestamp, sound=False)

    def _is_within(self, timestamp: int) -> bool:
        """Whether a record that holds no trade may count; one without a time of its writer's does."""
        return timestamp < 0 or self._since <= timestamp < self._until

    def _count_other(self, name: str) -> None:
        if name not in self._others and len(self._others) >= _OTHERS:
            name = _MORE
        self._others[name] = self._others.get(name, 0) + 1

    def _is_judged(self, trade_id: int, timestamp: int) -> bool:
        if timestamp < self._since:
            self._before = max(self._before, trade_id)
        elif timestamp >= self._until:
            self._after = min(self._after, trade_id)
        else:
            return self._from_id <= trade_id <= self._to_id
        return False

    def _place(self, trade_id: int, partition: int, offset: int, timestamp: int, *, sound: bool) -> None:
        self._partition = partition
        self._partitions[partition] = self._partitions.get(partition, 0) + 1
        if not self._lines:
            self._lines.append(Line(trade_id, timestamp, partition, -_END))
            return
        record = _Placed(trade_id, partition, offset, timestamp)
        if self._run and (trade_id, partition) != (self._run[-1].trade_id + 1, self._run[-1].partition):
            self._end_run()
        newest = self._lines[-1]
        is_near, later_by = trade_id > newest.top - _NEAR, timestamp - newest.top_time
        if sound and trade_id <= newest.top and later_by >= is_near:
            self._run.append(record)
            if len(self._run) == PROOF or not is_near or later_by >= _AFTER_MS:
                self._begin_anew()
            return
        self._end_run()
        self._sort_in(record)

    def _begin_anew(self) -> None:
        first, *rest = self._run
        self._run = []
        line = Line(first.trade_id, first.timestamp, first.partition, first.timestamp)
        for record in rest:
            line.move_up(record.trade_id, record.timestamp, record.partition)
        self._lines.append(line)
        if len(self._lines) > _LINES:
            self._close(self._lines.pop(0))

    def _end_run(self) -> None:
        run, self._run = self._run, []
        for record in run:
            self._sort_in(record)

    def _sort_in(self, record: _Placed) -> None:
        trade_id, partition, offset, timestamp = record
        line = next((line for line in reversed(self._lines) if line.begin <= timestamp), self._lines[0])
        if trade_id > line.top:
            line.move_up(trade_id, timestamp, partition)
        elif line.has(trade_id):
            self._duplicates.add(trade_id, partition, offset)
        else:
            line.fill(trade_id, timestamp)
            is_fill = self._filled.continues(trade_id, partition)
            in_disorder = not is_fill and line.has_just_passed(trade_id, timestamp, partition)
            (self._disorder if in_disorder else self._filled).add(trade_id, partition, offset)

    def findings(self) -> Findings:
        """What was found; call it once, at the end."""
        self._end_run()
        while self._lines:
            self._close(self._lines.pop(0))
        asked = self._bounds
        if not self._spans.count and asked.from_id is not None and asked.to_id is not None:
            self._fillable = [Gap(asked.from_id, asked.to_id)]
            self._missing.add(self._fillable[0], len(self._fillable[0]))
        return Findings(
            scanned=self._scanned,
            records=sum(self._partitions.values()),
            partitions=dict(sorted(self._partitions.items())),
            spans=self._spans,
            missing=self._missing,
            fillable=self._fillable,
            duplicates=self._duplicates.found,
            disorder=self._disorder.found,
            filled_later=self._filled.found,
            malformed=self._malformed,
            others=dict(sorted(self._others.items(), key=lambda item: -item[1])),
        )

    def _close(self, line: Line) -> None:
        """Note what is missing in the oldest sequence that was not closed."""
        is_first, is_last = not self._spans.count, not self._lines
        line.close()
        self._fillable = []
        for gap in line.ids.holes(*self._ends(line, is_first=is_first, is_last=is_last)):
            self._missing.add(gap, len(gap))
            if is_last and len(self._fillable) < LISTED:
                self._fillable.append(gap)
        self._spans.add(line.span)

    def _ends(self, line: Line, *, is_first: bool, is_last: bool) -> tuple[int, int]:
        """The ids between which all should be there.

        They are those that were asked for, if ids were asked for and tell which sequence is meant. If times were, what
        is missing at an end counts as well: it may have happened within them.
        """
        first, last = line.first.trade_id, line.top
        if is_first and is_last:
            first = first if self._bounds.from_id is None else self._bounds.from_id
            last = last if self._bounds.to_id is None else self._bounds.to_id
        if is_first and 0 <= self._before < first:
            first = self._before + 1
        if is_last and last < self._after < _END:
            last = self._after - 1
        return first, last
