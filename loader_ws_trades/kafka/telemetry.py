"""What the run tells `queue-manager`: nine fields a time, on a topic of their own, by a producer of their own."""

from __future__ import annotations

import logging
import math
import time

import msgspec

from loader_ws_trades.config.settings import Settings, producer_credentials, redacted
from loader_ws_trades.errors import RunError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.properties import telemetry_producer_properties
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.logs import Throttle

log = logging.getLogger(__name__)

_LINES = (30, 600.0)  # log lines of a kind, and the seconds they are counted over


class Event(msgspec.Struct):
    """One event; `timestamp` in Unix seconds with a fraction."""

    queue_id: str
    symbol: str
    type: str
    status: str
    message: str
    records_written: int
    finished: bool
    producer: str
    timestamp: float


class Telemetry:
    """Sends events of one run, in order; used by the main thread alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._encode = msgspec.json.Encoder().encode
        self._next = math.inf  # until the first event
        self._given_up = False
        self._told = Throttle(log, *_LINES)
        self.is_open = False
        self._producer = kafka.Producer(
            telemetry_producer_properties(settings), self._report, credentials=producer_credentials(settings)
        )

    def open(self, startup: Startup) -> None:
        """Wait until the brokers answer and know the topic, or the start is called off.

        Raises:
            ConfigurationError: if the topic, the credentials or a right is missing.
            RunError: if no broker answered in time.
        """
        self.is_open = kafka.await_topic(
            self._producer,
            self._settings.queue_events_topic,
            "queue_events_topic",
            startup,
            right=kafka.AclOperation.WRITE,
        )

    def send(self, status: str, message: str, records_written: int, *, finished: bool = False) -> None:
        """Send one event; a failure to is logged, and never stops the trades."""
        settings = self._settings
        event = Event(
            queue_id=settings.queue_id,
            symbol=settings.symbol,
            type=settings.type,
            status=status,
            message=redacted(message, settings),
            records_written=records_written,
            finished=finished,
            producer=settings.telemetry_producer_id,
            timestamp=round(time.time(), 3),
        )
        self._next = time.monotonic() + settings.telemetry_interval
        try:
            self._producer.produce(settings.queue_events_topic, self._encode(event), settings.queue_id.encode())
        except (BufferError, kafka.KafkaException) as error:
            self._told.warn("telemetry_unsent", f"A telemetry event ({status}) could not be sent: {error}")

    @property
    def due(self) -> bool:
        """Whether the interval since the last event has passed."""
        return time.monotonic() >= self._next

    def poll(self, timeout: float = 0) -> None:
        """Serve delivery reports for at most `timeout` seconds."""
        try:
            self._producer.poll(timeout)
        except RunError as error:
            self._told.warn("telemetry_failed", f"Telemetry: {error}")

    @property
    def flushed(self) -> bool:
        """Whether all events are delivered."""
        return not len(self._producer)

    def give_up(self) -> None:
        """Let go of what is not delivered."""
        left = len(self._producer)
        if left:
            log.error(
                "%d telemetry event(s) could not be delivered in time, the last one among them",
                left,
                extra={"event": "telemetry_lost", "lost": left},
            )
            self._given_up = True
            self._producer.purge(Deadline(0.5))

    def _report(self, error: object, _message: kafka.Message) -> None:
        if error is not None and not self._given_up:
            self._told.warn("telemetry_undelivered", f"A telemetry event was not delivered: {error}")


class NoTelemetry:
    """Tells nobody: for a run without Kafka."""

    is_open = False
    due = False
    flushed = True

    def open(self, startup: Startup) -> None:
        """Nothing to reach."""

    def send(self, status: str, message: str, records_written: int, *, finished: bool = False) -> None:
        """Nobody to send to."""

    def poll(self, timeout: float = 0) -> None:
        """Nothing to serve."""

    def give_up(self) -> None:
        """Nothing to let go of."""
