"""The trades of the exchange's public archive files, ascending by id; all is checked before the first is given out."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path

from loader_ws_trades.binance.archive_file import ArchiveFile
from loader_ws_trades.binance.archive_tally import DisorderError, Summary, Tally
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_BATCH = 4000  # trades given out at once where files overlap or are not in order
_PROGRESS_EVERY = 10.0  # seconds between two log lines about a long check
_BYTES_PER_TRADE = 300  # of memory, where trades must be sorted


class Archive:
    """Several archive files of one symbol, in any order: one sequence of trades.

    `check` reads every file once, so that a broken one is found before anything is given out; `batches` reads them
    again. Memory is bounded, but for a file that is not in order of ids: that one is sorted in memory.

    Args:
        paths: zip or csv files; `.CHECKSUM` files among them are passed over, for they are found by themselves.
        symbol: in upper case; the rows do not name it, the names of the files do.
        stopping: ends the check when it is set.
    """

    def __init__(self, paths: Iterable[str | Path], symbol: str, stopping: threading.Event | None = None) -> None:
        given = map(Path, paths)
        self._files = [ArchiveFile(path, symbol) for path in given if path.suffix.upper() != ".CHECKSUM"]
        self._stopping = stopping or threading.Event()
        self._groups: list[list[_Source]] = []
        self._read = 0
        self._told = time.monotonic()

    @property
    def share(self) -> float:
        """How much of the check is done, from 0 to 1; may be asked in any thread."""
        return min(1.0, self._read / max(1, sum(file.size for file in self._files)))

    def check(self) -> Summary:
        """Read all files and find out what they hold.

        Raises:
            ConfigurationError: if a file is missing, damaged, of another symbol or kind, or contradicts another.
            RunError: if `stopping` was set.
        """
        self._groups, self._read = [], 0
        self._inspect()
        sources = sorted((self._scan(file) for file in self._files), key=lambda source: source.tally.first_id)
        groups = _groups(sources)
        total = Tally("")
        for group in groups:
            if len(group) == 1:
                total.add(group[0].tally)
                continue
            log.info("Files overlap and are merged: %s", _names(group), extra={"event": "archive_merged"})
            merged = Tally(_names(group))
            for batch in _merged(group):
                self._note(0)
                merged.take(batch)
            total.add(merged)
        summary = total.summary()
        self._groups = groups
        log.info(
            "The archive holds %d trades, ids %d-%d, with %d ids missing in %d holes and %d duplicates",
            summary.trades,
            summary.first_id,
            summary.last_id,
            summary.missing,
            summary.hole_count,
            summary.duplicates,
            extra={"event": "archive_read", "trades": summary.trades},
        )
        return summary

    def batches(self) -> Iterator[list[Trade]]:
        """The trades, ascending by id and each once, some thousands at a time; only after `check`.

        Raises:
            RunError: if a file is not as it was when it was checked.
        """
        for group in self._groups:
            tally = Tally(_names(group))
            _must_be_unchanged(group)
            try:
                for batch in _merged(group) if len(group) > 1 else group[0].batches():
                    if trades := tally.take(batch):
                        yield trades
            except (ConfigurationError, DisorderError) as error:
                raise _changed(group) from error
            _must_be_unchanged(group)

    def _inspect(self) -> None:
        faults: list[str] = []
        if not self._files:
            faults.append("No archive was given; name at least one zip or csv file")
        for file in self._files:
            faults += self._faults(file)
        if faults:
            raise ConfigurationError(*faults)

    def _faults(self, file: ArchiveFile) -> tuple[str, ...]:
        try:
            file.inspect(lambda: self._note(0))
        except ConfigurationError as error:
            return error.faults
        return ()

    def _scan(self, file: ArchiveFile) -> _Source:
        before = self._read
        source = _Source(file)
        try:
            for size, batch in file.batches():
                self._note(size)
                source.tally.take(batch)
        except DisorderError:
            self._read = before
            log.info(
                "%s is not in order of ids and is sorted in memory, for which about %d MB are needed",
                file.path,
                file.size // 75 * _BYTES_PER_TRADE // 1_000_000,
                extra={"event": "archive_sorted"},
            )
            source = self._sorted(file)
        if source.tally.last is None:
            raise ConfigurationError(f"{file.path} holds no trades; give an archive that has some")
        return source

    def _sorted(self, file: ArchiveFile) -> _Source:
        trades: list[Trade] = []
        for size, batch in file.batches():
            self._note(size)
            trades += batch
        trades.sort(key=_trade_id)
        source = _Source(file, trades)
        for batch in source.batches():
            source.tally.take(batch)
        return source

    def _note(self, size: int) -> None:
        """Count `size` bytes of csv as read."""
        self._read += size
        if self._stopping.is_set():
            raise RunError("Stopped while the archive was checked; nothing was published, run it again")
        if time.monotonic() - self._told >= _PROGRESS_EVERY:
            self._told = time.monotonic()
            log.info(
                "Checking the archive, %.0f %% done",
                100 * self.share,
                extra={"event": "archive_checked", "done": round(self.share, 4)},
            )


class _Source:
    """One file as ascending trades, duplicates included."""

    def __init__(self, file: ArchiveFile, trades: list[Trade] | None = None) -> None:
        self.file = file
        self.tally = Tally(str(file.path))
        self._trades = trades

    def batches(self) -> Iterator[list[Trade]]:
        if self._trades is None:
            return (batch for _, batch in self.file.batches())
        return _in_batches(self._trades)


_trade_id = attrgetter("trade_id")


def _groups(sources: list[_Source]) -> list[list[_Source]]:
    """Sources, in order of their first ids, put together where their ids overlap."""
    groups: list[list[_Source]] = []
    end = -1
    for source in sources:
        if groups and source.tally.first_id <= end:
            groups[-1].append(source)
        else:
            groups.append([source])
        end = max(end, source.tally.last_id)
    return groups


def _merged(group: list[_Source]) -> Iterator[list[Trade]]:
    trades = (chain.from_iterable(source.batches()) for source in group)
    return _in_batches(heapq.merge(*trades, key=_trade_id))


def _in_batches(trades: Iterable[Trade]) -> Iterator[list[Trade]]:
    rest = iter(trades)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _names(group: list[_Source]) -> str:
    return ", ".join(str(source.file.path) for source in group)


def _must_be_unchanged(group: list[_Source]) -> None:
    if not all(source.file.unchanged for source in group):
        raise _changed(group)


def _changed(group: list[_Source]) -> RunError:
    return RunError(
        f"{_names(group)} changed after the check; what was published before the change stays, run it again with files "
        "that nobody writes"
    )
