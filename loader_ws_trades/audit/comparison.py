"""Compares a topic with the exchange's archive: every id, price, quantity, time and side.

Takes 9 bytes of memory for each id of the archive, whatever the order of the records.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from loader_ws_trades.audit.findings import LISTED, Agreement, ArchiveSource, Difference, Listed
from loader_ws_trades.binance.archive import Archive
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord, Stored, decode
from loader_ws_trades.pipeline.trade import BAD_INPUT, Trade, record_encoder

MAX_IDS: Final = 100_000_000  # some ten busy days of the busiest pair, 900 MB

# What is known of an id; a higher state stays.
_ABSENT, _UNREAD, _AGREES, _DIFFERS, _UNKNOWN = range(5)

_COMPARED = ("price", "quantity", "timestamp", "is_buyer_maker")


class Comparison:
    """What becomes of the trades of archive files as the records of a topic are read.

    Raises:
        ConfigurationError: if a file is missing, damaged, of another symbol or kind, or there are too many ids.
    """

    def __init__(self, paths: Iterable[str | Path], symbol: str) -> None:
        self._archive = Archive(paths, symbol)
        self._symbol = symbol
        self._encode = record_encoder(symbol)
        summary = self._archive.check()
        self._first_id = summary.first_id
        size = summary.last_id - summary.first_id + 1
        if size > MAX_IDS:
            raise ConfigurationError(
                f"The archive spans {size} ids, and at most {MAX_IDS} can be compared; give fewer files"
            )
        self.bounds = Bounds(summary.first_id, summary.last_id)
        self.first_time = summary.first_time
        self._trades = summary.trades
        self._last_time = 0
        # Of each id the hash of the record that belongs to it: the interpreter's own, 64 bits with a random key.
        self._hashes = array("q", bytes(8 * size))
        self._states = bytearray(size)
        self._differing: list[tuple[int, int, Stored]] = []
        for trade in self._archived():
            place = trade.trade_id - self._first_id
            self._hashes[place] = self._hash(trade)
            self._states[place] = _UNREAD
            self._last_time = max(self._last_time, trade.timestamp)

    def _archived(self) -> Iterator[Trade]:
        return (trade for batch in self._archive.batches() for trade in batch)

    def _hash(self, trade: Trade) -> int:
        return hash(self._encode(trade).encode())

    def take(self, records: Iterable[AnyRecord]) -> None:
        """Compare the next records, in any order; what is malformed is left to the analysis."""
        symbol, first_id, states, hashes = self._symbol, self._first_id, self._states, self._hashes
        size = len(states)
        for partition, offset, _, value, _ in records:
            try:
                stored = decode(value or b"")
            except BAD_INPUT:
                continue
            place = stored.trade_id - first_id
            if not 0 <= place < size or stored.symbol != symbol:
                continue
            state = states[place]
            if state in {_ABSENT, _UNKNOWN}:
                states[place] = _UNKNOWN
            elif hashes[place] == hash(value) or hashes[place] == self._hash(_as_trade(stored)):
                states[place] = max(state, _AGREES)
            else:
                states[place] = _DIFFERS
                if len(self._differing) < LISTED:
                    self._differing.append((partition, offset, stored))

    def agreement(self) -> Agreement:
        """What agrees and what does not; the last call.

        Raises:
            RunError: if a file has changed since it was checked.
        """
        states = self._states
        differ: Listed[Difference] = Listed(count=states.count(_DIFFERS), size=states.count(_DIFFERS))
        differ.first = list(self._differences())
        return Agreement(
            sources=[
                ArchiveSource(file.path.name, file.sha256(), file.matches_checksum) for file in self._archive.files
            ],
            first=Position(self._first_id, self.first_time),
            last=Position(self._first_id + len(states) - 1, self._last_time),
            trades=self._trades,
            agree=states.count(_AGREES),
            missing=self._listed(_UNREAD),
            differ=differ,
            unknown=self._listed(_UNKNOWN),
        )

    def _listed(self, state: int) -> Listed[Gap]:
        found: Listed[Gap] = Listed()
        for match in re.finditer(re.escape(bytes([state])) + b"+", self._states):
            gap = Gap(self._first_id + match.start(), self._first_id + match.end() - 1)
            found.add(gap, len(gap))
        return found

    def _differences(self) -> Iterator[Difference]:
        wanted = {stored.trade_id for _, _, stored in self._differing}
        archived = {trade.trade_id: trade for trade in self._archived() if trade.trade_id in wanted} if wanted else {}
        for partition, offset, stored in self._differing:
            ours, theirs = _as_trade(stored), archived[stored.trade_id]
            for name in _COMPARED:
                if getattr(ours, name) != getattr(theirs, name):
                    values = (str(getattr(trade, name)).lower() for trade in (ours, theirs))
                    yield Difference(stored.trade_id, partition, offset, name, *values)


def _as_trade(stored: Stored) -> Trade:
    price, quantity = (bytes(number).decode() for number in (stored.price, stored.quantity))
    return Trade(stored.trade_id, price, quantity, stored.timestamp, stored.is_buyer_maker, stored.symbol)
