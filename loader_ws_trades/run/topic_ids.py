"""Which trade ids of a range are on the topic already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.kafka.reader import Record, TopicScanner
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.records import decode_place
from loader_ws_trades.pipeline.trade import BAD_INPUT


def ids_on_topic(settings: Settings, first_id: int, last_id: int, since: int) -> IdSet:
    """Those of the ids from `first_id` to `last_id` that are on the topic, and perhaps others.

    It is read from the time `since` (ms since 1970) to its end, because backfilled trades come after newer ones.

    Raises:
        UnavailableError: if the brokers do not answer, or READ on the topic is denied.
    """
    found = IdSet()
    with closing(TopicScanner(settings)) as scanner:
        for partition, (start, end) in scanner.ranges(since).items():
            first, last = 0, -1  # consecutive ids: to add them at once is twice as fast
            for trade_id in _trade_ids(scanner.read(partition, start, end), settings.symbol):
                if trade_id == last + 1:
                    last = trade_id
                elif first_id <= trade_id <= last_id:
                    _add(found, first, last)
                    first = last = trade_id
            _add(found, first, last)
    return found


def _trade_ids(records: Iterable[Record], symbol: str) -> Iterator[int]:
    key = symbol.encode()
    for record in records:
        if record.key != key or not record.value:
            continue
        try:
            place = decode_place(record.value)
        except BAD_INPUT:
            continue
        if place.symbol == symbol:
            yield place.trade_id


def _add(ids: IdSet, first: int, last: int) -> None:
    for new in list(ids.holes(first, last)):
        ids.add(new.first, new.last)
