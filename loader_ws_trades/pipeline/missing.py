"""Missing ids, kept until they are reported: exactly, within limits on memory and message size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import IdSet

IN_A_MESSAGE = 100  # ranges in one message
_IN_A_LINE, _LINES = 500, 100  # ranges per log line at the end of a run, and lines at most
_SIZE = 20_000  # parts of an `IdSet`: about 5 MB


class MissingIds:
    """Ids to be reported. Thread-safe.

    If there are too many ranges to keep or report, neighbours are merged: each missing id is still in a reported range,
    and the text says how many of the ids in the ranges are missing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids, self._count = IdSet(), 0
        self._top = -1  # at least the highest id in `_ids`

    def add(self, gaps: Iterable[Gap]) -> None:
        """Add ids. After a reset some may be present already; then they are reported once."""
        with self._lock:
            for gap in gaps:
                for new in [gap] if gap.first > self._top else list(self._ids.holes(gap.first, gap.last)):
                    self._ids.add(new.first, new.last)
                    self._count += len(new)
                self._top = max(self._top, gap.last)
                if self._ids.size > _SIZE:
                    coarse = IdSet()
                    for group in _grouped(self._ids.ranges, _SIZE // 8):
                        coarse.add(group.first, group.last)
                    self._ids = coarse

    def message(self) -> str:
        """All of them in one text, empty if there are none; then starts over."""
        return next(self._texts(IN_A_MESSAGE, 1), "")

    def lines(self) -> Iterator[str]:
        """All of them in a few texts; then starts over."""
        return self._texts(_IN_A_LINE, _LINES)

    def _texts(self, size: int, at_most: int) -> Iterator[str]:
        with self._lock:
            ids, count = self._ids, self._count
            self._ids, self._count = IdSet(), 0
        return _texts(ids.ranges, count, size, at_most)


def listed(gaps: list[Gap]) -> str:
    """Ascending ranges, in one text of bounded length."""
    return next(_texts(gaps.__iter__, sum(map(len, gaps)), IN_A_MESSAGE, 1), "")


def _texts(ranges: Callable[[], Iterator[Gap]], count: int, size: int, at_most: int) -> Iterator[str]:
    """All `count` ids in at most `at_most` texts of `size` ranges each."""
    covered = sum(map(len, _grouped(ranges, size * at_most)))
    note = "" if covered == count else f" ({count} of these {covered} ids)"
    groups = _grouped(ranges, size * at_most)
    while part := list(islice(groups, size)):
        yield ", ".join(map(str, part)) + note


def _grouped(ranges: Callable[[], Iterator[Gap]], at_most: int) -> Iterator[Gap]:
    """The same ids in at most `at_most` ranges, merging as few neighbours as necessary."""
    count = sum(1 for _ in ranges())
    rest = ranges()
    while group := list(islice(rest, -(-count // at_most))):
        yield Gap(group[0].first, group[-1].last)
