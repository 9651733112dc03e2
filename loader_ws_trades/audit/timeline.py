"""What a topic contains over time, in columns of equal width. No I/O, no clock.

Memory is bounded by the number of columns: when there are too many, they are merged into wider ones.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord, decode_place
from loader_ws_trades.pipeline.trade import BAD_INPUT

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
_WIDTHS: Final = (
    *(SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY, 7 * DAY),
    *(28 * DAY * 4**power for power in range(8)),
)
_COLUMNS = 4000  # at once in memory
_LAG_STEPS = 4  # to a doubling, so a lag is known to a tenth

MISSING, DUPLICATES, OUT_OF_ORDER, FILLED_LATER = "missing", "duplicates", "out of order", "filled later"
KINDS: Final = (MISSING, DUPLICATES, OUT_OF_ORDER, FILLED_LATER)


@dataclass
class Column:
    """What happened within one span of time, by the times of the trades."""

    trades: int = 0
    first_id: int = 2**63
    last_id: int = -1
    marks: Counter[str] = field(default_factory=Counter)
    """Records or missing ids of each kind of finding."""
    missing_until: int = 0
    """Where gaps that begin here end, as a time."""
    lags: Counter[int] = field(default_factory=Counter)

    def merge(self, other: Column) -> None:
        """Add what is in another column."""
        self.trades += other.trades
        self.first_id = min(self.first_id, other.first_id)
        self.last_id = max(self.last_id, other.last_id)
        self.marks.update(other.marks)
        self.missing_until = max(self.missing_until, other.missing_until)
        self.lags.update(other.lags)

    def lag(self, share: float) -> float | None:
        """The lag in milliseconds below which a share of the trades was appended; None if it is not known."""
        left = share * self.lags.total()
        for step, count in sorted(self.lags.items()):
            left -= count
            if left <= 0:
                return 2 ** ((step + 0.5) / _LAG_STEPS) - 1
        return None


class Timeline:
    """Takes the same records as the analysis, which marks what it finds."""

    def __init__(self, symbol: str, bounds: Bounds) -> None:
        self._symbol = symbol
        self._key = symbol.encode()
        self._bounds = bounds
        self._level = 0
        self._columns: dict[int, Column] = {}

    def take(self, records: Iterable[AnyRecord]) -> None:
        """Count the next records of the symbol, malformed ones excepted."""
        symbol, key, bounds = self._symbol, self._key, self._bounds
        lowest, highest = bounds.from_id or 0, 2**63 if bounds.to_id is None else bounds.to_id
        since, until = bounds.since or 0, 2**63 if bounds.until is None else bounds.until
        start, end, column = 0, 0, Column()
        for _, _, written, value, its_key in records:
            if its_key != key:
                continue
            try:
                place = decode_place(value or b"")
            except BAD_INPUT:
                continue
            trade_id, moment = place.trade_id, place.timestamp
            if not (lowest <= trade_id <= highest and since <= moment < until) or place.symbol != symbol:
                continue
            if not start <= moment < end:
                column = self._at(moment)
                start = moment - moment % _WIDTHS[self._level]
                end = start + _WIDTHS[self._level]
            column.trades += 1
            column.first_id = min(column.first_id, trade_id)
            column.last_id = max(column.last_id, trade_id)
            if written < 0:
                column.lags[int(_LAG_STEPS * math.log2(max(0, -written - moment) + 1))] += 1

    def mark(self, kind: str, moment: int) -> None:
        """Count a record of a kind of finding."""
        self._at(moment).marks[kind] += 1

    def mark_missing(self, gaps: Iterable[Gap], since: int) -> Iterator[Gap]:
        """Count missing ids by the times of the trades before and after them, which are not before `since`."""
        width = _WIDTHS[self._level]
        known = [(column.first_id, start) for start, column in self._columns.items() if column.trades]
        known = sorted((first_id, start) for first_id, start in known if start + width > since)
        for gap in gaps:
            if known:
                place = bisect_right(known, (gap.first, -1))
                start = known[max(0, place - 1)][1]
                column = self._columns[start]
                is_within = column.last_id > gap.last or place == len(known)
                column.marks[MISSING] += len(gap)
                column.missing_until = max(column.missing_until, start + width if is_within else known[place][1])
            yield gap

    def _at(self, moment: int) -> Column:
        width = _WIDTHS[self._level]
        column = self._columns.get(moment - moment % width)
        if column is None:
            if len(self._columns) >= _COLUMNS and self._level + 1 < len(_WIDTHS):
                self._level += 1
                self._columns = _merged(self._columns, _WIDTHS[self._level])
                return self._at(moment)
            column = self._columns[moment - moment % width] = Column()
        return column

    def columns(self, at_most: int) -> tuple[int, dict[int, Column]]:
        """The width of a column in milliseconds, and the columns by their start, so that few fill the whole time."""
        if not self._columns:
            return SECOND, {}
        span = max(self._columns) - min(self._columns)
        wide = next((width for width in _WIDTHS[self._level :] if span / width < at_most - 1), _WIDTHS[-1])
        return wide, dict(sorted(_merged(self._columns, wide).items()))

    @property
    def has_lag(self) -> bool:
        """Whether it is known when the records were appended."""
        return any(column.lags for column in self._columns.values())


def _merged(columns: dict[int, Column], width: int) -> dict[int, Column]:
    found: defaultdict[int, Column] = defaultdict(Column)
    for start, column in columns.items():
        found[start - start % width].merge(column)
    return dict(found)


def spans(columns: dict[int, Column], width: int) -> Iterator[tuple[int, int]]:
    """The times within which ids are missing, as few as possible."""
    begin = end = 0
    for start, column in columns.items():
        if not column.marks[MISSING]:
            continue
        if start > end and end:
            yield begin, end
            begin = start
        begin, end = begin or start, max(end, column.missing_until, start + width)
    if end:
        yield begin, end
