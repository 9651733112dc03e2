"""Who watches while a trial runs: when each trade came onto the topic, and how much memory the loaders held."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Container
from pathlib import Path

from confluent_kafka import Message

from tests.tools.following import Following

_AT_ONCE = 2  # loaders of one trial that run at the same time, at most
_SAMPLE = 0.1  # seconds between two looks at a process's memory


class Follower:
    """Reads a topic as it grows, transactions that are committed alone, and notes when each trade id came first."""

    def __init__(self, bootstrap_servers: str, topic: str, foreign: Container[bytes | None] = ()) -> None:
        """Follow the topic; values in `foreign` are not the loader's."""
        self._foreign = foreign
        self.arrivals: dict[int, float] = {}
        """Unix seconds at which each trade id was first read."""
        self._following = Following(bootstrap_servers, [topic], self._take)

    def close(self) -> None:
        """End it."""
        self._following.close()

    def _take(self, messages: list[Message]) -> None:
        now = time.time()
        for message in messages:
            if message.value() not in self._foreign:
                self.arrivals.setdefault(json.loads(message.value() or b"")["trade_id"], now)


class Memory:
    """The most memory that any of some processes held, as the kernel counts it; Linux alone."""

    def __init__(self) -> None:
        self.peak: float | None = None
        """MB, of the process that held most; none where the kernel does not say."""
        self._pids: list[int] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def watch(self, pid: int) -> None:
        """Look at one more process, until it ends."""
        self._pids.append(pid)

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(_SAMPLE):
            for pid in self._pids[-_AT_ONCE:]:
                held = _high_water_mark(pid)
                if held is not None:
                    self.peak = max(held, self.peak or 0.0)


def _high_water_mark(pid: int) -> float | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else None
