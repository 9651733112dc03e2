"""One sequence of trade ids as it grows, and stretches of records. No I/O, no clock."""

from __future__ import annotations

from collections import deque

from loader_ws_trades.audit.findings import Listed, Place, Span, Stretch
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.sequencer import Gap

# What fills a hole is in disorder, rather than filled in later, if fewer records than this stand between, and none of
# them happened so much later: a loader waits a minute for what is missing before it goes on.
_SOON = 10
_SOON_MS = 60_000


class Stretches:
    """Stretches as they grow."""

    def __init__(self) -> None:
        self.found: Listed[Stretch] = Listed()
        self._open: Stretch | None = None

    def continues(self, trade_id: int, partition: int) -> bool:
        """Whether the id is the next one of the last stretch."""
        last = self._open
        return last is not None and trade_id == last.last + 1 and partition == last.partition

    def add(self, trade_id: int, partition: int, offset: int) -> None:
        """Count a record, as part of the last stretch if it continues it."""
        if self._open and self.continues(trade_id, partition):
            self._open.last = trade_id
            self.found.size += 1
            return
        self._open = Stretch(trade_id, trade_id, partition, offset)
        self.found.add(self._open)


class Line:
    """One sequence of ids as it grows: a front that moves up, and what is filled in behind it."""

    def __init__(self, trade_id: int, timestamp: int, partition: int, begin: int) -> None:
        self.begin = begin  # from when on trades are of this sequence, and not of the one before
        self.first = Place(trade_id, timestamp)
        self.run = trade_id  # the ids from here to `top` are there, and not yet in `ids`
        self.top = trade_id
        self.top_time = timestamp
        self.partition = partition  # where the one at `top` stands
        self.ids = IdSet()
        self._fronts: deque[Gap] = deque(maxlen=_SOON)  # the runs before this one

    def move_up(self, trade_id: int, timestamp: int, partition: int) -> None:
        """Take in an id above `top`."""
        if trade_id != self.top + 1:
            self._end_run()
            self.run = trade_id
        self.top, self.top_time, self.partition = trade_id, max(self.top_time, timestamp), partition

    def _end_run(self) -> None:
        if self.run <= self.top:
            self.ids.add(self.run, self.top)
            self._fronts.append(Gap(self.run, self.top))

    def has(self, trade_id: int) -> bool:
        """Whether an id up to `top` is there."""
        return trade_id >= self.run or trade_id in self.ids

    def fill(self, trade_id: int, timestamp: int) -> None:
        """Take in an id below `top` that is not there."""
        self.ids.add(trade_id, trade_id)
        if trade_id < self.first.trade_id:
            self.first = Place(trade_id, timestamp)

    def has_just_passed(self, trade_id: int, timestamp: int, partition: int) -> bool:
        """Whether an id below `top` comes so soon behind higher ones that it is in disorder."""
        passed = self.top - self.run + 1
        for front in reversed(self._fronts):
            if passed >= _SOON or front.first < trade_id:
                break
            passed += len(front)
        return passed < _SOON and self.top_time - timestamp < _SOON_MS and partition == self.partition

    def close(self) -> None:
        """Nothing more comes."""
        self._end_run()
        self.run = self.top + 1

    @property
    def span(self) -> Span:
        """From the lowest id to the highest."""
        return Span(self.first, Place(self.top, self.top_time))
