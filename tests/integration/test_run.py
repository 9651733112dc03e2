"""`run` from end to end: a simulated exchange, the loader as a process, Apache Kafka, an independent reader."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools import recorded
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Loader, Workflow, check_events, workflow_on
from tests.tools.waiting import wait_for


@pytest.fixture
def workflow(kafka: Kafka) -> Iterator[Workflow]:
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as made:
        yield made


def to(exchange: Exchange, **others: object) -> dict[str, object]:
    return {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url, **others}


def ids(records: list[Message]) -> list[int]:
    return [json.loads(record.value() or b"")["trade_id"] for record in records]


def as_text(value: bytes | None) -> Any:
    """A record with its numbers as the text that stands there."""
    return json.loads(value or b"", parse_float=str, parse_int=str)


@pytest.mark.parametrize("speed", [300, float("inf")], ids=["recorded-bursts", "flat-out"])
def test_recorded_trades_arrive_once_in_order_with_their_digits(
    workflow: Workflow, tmp_path: Path, speed: float
) -> None:
    path = recorded.frames_file(tmp_path)
    with Exchange([Market.recorded(path, speed=speed, start="subscriber")]) as exchange:
        loader = workflow.run("--max-records", str(recorded.COUNT), **to(exchange))
        assert loader.wait() == 0
    records = workflow.records()
    frames = recorded.frames(path)
    assert len(records) == recorded.COUNT
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
    assert events[-1]["records_written"] == recorded.COUNT


def test_a_stop_command_ends_the_run_with_the_tail_delivered(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=2000)]) as exchange:
        loader = workflow.run(**to(exchange))
        wait_for(lambda: any(event["records_written"] > 1000 for event in workflow.events()), "1000 records")
        workflow.command({"command": "stop", "queue_id": "another"})
        workflow.stop()
        assert loader.wait() == 0
    events, records = workflow.events(), workflow.records()
    check_events(events, workflow, "interrupted")
    assert events[-1]["message"].startswith("Stopped by command")
    assert events[-1]["records_written"] == len(records)
    assert ids(records) == list(range(ids(records)[0], ids(records)[0] + len(records)))


NONSENSE = [
    None,
    b"",
    b"\xff\xfe\x00",
    b"[" * 50_000,
    b'{"command": "stop", "queue_id": ["x"]}',
]


def test_nonsense_on_the_control_topic_is_ignored_with_one_warning_each(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=100)]) as exchange:
        loader = workflow.run(**to(exchange))
        loader.wait_for_line("Connected")
        for value in NONSENSE:
            workflow.command(value)
        workflow.command({"command": "explode", "queue_id": workflow.queue_id})
        workflow.command(b'{"command": "stop", "queue_id": "%s"}' % (b"x" * 900_000))
        workflow.command({"command": "explode", "queue_id": "another"})
        # A stop behind it all says when it has been read.
        workflow.command({"command": "stop", "queue_id": workflow.queue_id, "new": {"field": 1}})
        assert loader.wait() == 0
    warnings = [line for line in loader.errors.splitlines() if "WARNING" in line]
    assert len(warnings) == len(NONSENSE) + 1
    for offset, warning in enumerate(warnings):
        assert f"offset {offset}:" in warning
    check_events(workflow.events(), workflow, "interrupted")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_under_load_ends_the_run_with_the_tail_delivered(
    workflow: Workflow, number: signal.Signals, code: int
) -> None:
    with Exchange([Market.generated("POLUSDT", rate=5000)]) as exchange:
        loader = workflow.run(**to(exchange))
        wait_for(lambda: any(event["records_written"] > 1000 for event in workflow.events()), "1000 records")
        loader.process.send_signal(number)
        assert loader.wait() == code
    events, records = workflow.events(), workflow.records()
    check_events(events, workflow, "interrupted")
    assert events[-1]["message"].startswith(f"Stopped by {number.name}")
    assert events[-1]["records_written"] == len(records)
    assert ids(records) == list(range(ids(records)[0], ids(records)[0] + len(records)))


def test_a_bound_in_time_is_a_complete_run(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=200)]) as exchange:
        loader = workflow.run("--duration", "2s", **to(exchange))
        assert loader.wait() == 0
    check_events(workflow.events(), workflow, "finished")
    assert workflow.events()[-1]["records_written"] == len(workflow.records()) > 0


@pytest.mark.parametrize("query", ["", "?timeUnit=MICROSECOND"])
def test_a_combined_stream_gives_the_same_records(workflow: Workflow, tmp_path: Path, query: str) -> None:
    path = recorded.frames_file(tmp_path)
    with Exchange([Market.recorded(path, speed=float("inf"), start="subscriber")]) as exchange:
        loader = workflow.run("--max-records", "1000", **to(exchange, BINANCE_WS_URL=exchange.combined_url + query))
        assert loader.wait() == 0
    found = [(record["trade_id"], record["timestamp"]) for record in (as_text(r.value()) for r in workflow.records())]
    assert found == [(str(frame["t"]), str(frame["T"])) for frame in recorded.frames(path)[:1000]]


def test_after_a_restart_of_the_exchange_it_fetches_what_it_missed(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=1000)
    with Exchange([market]) as exchange:
        loader = workflow.run(**to(exchange))
        restart_in_the_middle(exchange, workflow, loader)
        loader.wait_for_line("Gap closed")
        stop_after_more_records(workflow, loader)
    check_complete(workflow, market)
    assert not any("missing" in event["message"] for event in workflow.events())


def restart_in_the_middle(exchange: Exchange, workflow: Workflow, loader: Loader) -> None:
    """Stop the exchange under load, until the loader's telemetry says so, and start it again."""
    wait_for(lambda: any(event["records_written"] > 500 for event in workflow.events()), "500 records")
    exchange.stop()
    loader.wait_for_line("No connection to the exchange")
    wait_for(
        lambda: any("no connection to the exchange since" in event["message"] for event in workflow.events()),
        "an event that says so",
    )
    exchange.start()


def stop_after_more_records(workflow: Workflow, loader: Loader) -> None:
    """Stop the loader by command once it has gone on."""
    before = len(workflow.records())
    wait_for(lambda: workflow.events()[-1]["records_written"] > before + 500, "500 more records")
    workflow.stop()
    assert loader.wait() == 0


def check_complete(workflow: Workflow, market: Market) -> None:
    """Every trade that the market issued from the first one on is there, once, in order, as it was issued."""
    records = [as_text(record.value()) for record in workflow.records()]
    first = int(records[0]["trade_id"])
    assert [int(record["trade_id"]) for record in records] == list(range(first, first + len(records)))
    start = market.position(first)
    for record, trade in zip(records, market.trades(start, start + len(records)), strict=True):
        assert (record["trade_id"], record["price"], record["quantity"], record["timestamp"]) == (
            str(trade.id),
            trade.price,
            trade.quantity,
            str(trade.time // 1000),
        )


def test_an_unknown_symbol_ends_the_run_with_2(workflow: Workflow) -> None:
    with Exchange([Market.generated("BTCUSDT")]) as exchange:
        loader = workflow.run(**to(exchange))
        assert loader.wait() == 2
    assert "does not know the symbol POLUSDT; check SYMBOL (--symbol)" in loader.errors
    [event] = workflow.events()
    assert event["status"] == "error"
