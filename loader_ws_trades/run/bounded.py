"""A source that has an end: the trades of a range that are missing on the topic, ascending, from any provider."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from operator import attrgetter
from typing import NamedTuple, TypeVar

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.checkpoint import newest_trade
from loader_ws_trades.kafka.properties import consumer_credentials, telemetry_producer_properties
from loader_ws_trades.kafka.reader import TopicScanner
from loader_ws_trades.lifecycle import Task, spawn
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import LaneKeeper, OnDeath, Source, SourceStatus
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.records import place_in
from loader_ws_trades.pipeline.trade import Trade
from loader_ws_trades.text import counted

events = Events(logging.getLogger(__name__))

_Read = TypeVar("_Read")
_by_id = attrgetter("trade_id")


class TradeRange(NamedTuple):
    """Trades that are available: the first and the last id, and the time of the first one in milliseconds."""

    first_id: int
    last_id: int
    first_time: int


class TradeProvider(ABC):
    """Where the trades of a bounded run come from."""

    origin: str
    """The source of its trades in their records' headers."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    @property
    def rest_weight(self) -> int:
        """Request weight of the last minute; 0 without REST."""
        return 0

    @abstractmethod
    def survey(self) -> TradeRange | None:
        """Find out what is available of what was asked for; None if nothing. May take long."""

    @abstractmethod
    def load(self, missing: list[Gap], receiver: Ingest) -> None:
        """Hand over the trades of the ranges `missing`, which ascend; skip those that do not exist."""

    def close(self) -> None:
        """End every wait; may be called again."""
        self._stopping.set()


class Bounded(Source):
    """Loads those trades of a provider that are missing on the topic.

    Args:
        settings: the symbol and the topic.
        provider: has the trades.
        topic: whether there is a topic that may have some of them already.
        scan: whether to read which ones it has.
        beyond: whether to continue past the newest trade on the topic, where a live loader may be writing.
    """

    ends = True

    def __init__(self, settings: Settings, provider: TradeProvider, *, topic: bool, scan: bool, beyond: bool) -> None:
        self._settings = settings
        self._provider = provider
        self._topic = topic
        self._scan = scan
        self._beyond = beyond
        self._task: Task | None = None
        self.origin = provider.origin
        self.missing: list[Gap] = []
        self.total: int | None = None
        """How many trades are to be loaded, once that is known."""

    def status(self) -> SourceStatus:
        """How it is doing. It has no time limits: a provider takes the time that it takes."""
        return SourceStatus(
            state="looking" if self._task is None else "loading",
            total=self.total,
            rest_weight=self._provider.rest_weight,
            resumes=self._topic and self._scan,  # the next run finds on the topic what is still missing
        )

    def prepare(self, receiver: Ingest | None = None, lanes: LaneKeeper | None = None) -> None:  # noqa: ARG002 - the interface's
        """Find out which trades are missing on the topic.

        Raises:
            ConfigurationError: if READ on the topic is denied, or the provider's trades cannot be used.
            RunError: if the brokers or the provider do not answer.
        """
        wanted = self._provider.survey()
        if wanted is not None and self._topic:
            wanted = self._up_to_newest(wanted)
        if wanted is None:
            events.info("nothing_to_load", "Nothing to load")
            self.total = 0
            return
        present = IdSet()
        if self._topic and self._scan:
            present = self._reading(lambda: ids_on_topic(self._settings, *wanted))
        self.missing = list(present.holes(wanted.first_id, wanted.last_id))
        if self._topic and self.missing:
            self._reading(lambda: self._check_topic(wanted))
        self.total = sum(map(len, self.missing))
        count, ids = len(self.missing), f"{wanted.first_id}-{wanted.last_id}"
        text = f"{self.total} trades to load, of ids {ids}, in {counted(count, 'range')}"
        events.info("to_load", text, trades=self.total, ranges=count)

    def _up_to_newest(self, wanted: TradeRange) -> TradeRange | None:
        newest = self._reading(lambda: newest_trade(self._settings))
        if newest.doubt:
            advice = "trades of a live loader may be duplicated; end the range with --to-id or --until"
            events.warn("topic_unchecked", f"{newest.doubt}: {advice}")
        if newest.last is None or self._beyond or newest.last.trade_id >= wanted.last_id:
            return wanted
        last_id = newest.last.trade_id
        text = f"Stopping at the newest trade on the topic, id {last_id}; --beyond continues past it"
        events.info("bounded_by_topic", text, trade_id=last_id)
        return wanted._replace(last_id=last_id) if last_id >= wanted.first_id else None

    def _check_topic(self, wanted: TradeRange) -> None:
        """Check that the topic accepts and keeps trades as old as the missing ones."""
        topic, age = self._settings.kafka_topic, max(0.0, time.time() - wanted.first_time / 1000)
        found = TopicAdmin(telemetry_producer_properties(self._settings), topic).settings()
        if self.missing[0].first == wanted.first_id:
            found.check("kafka_topic", age)
        if not found.uses_append_time and found.retention is not None and found.retention < age:
            events.warn(
                "retention_short",
                f"The topic {topic} keeps records for {found.retention / 3600:g} hours after the trade time, so Kafka "
                "will soon delete what is loaded; raise its retention.ms",
            )

    def _reading(self, read: Callable[[], _Read]) -> _Read:
        try:
            return read()
        except UnavailableError as error:
            if error.lasting:
                raise ConfigurationError(
                    f"{error}; grant it to the user, check {named('kafka_topic')} and "
                    f"{consumer_credentials(self._settings)}, or give --no-scan and --beyond"
                ) from error
            raise RunError(f"Cannot read the topic: {error}; check the brokers and run again") from error

    def start(self, receiver: Ingest, on_death: OnDeath) -> None:
        """Begin to load."""
        self._task = spawn("provider", lambda: self._provider.load(self.missing, receiver), on_death)

    def close(self) -> None:
        """Stop loading, without waiting."""
        self._provider.close()

    @property
    def done(self) -> bool:
        """Whether all has been brought."""
        return self._task is not None and self._task.join(0) and self._task.future.exception() is None

    def finish(self, *, final: bool, patient: bool) -> bool:  # noqa: ARG002 - the interface's
        """Whether nothing more comes."""
        return self.join(0)

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end; whether it has come."""
        return self._task is None or self._task.join(timeout)


def give_missing(
    batches: Iterable[list[Trade]], missing: list[Gap], lane: Lane, why: str, stopping: threading.Event
) -> None:
    """Hand over those of ascending trades that are in the ranges `missing`; skip ids that are not among them.

    Once `stopping` is set, what has not come is not skipped: the next run finds it missing.
    """
    ranges = iter(missing)
    wanted: Gap | None = None

    def next_range() -> None:
        nonlocal wanted
        if wanted:
            lane.skip(wanted.last + 1, why)
        wanted = next(ranges, None)
        if wanted:
            start_range(wanted, lane)

    next_range()
    for batch in batches:
        while wanted:
            low, high = bisect_left(batch, wanted.first, key=_by_id), bisect_right(batch, wanted.last, key=_by_id)
            for run in consecutive(batch[low:high]):
                # Before it comes: what is far ahead of a gap would be dropped.
                lane.skip(run[0].trade_id, why)
                lane.take_trades(run)
            if batch[-1].trade_id < wanted.last:
                break
            next_range()
        if not wanted:
            return
    while wanted and not stopping.is_set():
        next_range()


def consecutive(trades: list[Trade]) -> Iterator[list[Trade]]:
    """Trades, cut where an id does not follow the one before."""
    start = 0
    for place in range(1, len(trades)):
        if trades[place].trade_id != trades[place - 1].trade_id + 1:
            yield trades[start:place]
            start = place
    if trades:
        yield trades[start:]


def start_range(wanted: Gap, lane: Lane) -> None:
    """Expect the first trade of a range next."""
    lane.resume(Position(wanted.first - 1))


def ids_on_topic(settings: Settings, first_id: int, last_id: int, since: int) -> IdSet:
    """Those of the ids from `first_id` to `last_id` that are on the topic, and perhaps others.

    It is read from the time `since` (ms since 1970) to its end, because backfilled trades come after newer ones.

    Raises:
        UnavailableError: if the brokers do not answer, or READ on the topic is denied.
    """
    found, key = IdSet(), settings.symbol.encode()
    with closing(TopicScanner(settings)) as scanner:
        for partition, (start, end) in scanner.ranges(since).items():
            first, last = 0, -1  # consecutive ids: to add them at once is twice as fast
            for record in scanner.read(partition, start, end):
                if record.key != key or not (place := place_in(record.value, settings.symbol)):
                    continue
                if place.trade_id == last + 1:
                    last += 1
                elif first_id <= place.trade_id <= last_id:
                    found.include(first, last)
                    first = last = place.trade_id
            found.include(first, last)
    return found
