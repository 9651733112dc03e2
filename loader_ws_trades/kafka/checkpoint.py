"""The checkpoint: the newest trade of each pair on the topic itself, so that the loader keeps no state.

A record's own fields say what it is; its timestamp and offset only say where to look. A topic may use
`LogAppendTime`, a backfill appends old trades after newer ones, and others may write records that are not trades.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.admin import CLOCK_SKEW
from loader_ws_trades.kafka.errors import HiddenError, read_denied
from loader_ws_trades.kafka.newest import Newest
from loader_ws_trades.kafka.reader import TopicScanner
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.records import place_in
from loader_ws_trades.text import format_time

_FIRST_SCAN = 60_000  # milliseconds before the newest record where the first scan starts
_FACTOR = 4  # how many times further back each scan starts than the one before
_PAUSE = 0.2  # seconds between two checks whether an open transaction has ended


class Checkpoint(NamedTuple):
    """What a topic says about a pair."""

    last: Position | None = None
    """Its newest trade; None if none was found."""
    since: int | None = None
    """From when on (ms) it has none for certain, if older records were not scanned."""
    doubt: str | None = None
    """Why it may have older ones although none was found; None if it has none for certain, or `last` is known."""


class Search:
    """Finds the newest trades of pairs on their topic, in one pass for all of them.

    Args:
        settings: the topic, and how many records, in all partitions together, one scan may read.
        symbols: the pairs.
        scanner: reads the topic.
        pause: waits for some seconds; returns whether to stop waiting.
        clock: gives the seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        symbols: Sequence[str],
        scanner: TopicScanner,
        *,
        pause: Callable[[float], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._topic, self._symbols = settings.kafka_topic, symbols
        self._limit = settings.resume_scan_limit
        self._pause = pause or threading.Event().wait
        self._clock = clock
        self._scanner = scanner
        self._bounds: dict[int, tuple[int, int]] = {}
        self._found: dict[str, Newest] = {}
        self._saw_any = False  # whether any record was read

    def run(self, patience: float) -> dict[str, Checkpoint]:
        """The checkpoint of each pair, by what was written when it was first called.

        Raises:
            HiddenError: if an open transaction hides the end for `patience` seconds; call it again to wait longer.
            UnavailableError: if the brokers do not answer, or deny reading the topic.
        """
        self._bounds = self._bounds or self._scanner.bounds()
        self._await_end(Deadline(patience))
        try:
            found = self._search()
        except UnavailableError:
            self._bounds = {}  # the topic may have been replaced by the next call
            raise
        # Reading nothing is never denied.
        if not self._saw_any and (permissions := self._scanner.permissions()) and "READ" not in permissions:
            raise read_denied(self._topic)
        return found

    def _await_end(self, patience: Deadline) -> None:
        while True:
            stable = self._scanner.stable_ends()
            hidden = [number for number, (_, end) in self._bounds.items() if stable.get(number, end) < end]
            if not hidden:
                return
            if patience.passed or self._pause(_PAUSE):
                raise HiddenError(self._topic, hidden[0], stable[hidden[0]])

    def _search(self) -> dict[str, Checkpoint]:
        lows = {number: low for number, (low, _) in self._bounds.items()}
        now = int(self._clock() * 1000)
        newest = self._scanner.newest_time()
        newest = now if newest is None else min(newest, now)  # one ahead of the clock says nothing about the others
        back, skew = _FIRST_SCAN, 0
        scanned_from: int | None = None
        starts: dict[int, int] | None = None
        while True:
            since = newest - back
            before, starts = starts, self._starts(since - skew)
            if sum(end - starts[number] for number, (_, end) in self._bounds.items()) > self._limit:
                return self._limit_reached(scanned_from)
            # With the same records, only trades that were too old for the last scan can make a difference.
            if starts != before or any(found.older_time >= since for found in self._unsettled()):
                if scanned_from == since:
                    self._found.clear()  # with the skew, nothing is settled yet
                self._scan(starts, since)
            scanned_from = since
            if self._scanner.append_time and not skew:
                skew = CLOCK_SKEW
                continue
            if starts == lows and any(found.older_time >= 0 for found in self._unsettled()):
                self._scan(starts, 0)  # trades of any age count
            if starts == lows or not self._unsettled():
                return self._all_scanned(since)
            back *= _FACTOR

    def _starts(self, moment: int) -> dict[int, int]:
        """Where to start in each partition to see everything written at or after `moment`."""
        found = self._scanner.offsets_at(moment) if moment > 0 else dict.fromkeys(self._bounds, 0)
        return {number: min(end, max(low, found.get(number, end))) for number, (low, end) in self._bounds.items()}

    def _unsettled(self) -> list[Newest]:
        return [found for found in self._found.values() if not found.settled]

    def _scan(self, starts: Mapping[int, int], since: int) -> None:
        """Read each partition to its end, for the pairs that are not settled."""
        for symbol in self._symbols:
            if symbol not in self._found or not self._found[symbol].settled:
                self._found[symbol] = Newest(since)
        sought = {symbol.encode(): symbol for symbol in self._symbols if not self._found[symbol].settled}
        for number, (_, end) in self._bounds.items():
            if starts[number] == end:
                continue
            for record in self._scanner.read(number, starts[number], end):
                self._saw_any = True
                wanted = sought.get(record.key or b"")
                if wanted and (place := place_in(record.value, wanted)):
                    self._found[wanted].take(place.trade_id, place.timestamp)

    def _limit_reached(self, scanned_from: int | None) -> dict[str, Checkpoint]:
        limit = named("resume_scan_limit")
        if scanned_from is not None and self._saw_any:
            return self._checkpoints(f" since {format_time(scanned_from)}, where {limit} ends the search", scanned_from)
        # Looking up by time is useless here: it finds nothing, or starts too far back.
        self._found.clear()
        self._scan(self._newest_starts(), 0)
        return self._checkpoints(f" among its newest {self._limit} records ({limit})")

    def _newest_starts(self) -> dict[int, int]:
        """Where to start in each partition to see as many of the newest records as the limit allows."""
        starts, left = {}, self._limit
        by_size = sorted(self._bounds, key=lambda number: self._bounds[number][1] - self._bounds[number][0])
        for place, number in enumerate(by_size):
            low, end = self._bounds[number]
            taken = min(end - low, left // (len(by_size) - place))
            starts[number] = end - taken
            left -= taken
        return starts

    def _all_scanned(self, since: int) -> dict[str, Checkpoint]:
        if not any(low for low, _ in self._bounds.values()):
            return self._checkpoints()
        if all(low == end for low, end in self._bounds.values()):
            empty = f"The topic {self._topic} is empty: all its records were deleted"
            return dict.fromkeys(self._symbols, Checkpoint(doubt=empty))
        return self._checkpoints(", but older records were deleted", since if since > 0 else None)

    def _checkpoints(self, doubt: str | None = None, since: int | None = None) -> dict[str, Checkpoint]:
        """The newest trade of each pair, or what is known without one."""
        checkpoints = {}
        for symbol in self._symbols:
            newest = self._found.get(symbol)
            unknown = doubt and f"The topic {self._topic} has no trade of {symbol}{doubt}"
            last = newest.last if newest else None
            checkpoints[symbol] = Checkpoint(last) if last else Checkpoint(since=since, doubt=unknown)
        return checkpoints


def newest_trade(settings: Settings, patience: float = 10.0) -> Checkpoint:
    """The checkpoint of the symbol; raises as `Search.run` does."""
    with closing(TopicScanner(settings)) as scanner:
        return Search(settings, [settings.symbol], scanner).run(patience)[settings.symbol]
