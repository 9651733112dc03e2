"""Topics read as they grow, by a thread of its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, Message, TopicPartition

from tests.tools.apache_kafka.node import QUIET


class Following:
    """Gives `take` what comes onto `topics` from their beginnings on, of transactions what is committed alone."""

    def __init__(self, bootstrap_servers: str, topics: Iterable[str], take: Callable[[list[Message]], None]) -> None:
        self._take = take
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"following-{uuid.uuid4()}",
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
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            # Errors are those of brokers that are away on purpose; the client goes on by itself.
            self._take([message for message in self._consumer.consume(5000, timeout=0.05) if message.error() is None])
