"""What the publisher gives to the producer, which is a list here."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from loader_ws_trades import config
from loader_ws_trades.publisher import Publisher
from loader_ws_trades.trade import Trade

NOW = 1_700_000_000.0
HALF_AN_HOUR = 1_800_000


class Producer:
    """Keeps what is produced."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []

    def produce(self, *arguments: Any) -> None:
        self.records.append(arguments)

    def poll(self, _timeout: float) -> None:
        pass


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The local clock: change its one number."""
    now = [NOW]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, wall: list[float]) -> Publisher:
    assert wall
    monkeypatch.setattr(Publisher, "_make_producer", lambda _self: Producer())
    given = {"symbol": "POLUSDT", "kafka_topic": "trades", "kafka_bootstrap_servers": "127.0.0.1:9"}
    return Publisher(config.load(given, needed=given))


def at(*moments: int) -> list[Trade]:
    return [Trade(number, "1.50", "2", moment, True, "POLUSDT") for number, moment in enumerate(moments)]


def timestamps(publisher: Publisher) -> list[int]:
    return [arguments[-1] for arguments in publisher._producer.records]  # type: ignore[attr-defined]


def test_a_record_bears_the_trades_time_unless_that_is_far_ahead_of_the_clock(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    now = int(NOW * 1000)
    moments = [1, now, now + HALF_AN_HOUR, now + HALF_AN_HOUR + 1, now + 1, 2**63 // 1000]
    assert publisher.put(at(*moments)) == 6
    assert timestamps(publisher) == [1, now, now + HALF_AN_HOUR, now, now + 1, now]
    fields = [arguments[1] for arguments in publisher._producer.records]  # type: ignore[attr-defined]
    assert [f'"timestamp":{moment},' in value for moment, value in zip(moments, fields, strict=True)] == [True] * 6
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "trade 3, 2023-11-14T22:43:20.001Z, is more than 30 minutes ahead" in line.getMessage()


def test_the_bound_moves_with_the_clock(publisher: Publisher, wall: list[float]) -> None:
    later = int(NOW * 1000) + HALF_AN_HOUR + 60_000
    publisher.put(at(later))
    wall[0] += 60
    publisher.poll(0)
    publisher.put(at(later))
    assert timestamps(publisher) == [int(NOW * 1000), later]
