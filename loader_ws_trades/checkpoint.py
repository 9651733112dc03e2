"""Where the last run ended: the newest trade of the symbol on the topic itself, so that the loader keeps no state."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from loader_ws_trades.config import Settings, named
from loader_ws_trades.properties import consumer_properties
from loader_ws_trades.reading import Record, TopicScanner
from loader_ws_trades.trade import BAD_INPUT, Trade

log = logging.getLogger(__name__)

_FIRST_LOOK = 1000  # records that are read at first; a look further back reads four times as many


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

    def trade(self) -> Trade | None:
        """The one with the highest id: many share a millisecond."""
        ids = []
        for value in self._values:
            try:
                record = msgspec.json.decode(value, type=_Record)
            except BAD_INPUT:
                continue
            if record.symbol == self._symbol:
                ids.append(record.trade_id)
        return Trade(max(ids), "0", "0", self.timestamp, False, self._symbol) if ids else None


def newest_trade(settings: Settings) -> Trade | None:
    """The newest trade of the symbol on the topic, by trade time and then by id; only these two of its fields count.

    It is mostly the last record, but transaction markers, other symbols and older trades that were filled in later
    may stand behind it. So the search begins where the greatest timestamp stands, reads on to the end, goes back from
    there until it finds one of ours, and makes sure that none is newer.

    Raises:
        UnavailableError: if the brokers do not answer, or give no right to read the topic.
    """
    scanner = TopicScanner(consumer_properties(settings), settings.kafka_topic)
    try:
        found = [
            _newest_in(scanner, partition, low, high, settings)
            for partition, (low, high) in scanner.bounds().items()
            if high > low
        ]
    finally:
        scanner.close()
    trades = [trade for trade in found if trade is not None]
    return max(trades, key=lambda trade: (trade.timestamp, trade.trade_id), default=None)


def _newest_in(scanner: TopicScanner, partition: int, low: int, high: int, settings: Settings) -> Trade | None:
    newest = _Newest(settings.symbol)
    anchor = scanner.newest_offset(partition)
    end, look = high, _FIRST_LOOK
    start = max(low, (high - 1 if anchor is None else anchor) - look + 1)
    while True:
        newest.look_at(scanner.read(partition, start, end))
        if newest.timestamp >= 0 or start == low:
            break
        if high - start >= settings.resume_scan_limit:
            log.warning(
                "The newest %d records of %s, partition %d, hold no trade of %s: the run starts at the first live "
                "trade; %s is the limit of the search",
                high - start,
                settings.kafka_topic,
                partition,
                settings.symbol,
                named("resume_scan_limit"),
            )
            return None
        end, look = start, look * 4
        start = max(low, end - look)
    after = scanner.offset_after(partition, newest.timestamp) if newest.timestamp >= 0 else None
    if after is not None and after < start:
        newest.look_at(scanner.read(partition, after, start))
    return newest.trade()
