"""Sending a command to the loaders, and waiting until the brokers have it."""

from __future__ import annotations

import msgspec

from loader_ws_trades.errors import RunError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.control import Command
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.lifecycle import Deadline, Startup

_POLL = 0.1  # seconds that one look for the acknowledgement may take


def send(
    command: Command, topic: str, properties: KafkaProperties, *, credentials: str, startup: Startup
) -> tuple[int, int]:
    """Send `command` to `topic`, which the setting for the control topic names; the partition and offset it has.

    Raises:
        ConfigurationError: if the topic, the credentials or a right is missing.
        RunError: if the brokers did not answer, or refused it.
    """
    answers: list[tuple[kafka.KafkaError | None, int, int]] = []

    def report(error: kafka.KafkaError | None, message: kafka.Message) -> None:
        answers.append((error, message.partition() or 0, message.offset() or 0))

    producer = kafka.Producer(properties, report, credentials=credentials)
    kafka.await_topic(producer, topic, "queue_control_topic", startup, right=kafka.AclOperation.WRITE)
    try:
        producer.produce(topic, msgspec.json.encode(command), command.queue_id.encode())
        while not answers and not startup.deadline.passed:
            producer.poll(_POLL)
    except kafka.KafkaException as error:
        raise kafka.failure(error, f"Writing to the topic {topic}") from error
    if not answers:
        producer.purge(Deadline(0.5))
        raise RunError(
            f"Kafka did not acknowledge the command in time ({producer.trouble.reason}); check the brokers, then send "
            "it again"
        )
    [(refused, partition, offset)] = answers
    if refused is not None:
        raise kafka.undelivered(refused, topic, "queue_control_topic")
    return partition, offset
