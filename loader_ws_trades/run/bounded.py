"""A source that has an end: what the topic lacks of a stretch of trades, ascending, wherever they come from."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar

from loader_ws_trades.config.settings import Settings, consumer_credentials, named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.checkpoint import newest_trade
from loader_ws_trades.kafka.properties import consumer_properties, telemetry_producer_properties
from loader_ws_trades.kafka.reader import TopicScanner
from loader_ws_trades.lifecycle import Task, spawn
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.interfaces import Intake, OnDeath, Source, SourceStatus
from loader_ws_trades.pipeline.records import decode_place
from loader_ws_trades.pipeline.sequencer import Gap, Position
from loader_ws_trades.pipeline.trade import BAD_INPUT, Trade

log = logging.getLogger(__name__)

_Read = TypeVar("_Read")


class Stretch(NamedTuple):
    """Trades that can be had: ids with both ends, and the time of the first one in milliseconds."""

    first_id: int
    last_id: int
    first_time: int


class Supply(Protocol):
    """Where the trades of a bounded run come from."""

    @property
    def rest_weight(self) -> int:
        """Request weight of the last minute; 0 where REST is not asked."""

    def survey(self) -> Stretch | None:
        """Find out what can be had of what was asked for; None if nothing. May take long."""

    def load(self, lacking: list[Gap], intake: Intake) -> None:
        """Bring the trades of the ranges `lacking`, which ascend; what cannot be had is skipped by name."""

    def close(self) -> None:
        """End every wait; may be called again."""


class Bounded(Source):
    """Loads what the topic lacks of a supply.

    Args:
        settings: the symbol and the topic.
        supply: what there is.
        topic: whether there is a topic that may hold some of it.
        scan: whether to look what the topic holds.
        beyond: whether to go on behind the topic's newest trade, where a live loader may be writing.
    """

    def __init__(self, settings: Settings, supply: Supply, *, topic: bool, scan: bool, beyond: bool) -> None:
        self._settings = settings
        self._supply = supply
        self._topic = topic
        self._scan = scan
        self._beyond = beyond
        self._task: Task | None = None
        self.lacking: list[Gap] = []
        self.total: int | None = None
        """How many trades are to be loaded, once that is known."""

    def status(self) -> SourceStatus:
        """How it is doing. It has no time limits: a supply takes the time that it takes."""
        return SourceStatus(
            state="looking" if self._task is None else "loading",
            total=self.total,
            rest_weight=self._supply.rest_weight,
            resumes=self._topic and self._scan,  # the next run finds on the topic what is still missing
        )

    def prepare(self, intake: Intake | None = None) -> None:  # noqa: ARG002 - the port's
        """Find out what the topic lacks.

        Raises:
            ConfigurationError: if there is no right to read the topic, or the supply is of no use.
            RunError: if the brokers or the supply do not answer.
        """
        stretch = self._supply.survey()
        if stretch is not None and self._topic:
            stretch = self._kept_behind(stretch)
        if stretch is None:
            log.info("There is nothing to load", extra={"event": "nothing_to_load"})
            self.total = 0
            return
        present = IdSet()
        if self._topic and self._scan:
            present = self._reading(lambda: ids_on_topic(self._settings, stretch))
        self.lacking = list(present.holes(stretch.first_id, stretch.last_id))
        if self._topic and self.lacking:
            self._reading(lambda: self._suit_topic(stretch))
        self.total = sum(map(len, self.lacking))
        log.info(
            "Of the trade ids %d-%d the topic lacks %d, in %d range(s)",
            stretch.first_id,
            stretch.last_id,
            self.total,
            len(self.lacking),
            extra={"event": "lacking", "lacking": self.total, "ranges": len(self.lacking)},
        )

    def _kept_behind(self, stretch: Stretch) -> Stretch | None:
        newest = self._reading(lambda: newest_trade(self._settings))
        if newest.doubt:
            log.warning(
                "%s: what a live loader may be writing is loaded too; --to-id or --until ends it",
                newest.doubt,
                extra={"event": "topic_unchecked"},
            )
        if newest.last is None or self._beyond or newest.last.trade_id >= stretch.last_id:
            return stretch
        last_id = newest.last.trade_id
        log.info(
            "Only up to the topic's newest trade, id %d; --beyond goes further",
            last_id,
            extra={"event": "bounded_by_topic", "trade_id": last_id},
        )
        return stretch._replace(last_id=last_id) if last_id >= stretch.first_id else None

    def _suit_topic(self, stretch: Stretch) -> None:
        """See whether the topic takes and keeps trades as old as those that it lacks."""
        topic, age = self._settings.kafka_topic, max(0.0, time.time() - stretch.first_time / 1000)
        told = TopicAdmin(telemetry_producer_properties(self._settings), topic).settings()
        if self.lacking[0].first == stretch.first_id:
            told.check("kafka_topic", age)
        if not told.uses_append_time and told.retention is not None and told.retention < age:
            log.warning(
                "The topic %s keeps records for %g hours, counted from the trade time: Kafka soon deletes what is "
                "loaded; raise its retention.ms",
                topic,
                told.retention / 3600,
                extra={"event": "retention_short"},
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
            raise RunError(
                f"What the topic holds cannot be seen: {error}; check the brokers, then run again"
            ) from error

    def start(self, intake: Intake, on_death: OnDeath) -> None:
        """Begin to load."""
        self._task = spawn("supply", lambda: self._supply.load(self.lacking, intake), on_death)

    def close(self) -> None:
        """Stop loading, without waiting."""
        self._supply.close()

    @property
    def done(self) -> bool:
        """Whether all has been brought."""
        return self._task is not None and self._task.join(0) and self._task.future.exception() is None

    def finish(self, *, final: bool, patient: bool) -> bool:  # noqa: ARG002 - the port's
        """Whether nothing more comes."""
        return self.join(0)

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end; whether it has come."""
        return self._task is None or self._task.join(timeout)


def ids_on_topic(settings: Settings, stretch: Stretch) -> IdSet:
    """The ids of a stretch that the topic holds, read from its first time to the end of the topic.

    Raises:
        UnavailableError: if the brokers do not answer, or give no right to read the topic.
    """
    found = IdSet()
    key = settings.symbol.encode()
    scanner = TopicScanner(consumer_properties(settings), settings.kafka_topic)
    try:
        for partition, (start, end) in scanner.ranges(stretch.first_time).items():
            first = last = -1  # of a run of ids that is not in `found` yet
            for record in scanner.read(partition, start, end):
                if record.key != key or not record.value:
                    continue
                try:
                    place = decode_place(record.value)
                except BAD_INPUT:
                    continue
                if place.symbol != settings.symbol:
                    continue
                trade_id = place.trade_id
                is_new = stretch.first_id <= trade_id <= stretch.last_id and trade_id not in found
                if is_new and trade_id == last + 1 and first >= 0:
                    last = trade_id
                    continue
                if first >= 0:
                    found.add(first, last)
                    is_new = is_new and trade_id not in found
                first = last = trade_id if is_new else -1
            if first >= 0:
                found.add(first, last)
    finally:
        scanner.close()
    return found


def give_lacking(
    batches: Iterable[list[Trade]], lacking: list[Gap], intake: Intake, why: str, stopping: threading.Event
) -> None:
    """Bring of trades that ascend by id those in the ranges `lacking`; ids that are not among them are skipped.

    Once `stopping` is set, what has not come is not missing: the next run finds it lacking.
    """
    by_id = attrgetter("trade_id")
    ranges = iter(lacking)
    wanted: Gap | None = None

    def turn_to_next() -> None:
        nonlocal wanted
        if wanted:
            intake.skip(wanted.last + 1, why)
        wanted = next(ranges, None)
        if wanted:
            begin(wanted, intake)

    turn_to_next()
    for batch in batches:
        while wanted:
            low, high = bisect_left(batch, wanted.first, key=by_id), bisect_right(batch, wanted.last, key=by_id)
            for run in runs(batch[low:high]):
                # Before it comes: what is far ahead of a gap would be let go.
                intake.skip(run[0].trade_id, why)
                intake.give(run)
            if batch[-1].trade_id < wanted.last:
                break
            turn_to_next()
        if not wanted:
            return
    while wanted and not stopping.is_set():
        turn_to_next()


def runs(trades: list[Trade]) -> Iterator[list[Trade]]:
    """Trades, cut where an id does not follow the one before."""
    start = 0
    for place in range(1, len(trades)):
        if trades[place].trade_id != trades[place - 1].trade_id + 1:
            yield trades[start:place]
            start = place
    if trades:
        yield trades[start:]


def begin(wanted: Gap, intake: Intake) -> None:
    """Expect the first trade of a range next."""
    intake.resume(Position(wanted.first - 1, 0))
