"""`run` from end to end: a simulated exchange, the loader as a process, Apache Kafka, an independent reader."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools import recorded
from tests.tools.loader import Workflow, check_events, urls
from tests.tools.waiting import wait_for


def as_text(value: bytes | None) -> Any:
    """A record with its numbers as the text that stands there."""
    return json.loads(value or b"", parse_float=str, parse_int=str)


COMBINED = "/stream?timeUnit=MICROSECOND"


@pytest.mark.parametrize(
    ("speed", "stream", "count"),
    [(300, "/ws", recorded.COUNT), (float("inf"), "/ws", recorded.COUNT), (float("inf"), COMBINED, 1000)],
    ids=["recorded-bursts", "flat-out", "combined-in-microseconds"],
)
def test_recorded_trades_arrive_once_in_order_with_their_digits(
    workflow: Workflow, tmp_path: Path, speed: float, stream: str, count: int
) -> None:
    path = recorded.frames_file(tmp_path)
    with Exchange([Market.recorded(path, speed=speed, start="subscriber")]) as exchange:
        url = exchange.ws_url.removesuffix("/ws") + stream
        assert workflow.run("--max-records", str(count), **urls(exchange) | {"BINANCE_WS_URL": url}).wait() == 0
    records = workflow.records()
    frames = recorded.frames(path)[:count]
    assert len(records) == count
    assert len({record.partition() for record in records}) == 1
    for record, frame in zip(records, frames, strict=True):
        assert as_text(record.value()) == {
            "trade_id": str(frame["t"]),
            "price": frame["p"],
            "quantity": frame["q"],
            "timestamp": str(frame["T"]),
            "is_buyer_maker": frame["m"],
            "symbol": frame["s"],
        }
        assert record.key() == b"POLUSDT"
        assert record.timestamp()[1] == frame["T"]
    assert list(as_text(records[0].value())) == [
        "trade_id",
        "price",
        "quantity",
        "timestamp",
        "is_buyer_maker",
        "symbol",
    ]
    events = workflow.events()
    check_events(events, workflow, "finished")
    assert events[-1]["records_written"] == count


@pytest.mark.parametrize(("number", "code"), [(None, 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_or_a_signal_under_load_ends_the_run_with_the_tail_delivered(
    workflow: Workflow, number: signal.Signals | None, code: int
) -> None:
    with Exchange([Market.generated("POLUSDT", rate=5000)]) as exchange:
        loader = workflow.run(**urls(exchange))
        wait_for(lambda: any(event["records_written"] > 1000 for event in workflow.events()), "1000 records")
        if number:
            loader.process.send_signal(number)
        else:
            workflow.command({"command": "stop", "queue_id": "another"})
            workflow.stop()
        assert loader.wait() == code
    events = workflow.events()
    check_events(events, workflow, "interrupted")
    assert events[-1]["message"].startswith(f"Stopped by {number.name if number else 'command'}")
    assert events[-1]["records_written"] == len(workflow.consecutive_ids())


def test_a_bound_in_time_is_a_complete_run(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=200)]) as exchange:
        loader = workflow.run("--duration", "2s", **urls(exchange))
        assert loader.wait() == 0
    check_events(workflow.events(), workflow, "finished")
    assert workflow.events()[-1]["records_written"] == len(workflow.records()) > 0
