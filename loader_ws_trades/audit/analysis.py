"""Turns the records of a topic into findings. No I/O, no clock.

Memory grows with the number of id ranges, not with the number of records or faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from loader_ws_trades.audit.findings import LISTED, Findings, Malformed, Span
from loader_ws_trades.audit.timeline import DUPLICATES, FILLED_LATER, OUT_OF_ORDER, Timeline
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.id_ranges import Bounds, IdSet
from loader_ws_trades.pipeline.records import (
    AnyRecord,
    OtherSymbol,
    decode,
    is_decimal,
    may_differ,
    quoted,
    shown,
    validate,
)
from loader_ws_trades.pipeline.trade import BAD_INPUT

_OTHERS = 1000  # other symbols counted by name
_MORE = "(more)"
_END = 2**63
_NO_ID = -3  # neither this nor the id after it is that of a record, malformed ones (-1) included

# A record that fills a gap is out of order, and not filled in later, if fewer higher ids than this precede it, none of
# them a minute newer: a loader holds newer trades that long while trades are missing.
_SOON, _SOON_MS = 10, 60_000

# A trade with a lower id but a later time shows that the exchange has reset its ids. A faulty copy of a recent trade
# may look like that too, so close to the newest id it must be this much later.
_CLOSE, _LATER_MS = 10_000, 1000


class Sequence:
    """The trade ids between two resets: a running maximum, and the set of ids below it."""

    def __init__(self, start: int) -> None:
        self.start = start  # older trades do not belong to it
        self.first: Position | None = None
        self.top = _NO_ID
        self.top_time = start
        self._partition = -1  # of `top`
        self._run = _NO_ID  # ids from here to `top` are present, and not yet in `_ids`
        self._ids = IdSet()
        self._recent_runs: deque[Gap] = deque(maxlen=_SOON)

    def is_reset_by(self, trade_id: int, timestamp: int) -> bool:
        """Whether a trade shows that the exchange has started a new sequence."""
        later_by = timestamp - self.top_time
        return trade_id <= self.top and later_by >= (_LATER_MS if trade_id > self.top - _CLOSE else 0)

    def advance(self, trade_id: int, partition: int, timestamp: int) -> None:
        """Add an id above all others."""
        if self.first is None:
            self.first = Position(trade_id, timestamp)
        if trade_id != self.top + 1:
            self._end_run(trade_id)
        self.top, self.top_time, self._partition = trade_id, max(self.top_time, timestamp), partition

    def _end_run(self, following: int) -> None:
        if self.top != _NO_ID:
            self._ids.add(self._run, self.top)
            self._recent_runs.append(Gap(self._run, self.top))
        self._run = following

    def __contains__(self, trade_id: int) -> bool:
        return self._run <= trade_id <= self.top or trade_id in self._ids

    def fill(self, trade_id: int, timestamp: int) -> None:
        """Add an id below `top` that is missing."""
        self._ids.add(trade_id, trade_id)
        if self.first is None or trade_id < self.first.trade_id:
            self.first = Position(trade_id, timestamp)

    def is_out_of_order(self, trade_id: int, partition: int, timestamp: int) -> bool:
        """Whether a missing id comes so soon after higher ones that nobody has filled it in on purpose."""
        runs = (*self._recent_runs, Gap(self._run, self.top))
        higher = sum(len(run) for run in runs if run.first > trade_id)
        return higher < _SOON and self.top_time - timestamp < _SOON_MS and partition == self._partition

    def gaps(self, first: int, last: int) -> Iterable[Gap]:
        """The ids missing between two ids, both included; the last call."""
        self._end_run(self.top + 1)
        return self._ids.holes(first, last)


class Analysis:
    """Takes the records of a topic, one partition after the other, each in the order of its offsets."""

    def __init__(self, symbol: str, bounds: Bounds, timeline: Timeline | None = None) -> None:
        self._symbol = symbol
        self._timeline = timeline
        self._from_id = bounds.from_id or 0
        self._to_id = _END if bounds.to_id is None else bounds.to_id
        self._since = -_END if bounds.since is None else bounds.since
        self._until = _END if bounds.until is None else bounds.until
        self._before = _NO_ID  # the highest id before the time range
        self._after = _END  # the lowest id after it
        self._last_id: int | None = None  # of the latest record, in the range or not
        self._partition = -1
        self._sequence = Sequence(self._since)
        self._found = Findings(bounds)

    def take(self, records: Iterable[AnyRecord]) -> None:
        """Analyse the next records."""
        symbol, key, quoted_symbol = self._symbol, self._symbol.encode(), quoted(self._symbol)
        since, until, to_id = self._since, self._until, self._to_id
        sequence, current = self._sequence, self._partition
        expected = sequence.top + 1
        scanned = 0
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
            if is_next and sequence.start <= timestamp < until and trade_id <= to_id:
                # The path of nearly all records.
                expected += 1
                if timestamp > sequence.top_time:  # noqa: PLR1730 - `max` takes three times as long
                    sequence.top_time = timestamp
                continue
            self._count_up_to(expected - 1)
            self._analyse(record, trade_id, timestamp)
            sequence, current = self._sequence, self._partition
            expected = sequence.top + 1
        self._count_up_to(expected - 1)
        self._found.scanned += scanned

    def _count_up_to(self, trade_id: int) -> None:
        """Count consecutive trades up to this one."""
        if trade_id > self._sequence.top:
            self._found.partitions[self._partition] += trade_id - self._sequence.top
            self._sequence.top = self._last_id = trade_id

    def _analyse(self, record: AnyRecord, trade_id: int, timestamp: int) -> None:
        """Analyse a record that is not the next trade in order; `trade_id` is below 0 if it is not well-formed."""
        partition, offset = record[:2]
        if trade_id >= 0:
            self._last_id = trade_id
            if self._is_in_range(trade_id, timestamp):
                self._add(trade_id, partition, offset, timestamp)
            return
        found = validate(record, self._symbol)
        # A record without a trade counts by its own timestamp, if that is the writer's.
        if not found or not (timestamp < 0 or self._since <= timestamp < self._until):
            return
        if isinstance(found, OtherSymbol):
            self._count_other(found.name)
            return
        expected = None if self._last_id is None else self._last_id + 1
        place = expected if found.trade_id is None else found.trade_id
        if place is None or self._from_id <= place <= self._to_id:
            self._found.malformed.add(Malformed(partition, offset, found.reason))
            if found.trade_id is not None:
                self._add(found.trade_id, partition, offset, timestamp, is_malformed=True)

    def _count_other(self, name: str) -> None:
        others = self._found.others
        others[name if name in others or len(others) < _OTHERS else _MORE] += 1

    def _is_in_range(self, trade_id: int, timestamp: int) -> bool:
        if timestamp < self._since:
            self._before = max(self._before, trade_id)
        elif timestamp >= self._until:
            self._after = min(self._after, trade_id)
        else:
            return self._from_id <= trade_id <= self._to_id
        return False

    def _add(self, trade_id: int, partition: int, offset: int, timestamp: int, *, is_malformed: bool = False) -> None:
        found, sequence = self._found, self._sequence
        self._partition = partition
        found.partitions[partition] += 1
        if not is_malformed and sequence.is_reset_by(trade_id, timestamp):
            self._close(is_last=False)
            sequence = self._sequence = Sequence(timestamp)
        if not is_malformed and timestamp < sequence.start:
            found.filled_later.add_record(trade_id, partition, offset)
            self._mark(FILLED_LATER, timestamp)
        elif trade_id > sequence.top:
            sequence.advance(trade_id, partition, timestamp)
        elif trade_id in sequence:
            found.duplicates.add_record(trade_id, partition, offset)
            self._mark(DUPLICATES, timestamp)
        else:
            continues_fill = found.filled_later.continued_by(trade_id, partition)
            is_late = not continues_fill and sequence.is_out_of_order(trade_id, partition, timestamp)
            (found.out_of_order if is_late else found.filled_later).add_record(trade_id, partition, offset)
            self._mark(OUT_OF_ORDER if is_late else FILLED_LATER, timestamp)
            sequence.fill(trade_id, timestamp)

    def _mark(self, kind: str, timestamp: int) -> None:
        if self._timeline:
            self._timeline.mark(kind, timestamp)

    def findings(self) -> Findings:
        """What was found; the last call."""
        self._close(is_last=True)
        return self._found

    def _close(self, *, is_last: bool) -> None:
        """Record which ids of the current sequence are missing.

        A range of ids must be there in full, unless a reset makes it ambiguous. At the ends of a range of times, what
        is missing may belong to the range and counts too.
        """
        found, sequence, bounds = self._found, self._sequence, self._found.bounds
        is_first = not found.spans.count
        if sequence.first:
            first, last = sequence.first.trade_id, sequence.top
            found.spans.add(Span(sequence.first, Position(last, sequence.top_time)))
        elif bounds.from_id is not None and bounds.to_id is not None:
            first, last = bounds.from_id, bounds.to_id
        else:
            return
        if is_first and is_last:
            first = first if bounds.from_id is None else bounds.from_id
            last = last if bounds.to_id is None else bounds.to_id
        if is_first and 0 <= self._before < first:
            first = self._before + 1
        if is_last and last < self._after < _END:
            last = self._after - 1
        gaps = sequence.gaps(first, last)
        if self._timeline:
            gaps = self._timeline.mark_missing(gaps, sequence.start)
        for gap in gaps:
            found.missing.add(gap, len(gap))
            if is_last and len(found.fillable) < LISTED:
                found.fillable.append(gap)
