"""`stop`: the command sent and, if asked for, the event awaited that says it was obeyed."""

from __future__ import annotations

import logging
from typing import NamedTuple

import msgspec

from loader_ws_trades.config.settings import Settings, consumer_credentials, named, producer_credentials
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.control import Command
from loader_ws_trades.kafka.properties import consumer_properties, telemetry_producer_properties
from loader_ws_trades.kafka.reader import TopicReader
from loader_ws_trades.kafka.sending import send
from loader_ws_trades.kafka.topics import unread
from loader_ws_trades.lifecycle import Deadline, Startup, StopReason
from loader_ws_trades.pipeline.trade import BAD_INPUT

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds that one read may take


class Ended(NamedTuple):
    """How a workflow ended: what its last event says, and the exit code that tells the same."""

    message: str
    exit_code: int


class _Event(msgspec.Struct):
    queue_id: str
    status: str
    message: str
    finished: bool


_decode = msgspec.json.Decoder(_Event).decode


def stop(settings: Settings, wait: float | None) -> Ended:
    """Send the stop command; with `wait`, wait so many seconds for the event that says it was obeyed.

    Raises:
        ConfigurationError: if a topic, the credentials or a right is missing.
        RunError: if the brokers did not answer, or no such event came in time.
    """
    if wait is None:
        return Ended(f"Sent the stop command for {settings.queue_id} to {_send(settings)}", 0)
    events = TopicReader(
        consumer_properties(settings), settings.queue_events_topic, credentials=consumer_credentials(settings)
    )
    try:
        _go_to_end(events, settings)
        log.info("Sent the stop command for %s to %s", settings.queue_id, _send(settings), extra={"event": "stop_sent"})
        return _await_end(events, settings, Deadline(wait))
    finally:
        events.close()


def _startup(settings: Settings) -> Startup:
    return Startup(Deadline(settings.startup_timeout), settings.startup_grace, stopped=lambda: False)


def _send(settings: Settings) -> str:
    """Send the command and wait until the brokers have it; where it stands."""
    topic = settings.queue_control_topic
    partition, offset = send(
        Command(command="stop", queue_id=settings.queue_id),
        topic,
        telemetry_producer_properties(settings),
        credentials=producer_credentials(settings),
        startup=_startup(settings),
    )
    return f"{topic}, partition {partition}, offset {offset}"


def _go_to_end(events: TopicReader, settings: Settings) -> None:
    """Be where the next event will stand, before the command is sent."""
    topic, startup = settings.queue_events_topic, _startup(settings)
    kafka.await_topic(events, topic, "queue_events_topic", startup, right=kafka.AclOperation.READ)
    try:
        events.assign(beginning=False)
    except UnavailableError as error:
        raise RunError(f"The end of the events cannot be seen: {error}; check the brokers") from error
    while not events.at_end:
        events.poll(_POLL)
        if startup.deadline.passed:
            raise unread(events.properties, topic)


def _await_end(events: TopicReader, settings: Settings, deadline: Deadline) -> Ended:
    while not deadline.passed:
        record = events.poll(min(_POLL, deadline.remaining))
        if record is None:
            continue
        try:
            event = _decode(record.value or b"")
        except BAD_INPUT:
            continue
        if event.queue_id == settings.queue_id and event.finished:
            ended = _end(event)
            if ended is not None:
                return ended
            log.info("A loader ended, and did not obey yet: %s", event.message, extra={"event": "stop_other"})
    raise RunError(
        f"No loader of {settings.queue_id} said in time that it stopped; the command stays for one that starts later, "
        f"so see whether one runs, and check {named('queue_id')} and {named('queue_events_topic')}"
    )


def _end(event: _Event) -> Ended | None:
    """How the workflow ended with this event; None if its loader will run again, as after a signal."""
    if event.status == StopReason.complete("").status:
        return Ended(event.message, 0)
    if event.status == StopReason.failed("").status:
        return Ended(event.message, StopReason.failed("").exit_code)
    obeyed = StopReason.by_command()
    if event.status == obeyed.status and event.message.startswith(obeyed.message):
        return Ended(event.message, obeyed.exit_code)
    return None
