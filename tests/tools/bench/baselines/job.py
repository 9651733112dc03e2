"""What all baselines share: their arguments, and the record they write."""

from __future__ import annotations

import argparse
import os
from typing import Any

from tests.tools.bench.stamps import Stamps


class Job:
    """The arguments of a baseline."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--url", required=True, help="address of the stream")
        parser.add_argument("--servers", required=True, help="Kafka's brokers")
        parser.add_argument("--topic", required=True)
        parser.add_argument("--count", type=int, required=True, help="trades after which it ends")
        parser.add_argument("--stamps", help="file for the times of reads and delivery reports")
        arguments = parser.parse_args()
        self.url: str = arguments.url
        self.servers: str = arguments.servers
        self.topic: str = arguments.topic
        self.count: int = arguments.count
        self.path: str | None = arguments.stamps
        self.ca: str | None = os.environ.get("SSL_CERT_FILE")

    def stamps(self) -> Stamps | None:
        """Where to put times, if they are wanted."""
        return Stamps() if self.path else None

    def save(self, stamps: Stamps | None) -> None:
        """Write the times, if there are any."""
        if stamps and self.path:
            stamps.save(self.path)


def record(frame: dict[str, Any]) -> dict[str, Any]:
    """The record of a decoded frame: the same six fields as the loader's, with floats, as people write it."""
    return {
        "trade_id": frame["t"],
        "price": float(frame["p"]),
        "quantity": float(frame["q"]),
        "timestamp": frame["T"],
        "is_buyer_maker": frame["m"],
        "symbol": frame["s"],
    }
