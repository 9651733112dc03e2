"""The trades of Binance's public archive files, ascending by id; all is checked before the first one is used."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from loader_ws_trades.binance.archive_csv import ArchiveFile
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.trade import Trade

events = Events(logging.getLogger(__name__))

_BATCH = 4000  # trades at once, where files overlap or were sorted
_PROGRESS_EVERY = 10.0  # seconds between two log lines about a long check
_MAX_SORTED = 2_000_000  # rows of a file that is sorted in memory: about 600 MB

_by_id = attrgetter("trade_id")


class Summary(NamedTuple):
    """What an archive contains."""

    first_id: int
    last_id: int
    first_time: int
    """Trade time of the first id, in milliseconds."""
    trades: int
    """Ids, each counted once."""
    duplicates: int
    """Rows that repeat another one; they are left out."""


class Archive:
    """Archive files of one symbol, in any order, as one ascending sequence of trades.

    `check` reads every file once, so that a damaged one is found before anything is published; `batches` reads them
    again. Memory is bounded: only a file whose rows are not sorted is kept, up to `_MAX_SORTED` of them.

    Args:
        paths: zip or csv files; `.CHECKSUM` files among them are ignored, because each file looks for its own.
        symbol: in upper case; only the file names contain it, not the rows.
        stopping: ends the check when it is set.
    """

    def __init__(self, paths: Iterable[str | Path], symbol: str, stopping: threading.Event | None = None) -> None:
        given = map(Path, paths)
        self.files = [ArchiveFile(path, symbol) for path in given if path.suffix.upper() != ".CHECKSUM"]
        self._stopping = stopping or threading.Event()
        self._groups: list[list[_Ascending]] = []
        self._read = 0  # bytes of csv
        self._next_line = time.monotonic() + _PROGRESS_EVERY

    def check(self) -> Summary:
        """Read all files.

        Raises:
            ConfigurationError: if a file is missing, damaged, of another symbol or kind, or contradicts another one.
            RunError: if `stopping` was set.
        """
        self._groups, self._read = [], 0
        self._verify()
        files = sorted((self._scan(file) for file in self.files), key=lambda file: file.first.trade_id)
        groups = _overlapping(files)
        trades = 0
        for group in groups:
            if len(group) == 1:
                trades += group[0].trades
                continue
            events.info("archive_merged", f"Files overlap and are merged: {_names(group)}")
            for batch in _merged(group):
                self._progress(0)
                trades += len(batch)
        self._groups = groups
        first, last = files[0].first, max(file.last_id for file in files)
        summary = Summary(first.trade_id, last, first.timestamp, trades, sum(file.rows for file in files) - trades)
        events.info(
            "archive_read",
            f"The archive contains {trades} trades, ids {summary.first_id}-{summary.last_id}; "
            f"{summary.last_id - summary.first_id + 1 - trades} ids are missing, {summary.duplicates} rows are "
            "duplicates",
            trades=trades,
        )
        return summary

    def batches(self) -> Iterator[list[Trade]]:
        """The trades, ascending by id and each once, some thousands at a time; only after `check`.

        Raises:
            RunError: if a file is not as it was when it was checked.
        """
        try:
            for group in self._groups:
                yield from _merged(group)
        except (ConfigurationError, _NotSortedError) as error:
            raise RunError(f"{_names(group)} changed after the check; run again once nothing writes to it") from error

    def _verify(self) -> None:
        """Find out in seconds what is wrong with any of the files, before their rows are read."""
        faults: list[str] = []
        if not self.files:
            faults.append("No archive was given; name at least one zip or csv file")
        for file in self.files:
            try:
                file.verify(lambda: self._progress(0))
            except ConfigurationError as error:  # noqa: PERF203 - few files
                faults += error.faults
        if faults:
            raise ConfigurationError(*faults)

    def _scan(self, file: ArchiveFile) -> _Ascending:
        try:
            return _Ascending(file, self._progress)
        except _NotSortedError:
            events.info("archive_sorted", f"{file.path} is not sorted by trade id; sorting in memory")
        rows: list[Trade] = []
        for _, batch in file.batches():
            self._progress(0)
            rows += batch
            if len(rows) > _MAX_SORTED:
                raise ConfigurationError(
                    f"{file.path} is not sorted by trade id and has more than {_MAX_SORTED} rows; sort the csv first, "
                    "for example with sort -t, -n"
                )
        rows.sort(key=_by_id)
        return _Ascending(file, self._progress, rows)

    def _progress(self, size: int) -> None:
        """Count `size` bytes of csv as read, and log how far the check is."""
        self._read += size
        if self._stopping.is_set():
            raise RunError("Stopped while the archive was being checked; nothing was published, run again")
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PROGRESS_EVERY
            done = min(1.0, self._read / max(1, sum(file.size for file in self.files)))
            events.info("archive_checked", f"Checking the archive, {100 * done:.0f}% done", done=round(done, 4))


class _NotSortedError(Exception):
    """Trade ids do not ascend."""


class _Ascending:
    """One file, read once: its trades, ascending by id; raises `_NotSortedError` if they are not."""

    def __init__(self, file: ArchiveFile, progress: Callable[[int], None], rows: list[Trade] | None = None) -> None:
        self.file = file
        self._in_memory = rows
        self.rows = self.trades = 0

        def counted() -> Iterator[list[Trade]]:
            for size, batch in ((0, rows),) if rows else file.batches():
                progress(size)
                self.rows += len(batch)
                yield batch

        first = last = None
        for batch in _distinct(counted(), str(file.path)):
            first, last = first or batch[0], batch[-1]
            self.trades += len(batch)
        if first is None or last is None:
            raise ConfigurationError(f"{file.path} contains no trades; give an archive that has some")
        self.first, self.last_id = first, last.trade_id

    def batches(self) -> Iterator[list[Trade]]:
        """The trades once more, duplicates included."""
        if self._in_memory is None:
            return (batch for _, batch in self.file.batches())
        return _batched(self._in_memory)


def _overlapping(files: list[_Ascending]) -> list[list[_Ascending]]:
    """Files, in the order of their first ids, grouped where their ids overlap."""
    groups: list[list[_Ascending]] = []
    end = -1
    for file in files:
        if groups and file.first.trade_id <= end:
            groups[-1].append(file)
        else:
            groups.append([file])
        end = max(end, file.last_id)
    return groups


def _merged(group: list[_Ascending]) -> Iterator[list[Trade]]:
    """The trades of a group, ascending and each once."""
    if len(group) == 1:
        return _distinct(group[0].batches(), _names(group))
    trades = (chain.from_iterable(file.batches()) for file in group)
    return _distinct(_batched(heapq.merge(*trades, key=_by_id)), _names(group))


def _distinct(batches: Iterable[list[Trade]], names: str) -> Iterator[list[Trade]]:
    """Ascending trades without those that repeat the one before; no batch is empty."""
    last: Trade | None = None
    for batch in batches:
        kept = []
        for trade in batch:
            if last is None or trade.trade_id > last.trade_id:
                kept.append(trade)
                last = trade
            elif trade.trade_id < last.trade_id:
                raise _NotSortedError
            elif trade != last:
                raise ConfigurationError(
                    f"Trade id {trade.trade_id} occurs twice with different contents in {names}; nothing was "
                    "published, leave out the file that is wrong"
                )
        if kept:
            yield kept


def _batched(trades: Iterable[Trade]) -> Iterator[list[Trade]]:
    rest = iter(trades)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _names(group: list[_Ascending]) -> str:
    return ", ".join(str(file.file.path) for file in group)
