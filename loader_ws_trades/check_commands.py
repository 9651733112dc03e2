"""What `check` tries of the commands: one that addresses nobody, sent and read again."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable

import msgspec

from loader_ws_trades import kafka
from loader_ws_trades.check_kafka import ANSWER
from loader_ws_trades.config import Settings, consumer_credentials, named, producer_credentials
from loader_ws_trades.control import Command
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.probes import Outcome, ok, skip
from loader_ws_trades.properties import telemetry_producer_properties
from loader_ws_trades.reading import Record, TopicReader
from loader_ws_trades.sending import send
from loader_ws_trades.topics import Inspector
from loader_ws_trades.trade import BAD_INPUT

_POLL = 0.1  # seconds that one read may take
_NO_RIGHT = "not tried: there is no right to write commands, which the loader does not need"


def round_trip(settings: Settings, reader: TopicReader) -> Outcome:
    """Send a command that no loader obeys, as whoever of the users may, and read it with `reader`.

    Raises:
        RunError: if the brokers did not take it.
        UnavailableError: if it could not be read.
    """
    topic, deadline = settings.queue_control_topic, Deadline(ANSWER)
    reader.assign(beginning=False)
    if not _read_until(reader, lambda _record: reader.at_end, deadline):
        raise UnavailableError(f"The end of the topic {topic} was not reached in {ANSWER:g} s; check the brokers")
    # Its name is unknown too, should anybody not look whom it addresses.
    command = Command(command="check", queue_id=f"nobody-{uuid.uuid4()}")
    for user, credentials in _users(settings):
        properties = telemetry_producer_properties(user)
        rights = Inspector(properties).rights(topic)
        if rights and kafka.AclOperation.WRITE not in rights:
            continue
        startup = kafka.Startup(Deadline(ANSWER), 0, stopped=lambda: False)
        try:
            partition, offset = send(command, topic, properties, credentials=credentials, startup=startup)
        except ConfigurationError:
            continue
        if not _read_until(reader, lambda record: _is(record, command), Deadline(ANSWER)):
            raise UnavailableError(
                f"What was written to the topic {topic} was not read again in {ANSWER:g} s; check the brokers and "
                f"{named('queue_control_topic')}"
            )
        return ok(f"partition {partition}, offset {offset}; it addresses nobody")
    return skip(_NO_RIGHT)


def _users(settings: Settings) -> list[tuple[Settings, str]]:
    """The settings with which a producer is each of the users, and the names of what makes them."""
    found = [(settings, producer_credentials(settings))]
    if settings.kafka_user_consumer:
        reading = dataclasses.replace(
            settings,
            kafka_user_producer=settings.kafka_user_consumer,
            kafka_password_producer=settings.kafka_password_consumer,
        )
        found.append((reading, consumer_credentials(settings)))
    return found


def _read_until(reader: TopicReader, done: Callable[[Record | None], bool], deadline: Deadline) -> bool:
    while not deadline.passed:
        if done(reader.poll(_POLL)):
            return True
    return False


def _is(record: Record | None, command: Command) -> bool:
    with contextlib.suppress(*BAD_INPUT):
        return record is not None and msgspec.json.decode(record.value or b"", type=Command) == command
    return False
