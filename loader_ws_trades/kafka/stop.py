"""The command `stop`: sends the stop command and, if asked to, waits for the event that confirms it."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.control import Command
from loader_ws_trades.kafka.errors import run_error
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import producer_credentials, telemetry_producer_properties
from loader_ws_trades.kafka.reader import TopicReader
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.kafka.topic_settings import delivery_error
from loader_ws_trades.lifecycle import Deadline, Startup, StopReason
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import printable

events = Events(logging.getLogger(__name__))

_POLL = 0.1  # seconds that one read may take
_LONGEST = 2000  # characters of an event's message that are shown


class _Event(msgspec.Struct):
    queue_id: str
    status: str
    message: str
    finished: bool


_decode = msgspec.json.Decoder(_Event).decode


def stop(settings: Settings, wait: float | None) -> StopReason:
    """Send the stop command; with `wait`, wait for that many seconds until an event says why a loader ended.

    Raises:
        ConfigurationError: if a topic or a permission is missing, or the user is rejected.
        RunError: if the brokers did not answer, or no such event came in time.
    """
    if wait is None:
        return StopReason.complete(f"Sent the stop command for {settings.queue_id} to {_send(settings)}")
    with closing(TopicReader(settings, settings.queue_events_topic)) as reader:
        _go_to_end(reader, settings)
        events.info("stop_sent", f"Sent the stop command for {settings.queue_id} to {_send(settings)}")
        return _await_end(reader, settings, Deadline(wait))


def _startup(settings: Settings) -> Startup:
    return Startup(Deadline(settings.startup_timeout), settings.startup_grace)


def _send(settings: Settings) -> str:
    """Send the command and wait until it is acknowledged; where it stands."""
    topic, startup = settings.queue_control_topic, _startup(settings)
    reports: list[tuple[KafkaError | None, int, int]] = []

    def report(error: KafkaError | None, message: Message) -> None:
        reports.append((error, message.partition() or 0, message.offset() or 0))

    properties, credentials = telemetry_producer_properties(settings), producer_credentials(settings)
    producer = Producer(properties, report, credentials=credentials)
    await_topic(producer, topic, "queue_control_topic", startup, operation="WRITE")
    command = msgspec.json.encode(Command(command="stop", queue_id=settings.queue_id))
    try:
        producer.produce(topic, command, settings.queue_id.encode())
        while not reports and not startup.deadline.passed:
            producer.poll(_POLL)
    except KafkaException as error:
        raise run_error(error, f"Writing to the topic {topic}") from error
    if not reports:
        producer.purge(Deadline(0.5))
        raise RunError(
            f"Kafka did not acknowledge the command in time ({producer.diagnosis.reason}); check the brokers, then "
            "send it again"
        )
    [(rejected, partition, offset)] = reports
    if rejected is not None:
        raise delivery_error(rejected, topic, "queue_control_topic")
    return f"{topic}, partition {partition}, offset {offset}"


def _go_to_end(reader: TopicReader, settings: Settings) -> None:
    """Find the end of the events topic before the command is sent, so that no later event is missed."""
    topic, startup = settings.queue_events_topic, _startup(settings)
    await_topic(reader, topic, "queue_events_topic", startup, operation="READ")
    try:
        reader.assign(beginning=False)
    except UnavailableError as error:
        raise RunError(f"Cannot read the events: {error}; check the brokers") from error
    while not reader.at_end:
        reader.poll(_POLL)
        if startup.deadline.passed:
            raise TopicAdmin(reader.properties, topic).read_timeout()


def _await_end(reader: TopicReader, settings: Settings, deadline: Deadline) -> StopReason:
    while not deadline.passed:
        record = reader.poll(min(_POLL, deadline.remaining))
        if record is None:
            continue
        try:
            event = _decode(record.value or b"")
        except BAD_INPUT:
            continue
        if event.queue_id == settings.queue_id and event.finished:
            message, reason = printable(event.message, _LONGEST), _reason(event)
            if reason:
                return replace(reason, message=message)
            events.info("stop_other", f"A loader ended without obeying the command: {message}")
    raise RunError(
        f"No loader of {settings.queue_id} confirmed the stop in time, and one that starts later obeys it too; "
        f"see whether one is running, and check {named('queue_id')} and {named('queue_events_topic')}"
    )


def _reason(event: _Event) -> StopReason | None:
    """Why the loader that sent this last event ended; None if it will run again, as after a signal."""
    for reason in (StopReason.complete(""), StopReason.failed(""), StopReason.by_command()):
        if event.status == reason.status and event.message.startswith(reason.message):
            return reason
    return None
