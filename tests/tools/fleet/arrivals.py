"""What is on the topics by now, of each symbol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from confluent_kafka import Message

from tests.tools.following import Following


class Arrivals:
    """Reads topics as they grow, and notes when the first trade of a symbol came, and which id is its newest."""

    def __init__(self, bootstrap_servers: str, topics: Iterable[str]) -> None:
        self.first: dict[str, float] = {}
        """Monotonic seconds."""
        self.newest: dict[str, int] = {}
        self._following = Following(bootstrap_servers, topics, self._take)

    def close(self) -> None:
        """End it."""
        self._following.close()

    def _take(self, messages: list[Message]) -> None:
        now = time.monotonic()
        for message in messages:
            symbol = (message.key() or b"").decode()
            self.first.setdefault(symbol, now)
            self.newest[symbol] = json.loads(message.value() or b"")["trade_id"]
