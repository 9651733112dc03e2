"""An independent reader and writer of topics, using only confluent-kafka."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Container, Iterable
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from tests.tools.apache_kafka.node import QUIET


def answers(bootstrap_servers: str) -> bool:
    """Whether a broker answers there, at once."""
    try:
        AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return False
    return True


def read_topic(bootstrap_servers: str, topic: str, *, last: int | None = None, **properties: Any) -> list[Message]:
    """All records that the topic holds now, or the `last` of each partition, in the order of their offsets."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reader-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **properties,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number), 20)[1] for number in partitions}
        starts = {number: OFFSET_BEGINNING if last is None else max(0, end - last) for number, end in ends.items()}
        consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
        found: list[Message] = []
        unread = {number for number, end in ends.items() if end}
        deadline = time.monotonic() + 60
        while unread:
            assert time.monotonic() < deadline, f"{topic} could not be read to its end"
            for message in consumer.consume(10_000, timeout=0.1):
                error, number, offset = message.error(), message.partition() or 0, message.offset() or 0
                if error is None and offset < ends[number]:
                    found.append(message)
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise AssertionError(error)
                # A topic that is being written may have no end to come to; the one it had is enough.
                if error is not None or offset >= ends[number] - 1:
                    unread.discard(number)
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def read_events(bootstrap_servers: str, topic: str) -> list[dict[str, Any]]:
    """The telemetry events that the topic holds now."""
    return [json.loads(message.value() or b"") for message in read_topic(bootstrap_servers, topic)]


def write_topic(
    bootstrap_servers: str, topic: str, *values: bytes | None, partition: int = -1, key: bytes | None = None
) -> None:
    """Write records and wait until they are acknowledged."""
    failures: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "message.max.bytes": 2_000_000,
            "on_delivery": lambda error, _message: failures.append(error) if error else None,
        }
    )
    for value in values:
        producer.produce(topic, value, key, partition=partition)
    assert producer.flush(30) == 0, "not acknowledged in time"
    assert not failures


class Follower:
    """Reads topics as they grow, committed transactions only, and notes when each trade id first arrived."""

    def __init__(self, bootstrap_servers: str, topics: Iterable[str], foreign: Container[bytes | None] = ()) -> None:
        """Follow `topics` from their beginnings; records whose value is in `foreign` are not a loader's."""
        self.arrivals: dict[int, float] = {}
        """Unix seconds at which each trade id was first read."""
        self._foreign = foreign
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"follower-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                **QUIET,
            }
        )
        found = self._consumer.list_topics(timeout=20).topics
        self._consumer.assign(
            [TopicPartition(topic, number, 0) for topic in topics for number in found[topic].partitions]
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            messages = self._consumer.consume(5000, timeout=0.05)
            now = time.time()
            for message in messages:
                # Errors come from brokers that are down on purpose; the client reconnects by itself.
                if message.error() is None and message.value() not in self._foreign:
                    self.arrivals.setdefault(json.loads(message.value() or b"")["trade_id"], now)
