"""The Kafka sink: trades to their topic, counted when the brokers have acknowledged them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import msgspec

from loader_ws_trades import kafka
from loader_ws_trades.config import Settings, named, producer_credentials
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.properties import trade_producer_properties
from loader_ws_trades.trade import Trade, record_encoder

log = logging.getLogger(__name__)


_OUTAGE_TOLD = 5.0  # seconds without an acknowledgement after which the log says so


class _WithId(msgspec.Struct):
    trade_id: int


class Publisher:
    """Writes trades of `settings.symbol` to `settings.kafka_topic`, in the order of the calls to `put`.

    `put` is called under its caller's lock, by one thread at a time; all else by the main thread, which serves the
    delivery reports in `poll`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.kafka_topic
        self._key = settings.symbol.encode()
        self._encode = record_encoder(settings.symbol)
        self._accepted = 0  # moved by `put` alone
        self.delivered = 0  # this and the next two moved in `poll` alone
        self._failed_ids: list[int] = []
        self._failure: RunError | None = None
        self._refused: RunError | None = None  # moved by `put` alone
        self._progress = time.monotonic()
        self._away = False  # whether an outage was told of
        self._producer = kafka.Producer(
            trade_producer_properties(settings), self._report, credentials=producer_credentials()
        )

    def open(self, startup: kafka.Startup) -> None:
        """Wait until the brokers answer and know the topic, or the start is called off.

        Raises:
            ConfigurationError: if the topic, the credentials or a right is missing, or the topic keeps too little.
            RunError: if no broker answered in time.
        """
        if not kafka.await_topic(self._producer, self._topic, "kafka_topic", startup, right=kafka.AclOperation.WRITE):
            return
        if kafka.Inspector(self._producer.properties).cleanup_policy(self._topic) == "compact":
            raise ConfigurationError(
                f"The topic {self._topic} is only compacted and would keep one trade of a symbol; set its "
                f"cleanup.policy to delete, or check {named('kafka_topic')}"
            )

    def put(self, trades: Iterable[Trade]) -> int:
        """Hand trades to the producer, without blocking; how many it took, fewer when its queue is full."""
        produce, topic, key, encode = self._producer.produce, self._topic, self._key, self._encode
        taken = 0
        try:
            for trade in trades:
                produce(topic, encode(trade), key, timestamp=trade.timestamp)
                taken += 1
        except BufferError:
            pass
        except kafka.KafkaException as error:
            self._refused = kafka.failure(error, f"Writing to the topic {topic}")
        self._accepted += taken
        return taken

    def _report(self, error: object, message: kafka.Message) -> None:
        if error is None:
            self.delivered += 1
            return
        self._failed_ids.append(msgspec.json.decode(message.value() or b"", type=_WithId).trade_id)
        if self._failure is None:
            self._failure = RunError(f"Kafka did not take a record for the topic {self._topic}: {error}")

    def poll(self, timeout: float) -> None:
        """Serve delivery reports for at most `timeout` seconds.

        Raises:
            RunError: once a record was refused, or waited longer than the outage limit, or the producer failed.
        """
        before = self.delivered
        self._producer.poll(timeout)
        failure = self._failure or self._refused
        if failure:
            raise failure
        now = time.monotonic()
        if self.delivered != before or not self.in_flight:
            if self._away:
                log.info("Kafka acknowledges records again, after %.0f s", now - self._progress)
            self._progress, self._away = now, False
        elif not self._away and now - self._progress > _OUTAGE_TOLD:
            self._away = True
            log.warning(
                "Kafka has acknowledged nothing for %.0f s (%s), with %d records waiting; %s ends the run",
                now - self._progress,
                self._producer.trouble.reason,
                self.in_flight,
                named("kafka_outage_limit"),
            )
        if now - self._progress > self._settings.kafka_outage_limit:
            raise RunError(
                f"Kafka has acknowledged nothing for {self._settings.kafka_outage_limit:g} s "
                f"({self._producer.trouble.reason}); check the brokers, then run the loader again"
            )

    @property
    def in_flight(self) -> int:
        """Records handed to the producer without a delivery report yet."""
        return self._accepted - self.delivered - len(self._failed_ids)

    def give_up(self, deadline: Deadline) -> list[int]:
        """Let go of what is not delivered; its trade ids, of which some may be on the topic all the same."""
        self._producer.purge(deadline)
        return self._failed_ids
