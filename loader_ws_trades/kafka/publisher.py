"""The Kafka sink: trades to their topic, counted when the brokers have acknowledged them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterable

import msgspec

from loader_ws_trades.config.settings import Settings, named, producer_credentials
from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.properties import KafkaProperties, trade_producer_properties
from loader_ws_trades.kafka.topics import Inspector
from loader_ws_trades.kafka.transactions import Transactions
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.pipeline.trade import FAR_AHEAD_MS, Trade, record_encoder
from loader_ws_trades.text import format_duration, format_time

log = logging.getLogger(__name__)

_OUTAGE_TOLD = 5.0  # seconds without an acknowledgement after which the log says so
_REPORTS = 1.0  # seconds in which the reports of what was refused come, behind the error of the producer itself
_BATCH = 1_000_000  # librdkafka's default of `batch.size`


class _Stored(msgspec.Struct):
    trade_id: int
    timestamp: int


def _latest_time() -> int:
    """The latest trade time (ms) that a record may have as its timestamp."""
    return int(time.time() * 1000) + FAR_AHEAD_MS


class Publisher:
    """Writes trades of `settings.symbol` to `settings.kafka_topic`, in the order of the calls to `put`.

    `put` is called under its caller's lock, by one thread at a time; all else by the main thread, which serves the
    delivery reports in `poll`. A command that may run beside `run` gives its `kind`, not to fence it off.
    """

    def __init__(self, settings: Settings, kind: str = "") -> None:
        self._settings = settings
        self._kind = kind
        self._topic = settings.kafka_topic
        self._key = settings.symbol.encode()
        self._encode = record_encoder(settings.symbol)
        self.accepted = 0  # moved by writing alone
        self._acknowledged = 0  # this and the next two moved in `poll` alone
        self._failed_ids: list[int] = []
        self._failure: LoaderError | None = None
        self._refused: RunError | None = None  # moved by `put` alone
        self._progress = time.monotonic()
        self._away = False  # whether an outage was told of
        self._latest = _latest_time()  # moved in `poll`, so that `put` needs no clock
        self._told_ahead = False
        self.outages = 0
        """How many outages were told of."""
        self._largest_batch: int | None = None  # bytes that the topic takes at once, where that is less than ours
        self._producer = self._make_producer()
        self._transactions: Transactions | None = None

    def __str__(self) -> str:
        return f"the topic {self._topic}"

    def _make_producer(self) -> kafka.Producer:
        properties = trade_producer_properties(self._settings, self._kind)
        if self._largest_batch is not None:
            properties["batch.size"] = min(self._largest_batch, self._batch_size(properties))
        return kafka.Producer(properties, self._report, credentials=producer_credentials(self._settings))

    @staticmethod
    def _batch_size(properties: KafkaProperties) -> int:
        return int(properties.get("batch.size", _BATCH))

    def open(self, startup: Startup) -> None:
        """Wait until the brokers answer and know the topic, or the start is called off.

        Raises:
            ConfigurationError: if the topic, the credentials or a right is missing, or the topic must refuse trades.
            RunError: if no broker answered in time.
        """
        if not kafka.await_topic(self._producer, self._topic, "kafka_topic", startup, right=kafka.AclOperation.WRITE):
            return

        def poll(seconds: float) -> None:
            self._producer.poll(seconds)  # the newest one: the fatal error of one that was refused would end the start

        if not kafka.persist(self._suit_topic, startup, poll) or self._settings.delivery != "transactional":
            return
        if kafka.persist(self._fence, startup, poll):
            self._transactions = Transactions(self._producer, self._settings, self._write_again, self._undone)

    def _suit_topic(self) -> None:
        found = Inspector(self._producer.properties).settings(self._topic)
        found.check("kafka_topic")
        if found.largest_batch < self._batch_size(self._producer.properties):
            # What has waited in an outage would be refused as one batch.
            self._largest_batch = int(found.largest_batch)
            self._producer = self._make_producer()

    def _fence(self) -> None:
        try:
            self._producer.init_transactions()
        except ConfigurationError:
            self._producer = self._make_producer()  # the other one would refuse for ever, whatever is granted
            raise

    def put(self, trades: Iterable[Trade]) -> int:
        """Hand trades to the producer, without blocking; how many it took, fewer when its queue is full."""
        if self._transactions is None:
            return self._write(trades)
        try:
            if not self._transactions.enter():
                return 0
        except RunError as error:
            self._refused = error
            return 0
        try:
            taken = self._write(trades)
            self._transactions.keep(itertools.islice(trades, taken))
        finally:
            self._transactions.leave()
        return taken

    def _write(self, trades: Iterable[Trade]) -> int:
        produce, topic, key, encode = self._producer.produce, self._topic, self._key, self._encode
        latest = self._latest
        taken = 0
        try:
            for trade in trades:
                moment = trade.timestamp
                if moment > latest:
                    moment = self._now_instead_of(trade)
                # By place, as keywords cost a third of the call: any partition, our own report, the trade time.
                produce(topic, encode(trade), key, -1, None, None, moment)
                taken += 1
        except BufferError:
            pass
        except kafka.KafkaException as error:
            self._refused = kafka.failure(error, f"Writing to the topic {topic}")
        self.accepted += taken
        return taken

    def _now_instead_of(self, trade: Trade) -> int:
        if not self._told_ahead:
            self._told_ahead = True
            log.warning(
                "The time of trade %d, %s, is more than %d minutes ahead of the local clock, whose time its record "
                "bears; check the clock (more of this kind are not logged)",
                trade.trade_id,
                format_time(trade.timestamp),
                FAR_AHEAD_MS // 60_000,
                extra={"event": "trade_time_ahead", "trade_id": trade.trade_id},
            )
        return int(time.time() * 1000)

    def _report(self, error: kafka.KafkaError | None, message: kafka.Message) -> None:
        if error is None:
            self._acknowledged += 1
            return
        stored = msgspec.json.decode(message.value() or b"", type=_Stored)
        self._failed_ids.append(stored.trade_id)
        if self._failure is None:
            self._failure = kafka.undelivered(error, self._topic, "kafka_topic", stored.timestamp)

    def poll(self, timeout: float) -> None:
        """Serve delivery reports for at most `timeout` seconds.

        Raises:
            ConfigurationError: once a record was refused because of the topic's settings.
            RunError: once a record was refused, or waited longer than the outage limit, or the producer failed.
        """
        self._latest = _latest_time()
        before = self._acknowledged, self.delivered
        try:
            self._serve(timeout)
            if self._transactions:
                self._transactions.turn(self._acknowledged, lambda: self._unacknowledged)
        except kafka.FencedError as error:
            raise (self._transactions.explained() if self._transactions else error) from error
        self._watch(moved=(self._acknowledged, self.delivered) != before)

    def _serve(self, timeout: float) -> None:
        try:
            self._producer.poll(timeout)
            failure = self._failure or self._refused
            if failure:
                self._producer.poll(0)  # an error of the producer itself says more
                raise failure
        except kafka.FencedError:
            raise
        except RunError as error:
            late = Deadline(_REPORTS)
            while self._unacknowledged and not self._failure and not late.passed:
                with contextlib.suppress(RunError):
                    self._producer.poll(_REPORTS / 10)
            if isinstance(self._failure, ConfigurationError):
                raise self._failure from error
            raise

    def _watch(self, *, moved: bool) -> None:
        """Tell when an outage begins and ends, and end the run when it is too long."""
        now = time.monotonic()
        if moved or not (self._unacknowledged or self._is_ending):
            if self._away:
                again = "Kafka acknowledges records again, after %s; %d records wait"
                log.info(
                    again,
                    format_duration(now - self._progress),
                    self.in_flight,
                    extra={"event": "kafka_back", "seconds": round(now - self._progress, 3)},
                )
            self._progress, self._away = now, False
        elif not self._away and now - self._progress > _OUTAGE_TOLD:
            self._away = True
            self.outages += 1
            log.warning(
                "Kafka has acknowledged nothing for %.0f s (%s), and %d records wait; after %g s the run ends, by %s",
                now - self._progress,
                self._producer.trouble.reason,
                self.in_flight,
                self._settings.kafka_outage_limit,
                named("kafka_outage_limit"),
                extra={"event": "kafka_outage", "in_flight": self.in_flight},
            )
        if now - self._progress > self._settings.kafka_outage_limit:
            raise RunError(
                f"Kafka has acknowledged nothing for {self._settings.kafka_outage_limit:g} s "
                f"({self._producer.trouble.reason}); check the brokers, then run the loader again"
            )

    @property
    def delivered(self) -> int:
        """Records that the brokers have acknowledged, or committed where there are transactions."""
        return self._transactions.committed if self._transactions else self._acknowledged

    @property
    def in_flight(self) -> int:
        """Records handed to the producer that are neither delivered nor refused yet."""
        return self.accepted - self.delivered - len(self._failed_ids)

    @property
    def waiting_since(self) -> float | None:
        """Since when (monotonic) the brokers have acknowledged nothing though records wait; None if none wait."""
        return self._progress if self._unacknowledged > 0 or self._is_ending else None

    @property
    def _is_ending(self) -> bool:
        return self._transactions is not None and self._transactions.ending

    @property
    def _unacknowledged(self) -> int:
        return self.accepted - self._acknowledged - len(self._failed_ids)

    def _write_again(self, trades: Iterable[Trade]) -> int:
        taken = self._write(trades)
        self.accepted -= taken  # they count already: what is to be written again is still in flight
        return taken

    def _undone(self) -> None:
        self._acknowledged = self.delivered

    def drain(self) -> None:
        """Commit at once what comes from now on."""
        if self._transactions:
            self._transactions.hurry()

    def give_up(self, deadline: Deadline) -> list[int]:
        """Let go of what is not delivered; its trade ids, of which some may be on the topic all the same."""
        self._producer.purge(deadline)
        return self._transactions.give_up(deadline.remaining) if self._transactions else self._failed_ids
