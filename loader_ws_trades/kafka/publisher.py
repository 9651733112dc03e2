"""The Kafka sink: writes trades to their topic and counts the ones that the brokers have acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.config.symbols import PLACE
from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError
from loader_ws_trades.kafka.delivery_outage import DeliveryOutage
from loader_ws_trades.kafka.errors import FencedError, run_error
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import batch_size, linger, producer_credentials, trade_producer_properties
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.kafka.topic_settings import TopicSettings, delivery_error
from loader_ws_trades.kafka.topics import check_topics
from loader_ws_trades.lifecycle import Deadline, Startup, Wakeup
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.interfaces import Undelivered
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.records import decode_place
from loader_ws_trades.pipeline.stamps import record_headers
from loader_ws_trades.pipeline.trade import FAR_AHEAD_MS, Trade
from loader_ws_trades.text import format_time

events = Events(logging.getLogger(__name__))

_POLL = 0.19  # seconds; from 0.2 on the client waits on after it has served reports
_MANY = 2_000  # undelivered records at which their reports are served at once: milliseconds without the feed
_LARGE = 100  # trades put at once of which no more are encoded than there is room for
_REPORTS = 3.0  # seconds to wait for the other delivery reports after an error: one of them may say why it came
# Seconds between two reports that are served as they come, to see how long a delivery takes; with metrics each second
# turn is such a one.
_SAMPLE, _METRICS_SAMPLE = 2.0, 0.05
_SLOW = 0.1  # seconds: what a delivery takes at most for that purpose
_LOCAL = (1, False)  # the severity of what librdkafka reports by itself: records purged, the producer's state


_Report = Callable[[KafkaError | None, Message], None]
_Route = tuple[str, bytes, Callable[[Trade], str], _Report | None]  # topic, key, encoder, delivery report


def _latest_time() -> int:
    """The latest trade time (ms) that may be used as a record timestamp."""
    return int(time.time() * 1000) + FAR_AHEAD_MS


class Publisher:
    """Writes the trades of each pair to its topic, in the order of the calls to `put`.

    `put` is called by one thread at a time, under the caller's lock. The main thread calls everything else, and
    `poll` runs the delivery reports in it. `kind` sets the transactional id of a command apart that may run beside
    `run`.
    """

    def __init__(self, settings: Settings, kind: str = "") -> None:
        self._settings = settings
        self._kind = kind
        self._topic = settings.kafka_topic
        self._routes: dict[Lane, _Route] = {}
        self._only: Lane | None = None  # the lane, if there is one
        self._with_headers = settings.record_headers == "on"
        self.accepted = 0  # written by `put` only
        self._acknowledged = 0  # this and the next two are written by delivery reports only
        self._failed: list[Undelivered] = []
        self._failure: LoaderError | None = None  # the most serious, as `_severity` says
        self._severity = (0, False)  # its exit code, and whether a broker's answer says it
        self._put_error: RunError | None = None  # written by `put` only
        self.delivery_time = 0.0
        """Seconds from `put` to the acknowledgement, without `linger.ms`: the shorter of the last two seen."""
        self._last_time = 0.0  # the last one
        self._sample_every = _SAMPLE if settings.metrics_port is None else _METRICS_SAMPLE
        self._next_sample = Deadline(_SAMPLE if settings.metrics_port is None else 0)
        self._takes_time = False  # whether the next report is that of the sample
        self._served_late = 0
        self._many = min(_MANY, settings.kafka_queue_records // 4)
        self._hurry = Wakeup()  # set once delivery reports must not gather any longer
        self._awaits_trade = False  # whether `put` is to end the wait of `poll`
        self._seen_accepted = 0  # by the last `poll`
        self._draining = False
        limit = settings.kafka_outage_limit
        self._outage = DeliveryOutage(limit, lambda: self._producer.diagnosis.reason, on_stall=self._occupy)
        self._latest = _latest_time()  # renewed by `poll`, so that `put` does not read the clock
        self._warned_ahead = False
        self._max_batch_size: int | None = None  # the topic's limit, if it is below ours
        self._producer = self._make_producer()

    def __str__(self) -> str:
        return f"the {'topics' if PLACE in self._topic else 'topic'} {self._topic}"

    def _make_producer(self) -> Producer:
        properties = trade_producer_properties(self._settings, self._kind)
        if self._max_batch_size is not None:
            properties["batch.size"] = min(self._max_batch_size, batch_size(properties))
        producer = Producer(properties, self._report, credentials=producer_credentials(self._settings))
        self._linger = linger(properties)
        return producer

    def open(self, startup: Startup) -> None:
        """Wait until the topic can be written to, or the start is cancelled.

        Raises:
            ConfigurationError: if the topic or a permission is missing, credentials or trades would be rejected.
            RunError: if no broker answered in time.
        """
        if PLACE in self._topic:
            return  # `admit` looks them up
        check = self._check_topic_settings
        await_topic(self._producer, self._topic, "kafka_topic", startup, operation="WRITE", check=check)

    def admit(self, lanes: Sequence[Lane], startup: Startup) -> dict[Lane, LoaderError]:
        """Why the topics of pairs cannot be written to, if each pair has one of its own; waits as `check_topics`."""
        if PLACE not in self._topic:
            return {}
        topics, credentials = [lane.settings.kafka_topic for lane in lanes], producer_credentials(self._settings)
        refused = check_topics(self._producer.properties, topics, startup, credentials=credentials)
        return {lane: refused[lane.settings.kafka_topic] for lane in lanes if lane.settings.kafka_topic in refused}

    def _check_topic_settings(self, found: TopicSettings) -> None:
        found.check("kafka_topic")
        if found.max_batch_size < batch_size(self._producer.properties):
            # The records queued during an outage would otherwise be rejected as one batch.
            self._max_batch_size = int(found.max_batch_size)
            self._producer = self._make_producer()

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        """Hand trades to the producer without blocking; how many it took, fewer when its queue is full."""
        produce = self._producer.produce
        topic, key, encode, report = self._routes.get(lane) or self._add_route(lane)
        latest, with_headers = self._latest, self._with_headers
        if len(trades) > _LARGE:
            trades = trades[: max(0, self._settings.kafka_queue_records - len(self._producer))]
        # All at first: librdkafka sends what it has as soon as it can, and these records are to share a request.
        values = list(map(encode, trades))
        taken = 0
        try:
            for trade in trades:
                moment = trade.timestamp
                if moment > latest:
                    moment = self._local_time_for(trade)
                # Positional, as keywords cost a third of the call: any partition, the trade time.
                if with_headers:
                    produce(topic, values[taken], key, -1, report, None, moment, record_headers(trade))
                else:
                    produce(topic, values[taken], key, -1, report, None, moment)
                taken += 1
        except BufferError:
            self._hurry.set()
        except KafkaException as error:
            self._put_error = run_error(error, f"Writing to the topic {topic}")
            self._hurry.set()
        self.accepted += taken
        lane.accepted += taken
        if self._awaits_trade or self.accepted - self._acknowledged >= self._many:
            self._hurry.set()
        return taken

    def _add_route(self, lane: Lane) -> _Route:
        route = (lane.settings.kafka_topic, lane.symbol.encode(), lane.encode, self._report_for(lane))
        self._routes[lane] = route
        return route

    def _report_for(self, lane: Lane) -> _Report | None:
        """What counts the deliveries of one of many pairs; the default report costs less, but counts all together."""
        if not self._settings.many:
            self._only = lane
            return None

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                lane.delivered += 1
            self._report(error, message)

        return report

    def _local_time_for(self, trade: Trade) -> int:
        if not self._warned_ahead:
            self._warned_ahead = True
            events.warn(
                "trade_time_ahead",
                f"The time of trade {trade.trade_id}, {format_time(trade.timestamp)}, is more than "
                f"{FAR_AHEAD_MS // 60_000} minutes ahead of the local clock, so the local time is used as its record "
                "timestamp; check the clock (logged once)",
                trade_id=trade.trade_id,
            )
        return int(time.time() * 1000)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._acknowledged += 1
            if self._takes_time:
                self._takes_time = False
                self._next_sample = Deadline(self._sample_every)
                # `latency` is the time until now: of reports that have gathered it says nothing.
                last, self._last_time = self._last_time, max(0.0, (message.latency() or 0.0) - self._linger)
                self.delivery_time = min(last, self._last_time, _SLOW)
            return
        stored = decode_place(message.value() or b"")
        self._failed.append((stored.symbol, stored.trade_id))
        found = delivery_error(error, message.topic() or self._topic, "kafka_topic", stored.timestamp)
        severity = found.exit_code, error.code() > 0
        if severity > self._severity:
            self._failure, self._severity = found, severity

    def poll(self, timeout: float) -> None:
        """Serve delivery reports for at most `timeout` seconds.

        Being woken for each one costs as much as writing its trade. So they gather for `timeout` and are served
        together, unless they are many or the run ends. Now and then, with metrics in turn with those, one is served as
        it comes, so that its delay is known. The first trade after a pause ends the wait.

        Raises:
            ConfigurationError: if a record was rejected because of the topic's settings.
            RunError: if a record was rejected, the outage limit was exceeded, or the producer failed.
        """
        self._latest = _latest_time()
        before, pending = (self._acknowledged, self.delivered), self._has_pending
        sample = self._next_sample.passed
        self._takes_time = sample and pending
        gather = not (self._is_urgent or self._takes_time)
        if gather:
            self._awaits_trade = sample or self.accepted == self._seen_accepted
            self._seen_accepted = self.accepted
            self._hurry.wait(timeout)
            self._awaits_trade = False
        self._serve(0 if gather else min(timeout, _POLL))
        if self._only:
            self._only.delivered = self.delivered
        progress = (self._acknowledged, self.delivered) != before
        if gather:
            self._served_late = self.delivered
        # An outage begins with a wait for an answer, not with the pause before it.
        self._outage.watch(self.in_flight, progress=progress or not (pending and self._has_pending))

    def _occupy(self) -> None:
        topic, *_ = next(iter(self._routes.copy().values()))  # `put` may add one meanwhile
        self._producer.occupy(topic)

    def wake(self) -> None:
        """End the wait of `poll`; safe in any thread and in a signal handler."""
        self._hurry.set()

    @property
    def _is_urgent(self) -> bool:
        """Whether delivery reports must be served as soon as they come."""
        return self._draining or self._unacknowledged >= self._many

    def _serve(self, timeout: float) -> None:
        try:
            self._producer.poll(timeout)
            if failure := self._failure or self._put_error:
                raise failure
        except FencedError:
            raise
        except RunError as error:
            raise self._cause_of(error) from None

    def _cause_of(self, error: LoaderError) -> LoaderError:
        """Why the run must end. Other records may be purged, or `put` fail, before the rejection is reported."""
        reports = Deadline(_REPORTS)
        while not isinstance(self._failure, ConfigurationError) and not reports.passed:
            try:
                self._producer.poll(_REPORTS / 30)
            except FencedError:
                raise
            except RunError as fatal:
                error = fatal
            if not self._unacknowledged:
                break
        return self._failure if self._failure and self._severity > _LOCAL else error

    @property
    def delivered(self) -> int:
        """Records that are on the topic for certain."""
        return self._acknowledged

    @property
    def outages(self) -> int:
        """How many outages were logged."""
        return self._outage.count

    @property
    def served_late(self) -> int:
        """How many of the delivered records may have been so for a while when that was noticed."""
        return self._served_late

    @property
    def in_flight(self) -> int:
        """Records handed to the producer that are neither delivered nor rejected yet."""
        return self.accepted - self.delivered - len(self._failed)

    @property
    def waiting_since(self) -> float | None:
        """Since when (monotonic) nothing was acknowledged although records are queued; None if none are."""
        return self._outage.last_progress if self._has_pending else None

    @property
    def _has_pending(self) -> bool:
        """Whether an answer of the brokers is due."""
        return self._unacknowledged > 0

    @property
    def _unacknowledged(self) -> int:
        return self.accepted - self._acknowledged - len(self._failed)

    def drain(self) -> None:
        """From now on serve delivery reports at once, and commit at once what was produced."""
        self._draining = True

    def give_up(self, deadline: Deadline) -> list[Undelivered]:
        """Discard what is not delivered; the trades, some of which may be on the topic all the same."""
        self._producer.purge(deadline)
        return self._failed
