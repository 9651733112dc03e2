"""The events for `queue-manager`: nine fields each, on their own topic, by a producer that outlives the trades'."""

from __future__ import annotations

import logging
import time

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import RunError
from loader_ws_trades.kafka.errors import error_text, plain
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import TELEMETRY_QUEUE, producer_credentials, telemetry_producer_properties
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.logs import Events, Throttle, redacted
from loader_ws_trades.text import counted

log = logging.getLogger(__name__)
events = Events(log)

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
    """Sends the events of a run, in order; used by the main thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._encode = msgspec.json.Encoder().encode
        self._given_up = False
        self._throttle = Throttle(log, *_LINES)
        self.is_open = False
        properties = telemetry_producer_properties(settings)
        self._producer = Producer(properties, self._report, credentials=producer_credentials(settings))

    def open(self, startup: Startup) -> None:
        """Wait until the topic can be written to, or the start is cancelled.

        Raises:
            ConfigurationError: if the topic or the permission is missing, or the user or any record is rejected.
            RunError: if no broker answered in time.
        """
        setting = "queue_events_topic"
        self.is_open = await_topic(
            self._producer,
            self._settings.queue_events_topic,
            setting,
            startup,
            operation="WRITE",
            check=lambda found: found.check_size(setting),
        )

    def send(
        self, status: str, message: str, records_written: int, settings: Settings, *, finished: bool = False
    ) -> None:
        """Send one event of the pair whose settings these are; a failure is logged and never stops the trades."""
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
        try:
            self._producer.produce(settings.queue_events_topic, self._encode(event), settings.queue_id.encode())
        except (BufferError, KafkaException) as error:
            text = f"A telemetry event ({status}) could not be sent: {plain(str(error))}"
            self._throttle.warn("telemetry_unsent", text)

    @property
    def congested(self) -> bool:
        """Whether so many events wait for the brokers that last ones might find no room."""
        return len(self._producer) > TELEMETRY_QUEUE // 2

    def poll(self, timeout: float = 0) -> None:
        """Serve delivery reports for at most `timeout` seconds."""
        try:
            self._producer.poll(timeout)
        except RunError as error:
            self._throttle.warn("telemetry_failed", f"Telemetry: {error}")

    @property
    def flushed(self) -> bool:
        """Whether all events are delivered."""
        return not len(self._producer)

    def give_up(self) -> None:
        """Discard what is not delivered."""
        left = len(self._producer)
        if left:
            text = f"{counted(left, 'telemetry event')} could not be delivered in time, the last one among them"
            events.error("telemetry_lost", text, lost=left)
            self._given_up = True
            self._producer.purge(Deadline(0.5))

    def _report(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and not self._given_up:
            self._throttle.warn("telemetry_undelivered", f"A telemetry event was not delivered: {error_text(error)}")
