"""What is on the topics by now, of each symbol."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable

from confluent_kafka import Consumer, TopicPartition

from tests.apache_kafka.node import QUIET


class Arrivals:
    """Reads topics as they grow, and notes when the first trade of a symbol came, and which id is its newest."""

    def __init__(self, bootstrap_servers: str, topics: Iterable[str]) -> None:
        self.first: dict[str, float] = {}
        """Monotonic seconds."""
        self.newest: dict[str, int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"arrivals-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                **QUIET,
            }
        )
        found = self._consumer.list_topics(timeout=20).topics
        places = [TopicPartition(topic, number, 0) for topic in topics for number in found[topic].partitions]
        self._consumer.assign(places)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="arrivals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            messages = self._consumer.consume(5000, timeout=0.05)
            now = time.monotonic()
            for message in messages:
                if message.error() is None:
                    symbol = (message.key() or b"").decode()
                    self.first.setdefault(symbol, now)
                    self.newest[symbol] = json.loads(message.value() or b"")["trade_id"]
