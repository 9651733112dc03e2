"""Where the last run ended: the newest trade of each pair on the topic itself, so that the loader keeps no state.

A record's own fields say what it is; its time and place only say where to look. A topic may have `LogAppendTime`, a
backfill appends old trades behind newer ones, and others may write what is no trade.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple, Protocol

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.newest import Newest
from loader_ws_trades.kafka.offsets import SKEW
from loader_ws_trades.kafka.properties import consumer_properties
from loader_ws_trades.kafka.reader import HiddenError, Record, TopicScanner
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.pipeline.records import decode_place
from loader_ws_trades.pipeline.sequencer import Position
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import format_time

_FIRST_LOOK = 60_000  # milliseconds before the newest record that are read at first
_FURTHER = 4  # how many times further back each look goes than the one before
_PAUSE = 0.2  # seconds between two looks whether an open transaction has ended


class Checkpoint(NamedTuple):
    """What a topic says about a pair."""

    last: Position | None = None
    """Its newest trade; None if none was found."""
    since: int | None = None
    """From which time on (ms) it has none for certain, where records before that were not seen."""
    doubt: str | None = None
    """Why it may have older ones, though none was found; None if it has none for certain, or `last` is known."""


class Scanner(Protocol):
    """Reads a topic; see `TopicScanner`."""

    append_time: bool

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Where each partition begins and ends."""

    def stable_ends(self) -> dict[int, int]:
        """Up to where what is committed can be read."""

    def newest_time(self) -> int | None:
        """The greatest record timestamp."""

    def at(self, moment: int) -> dict[int, int]:
        """The first offsets at or after a time."""

    def read(self, partition: int, start: int, end: int) -> Iterator[Record]:
        """The records of a stretch."""

    def check_right(self) -> None:
        """Raises if it is known that there is no right to read."""

    def close(self) -> None:
        """Let the connections go."""


class Search:
    """Finds the newest trade of each of `symbols`, all in one pass.

    Args:
        scanner: reads the topic.
        topic: what it is called, for messages.
        symbols: the pairs.
        limit: how many records, in all partitions together, one look may read.
        clock: tells the seconds since 1970.
        pause: waits for some seconds; true if there is nothing to wait for any more.
    """

    def __init__(
        self,
        scanner: Scanner,
        topic: str,
        symbols: Iterable[str],
        limit: int,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._scanner = scanner
        self._topic = topic
        self._symbols = {symbol.encode(): symbol for symbol in symbols}
        self._limit = limit
        self._clock = clock
        self._pause = pause or threading.Event().wait
        self._bounds: dict[int, tuple[int, int]] = {}
        self._found: dict[bytes, Newest] = {}
        self._saw_any = False  # whether any record was read

    def run(self, patience: float) -> dict[str, Checkpoint]:
        """The checkpoint of each pair, by what was written when it was called first.

        Raises:
            HiddenError: if an open transaction hides the end for `patience` seconds; call it again to wait on.
            UnavailableError: if the brokers do not answer, or give no right to read the topic.
        """
        self._bounds = self._bounds or self._scanner.bounds()
        self._await_end(Deadline(patience))
        try:
            found = self._search()
        except UnavailableError:
            self._bounds = {}  # the topic may be another one by the next run
            raise
        if not self._saw_any:
            self._scanner.check_right()  # where there is nothing to read, reading is not refused
        return found

    def close(self) -> None:
        """Let the connections go."""
        self._scanner.close()

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
        newest = now if newest is None else min(newest, now)  # a time ahead of the clock says nothing about the others
        back, slack = _FIRST_LOOK, 0
        seen_from: int | None = None
        starts: dict[int, int] | None = None
        while True:
            since = newest - back
            before, starts = starts, self._starts(since - slack)
            if self._count(starts) > self._limit:
                return self._beyond_the_limit(seen_from)
            # Where there is nothing new to read, no trade before the last look may be one after this one.
            if starts != before or any(pair.older_time >= since for pair in self._unsettled()):
                self._look(starts, since)
            seen_from = since
            if self._scanner.append_time and not slack:
                slack = SKEW
                continue
            if starts == lows and any(pair.older_time >= 0 for pair in self._unsettled()):
                self._look(starts, 0)  # all there is counts
            if starts == lows or not self._unsettled():
                return self._checkpoints(self._at_the_beginning(since))
            back *= _FURTHER

    def _unsettled(self) -> list[Newest]:
        return [pair for pair in self._found.values() if not pair.settled]

    def _starts(self, moment: int) -> dict[int, int]:
        """Where to read each partition from, to see all that was written at or after `moment`."""
        if moment <= 0:
            return {number: low for number, (low, _) in self._bounds.items()}
        found = self._scanner.at(moment)
        return {number: min(end, max(low, found.get(number, end))) for number, (low, end) in self._bounds.items()}

    def _count(self, starts: Mapping[int, int]) -> int:
        return sum(end - starts[number] for number, (_, end) in self._bounds.items())

    def _look(self, starts: Mapping[int, int], since: int) -> None:
        """Read each partition to its end."""
        self._found = {key: Newest(since) for key in self._symbols}
        for number, (_, end) in self._bounds.items():
            if starts[number] == end:
                continue
            for record in self._scanner.read(number, starts[number], end):
                self._saw_any = True
                pair = self._found.get(record.key or b"")
                if pair is None or not record.value:
                    continue
                try:
                    place = decode_place(record.value)
                except BAD_INPUT:
                    continue
                if place.symbol == self._symbols[record.key or b""]:
                    pair.take(place.trade_id, place.timestamp)

    def _beyond_the_limit(self, seen_from: int | None) -> dict[str, Checkpoint]:
        if seen_from is not None and self._saw_any:
            limit = f"{named('resume_scan_limit')} ends the search"
            why = f"has no trade of {{}} since {format_time(seen_from)}, and {limit}"
            return self._checkpoints(Checkpoint(since=seen_from, doubt=why))
        # The look-up by time is of no use: it finds nothing, or what is too far back.
        self._look(self._newest_starts(), 0)
        return self._checkpoints(
            Checkpoint(
                doubt=f"has no trade of {{}} among its newest {self._limit} records ({named('resume_scan_limit')})"
            )
        )

    def _newest_starts(self) -> dict[int, int]:
        """Where to read from, to see as many of the newest records as the limit allows."""
        starts, left = {}, self._limit
        by_size = sorted(self._bounds, key=lambda number: self._bounds[number][1] - self._bounds[number][0])
        for place, number in enumerate(by_size):
            low, end = self._bounds[number]
            taken = min(end - low, left // (len(by_size) - place))
            starts[number] = end - taken
            left -= taken
        return starts

    def _at_the_beginning(self, since: int) -> Checkpoint:
        """What a pair is that was not found though all was read."""
        if not any(low for low, _ in self._bounds.values()):
            return Checkpoint()
        if all(low == end for low, end in self._bounds.values()):
            return Checkpoint(doubt="holds nothing any more: all its records were deleted")
        return Checkpoint(
            since=since if since > 0 else None, doubt="has no trade of {}, but older records of it were deleted"
        )

    def _checkpoints(self, absent: Checkpoint) -> dict[str, Checkpoint]:
        found = {}
        for key, symbol in self._symbols.items():
            last = self._found[key].last if key in self._found else None
            doubt = absent.doubt and f"The topic {self._topic} {absent.doubt.format(symbol)}"
            found[symbol] = Checkpoint(last) if last else absent._replace(doubt=doubt)
        return found


def search_for(settings: Settings, pause: Callable[[float], bool] | None = None) -> Search:
    """A search for the newest trade of the symbol on the topic; close it."""
    scanner = TopicScanner(consumer_properties(settings), settings.kafka_topic)
    return Search(scanner, settings.kafka_topic, [settings.symbol], settings.resume_scan_limit, pause=pause)


def newest_trade(settings: Settings, patience: float = 10.0) -> Checkpoint:
    """The checkpoint of the symbol; raises as `Search.run` does."""
    with closing(search_for(settings)) as search:
        return search.run(patience)[settings.symbol]
