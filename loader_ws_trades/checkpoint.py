"""Where the last run ended: the newest trade of the symbol on the topic itself, so that the loader keeps no state."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from loader_ws_trades.config import Settings, named
from loader_ws_trades.partitioner import partition_of
from loader_ws_trades.properties import consumer_properties
from loader_ws_trades.reading import Record, TopicScanner
from loader_ws_trades.sequence import Position
from loader_ws_trades.trade import BAD_INPUT

log = logging.getLogger(__name__)

_FIRST_LOOK = 1000  # records that are read at first; a look further back reads four times as many
_ELSEWHERE = 100_000  # records of a partition that ours should not be on, which are looked at all the same


class _Record(msgspec.Struct):
    trade_id: int
    symbol: str


class _Newest:
    """The records of one symbol with the greatest timestamp among those seen."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._key = symbol.encode()
        self.timestamp = -1
        self._values: list[bytes] = []

    def look_at(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.key == self._key and record.timestamp >= self.timestamp and record.value:
                if record.timestamp > self.timestamp:
                    self._values.clear()
                self._values.append(record.value)
                self.timestamp = record.timestamp

    def trade(self) -> Position | None:
        """The one with the highest id: many share a millisecond."""
        ids = []
        for value in self._values:
            try:
                record = msgspec.json.decode(value, type=_Record)
            except BAD_INPUT:
                continue
            if record.symbol == self._symbol:
                ids.append(record.trade_id)
        return Position(max(ids), self.timestamp) if ids else None


def newest_trade(settings: Settings) -> Position | None:
    """The newest trade of the symbol on the topic, by trade time and then by id.

    It stands on the partition that the symbol's key goes to. Where that has none of ours, all others are searched, and
    else what is newer there: partitions may have been added, and the key have gone elsewhere for a while.

    Raises:
        UnavailableError: if the brokers do not answer, or give no right to read the topic.
    """
    scanner = TopicScanner(consumer_properties(settings), settings.kafka_topic)
    try:
        search = _Search(scanner, settings)
        bounds = scanner.bounds()
        home = partition_of(settings.symbol.encode(), len(bounds))
        at_home = search.newest_in(home, *bounds[home])
        others = {number: found for number, found in bounds.items() if number != home}
        trades = [at_home]
        for number, (low, high) in others.items():
            if at_home is None:
                trades.append(search.newest_in(number, low, high))
            else:
                trades.append(search.newest_behind(number, high, at_home.timestamp))
        found = max(
            (trade for trade in trades if trade is not None),
            key=lambda trade: (trade.timestamp, trade.trade_id),
            default=None,
        )
    finally:
        scanner.close()
    if found is None and search.cut_short:
        log.warning(
            "The newest %d records of %s hold no trade of %s: the run starts at the first live trade; %s is the limit "
            "of the search",
            search.looked_at,
            settings.kafka_topic,
            settings.symbol,
            named("resume_scan_limit"),
        )
    return found


class _Search:
    """Looks for the newest trade of the symbol, one partition at a time.

    It is mostly the last record, but transaction markers, other symbols and older trades that were filled in later
    may stand behind it. So the search begins where the greatest timestamp stands, reads on to the end, goes back from
    there until it finds one of ours, and makes sure that none is newer.
    """

    def __init__(self, scanner: TopicScanner, settings: Settings) -> None:
        self.looked_at = 0
        """Number of records, in all partitions."""
        self.cut_short = False
        """Whether the limit ended it before the beginning of a partition."""
        self._scanner = scanner
        self._symbol = settings.symbol
        self._limit = settings.resume_scan_limit

    def newest_in(self, partition: int, low: int, high: int) -> Position | None:
        """The newest trade between the offsets `low` and `high`, `high` not included."""
        if high <= low:
            return None
        newest = _Newest(self._symbol)
        anchor = self._scanner.newest_offset(partition)
        end, look = high, _FIRST_LOOK
        start = max(low, (high - 1 if anchor is None else anchor) - look + 1)
        while True:
            newest.look_at(self._scanner.read(partition, start, end))
            self.looked_at += end - start
            if newest.timestamp >= 0 or start == low:
                break
            if high - start >= self._limit:
                self.cut_short = True
                return None
            end, look = start, look * 4
            start = max(low, end - look)
        if newest.timestamp < 0:
            return None
        after = self._scanner.offset_after(partition, newest.timestamp)
        if after is None and anchor is None and not self._finds_by_time(partition, newest.timestamp):
            after = max(low, high - self._limit)
        if after is not None and after < start:
            newest.look_at(self._scanner.read(partition, after, start))
        return newest.trade()

    def _finds_by_time(self, partition: int, timestamp: int) -> bool:
        """Whether the broker finds a record of `timestamp`, which there is: an embedded one finds none."""
        return self._scanner.offset_after(partition, timestamp - 1) is not None

    def newest_behind(self, partition: int, high: int, timestamp: int) -> Position | None:
        """The newest trade up to the offset `high` that is later than `timestamp`, among the newest records there."""
        after = self._scanner.offset_after(partition, timestamp)
        if after is None or after >= high:
            return None
        newest = _Newest(self._symbol)
        newest.look_at(self._scanner.read(partition, max(after, high - _ELSEWHERE), high))
        return newest.trade()
