"""Runs that resume from topics with bad records, deleted records, a quiet pair, times ahead, open transactions."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from loader_ws_trades.sandbox import Exchange, Market
from tests.kafka.test_checkpoint import record, write
from tests.kafka.test_transactional import open_transaction
from tests.tools.apache_kafka import Kafka
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.loader import Loader, Workflow, urls, workflow_on
from tests.tools.scrape import ask, scrape
from tests.tools.waiting import wait_for

HIDDEN = "an open transaction hides"
UNCHECKED = "could not be checked; run backfill"


@pytest.fixture
def workflow(kafka: Kafka) -> Iterator[Workflow]:
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as made:
        made.variables["METRICS_PORT"] = free_port()
        yield made


def start(workflow: Workflow, exchange: Exchange, **settings: object) -> Loader:
    return workflow.run(**urls(exchange), **settings)


def ids(workflow: Workflow, *, whole: bool = True) -> list[int]:
    """The ids of the pair's trades, by offset."""
    found = []
    for message in workflow.records():
        try:
            value = json.loads(message.value() or b"")
            if value["symbol"] == "POLUSDT" and message.key() == b"POLUSDT":
                found.append(value["trade_id"])
        except (ValueError, KeyError):  # noqa: PERF203 - the bad ones
            continue
    if whole:
        assert found == list(range(found[0], found[0] + len(found)))
    return found


def last(workflow: Workflow) -> int:
    return max(ids(workflow, whole=False), default=-1)


def end(workflow: Workflow, loader: Loader) -> None:
    workflow.stop()
    assert loader.wait() == 0, loader.errors


def reported(workflow: Workflow, text: str) -> int:
    """How many events contain `text`."""
    return sum(text in event["message"] for event in workflow.events())


def test_a_quiet_pair_resumes_with_the_first_trade_of_the_scanned_time(workflow: Workflow, kafka: Kafka) -> None:
    now = int(time.time() * 1000)
    others = [record("BTCUSDT", 1 + number, now - 600_000 + 500 * number) for number in range(1200)]
    write(kafka, workflow.topic, [record("POLUSDT", 7, now - 3_600_000), *others])
    market = Market.generated("POLUSDT", rate=20, past=6000)
    with Exchange([market]) as exchange:
        loader = start(workflow, exchange, RESUME_SCAN_LIMIT="500")
        goal = market.last_id or 0
        wait_for(lambda: last(workflow) >= goal, "the run to catch up")
        assert scrape(int(str(workflow.variables["METRICS_PORT"])))("unchecked_start") == 1
        end(workflow, loader)
    found = ids(workflow, whole=False)[1:]
    assert found == list(range(found[0], found[0] + len(found)))
    [first] = [trade for trade in market.trades(0, 6000) if trade.id == found[0]]
    [before] = [trade for trade in market.trades(0, 6000) if trade.id == found[0] - 1]
    # The newest record is half a second older than `now`, and a scan four times as long would exceed the limit.
    assert before.time // 1000 < now - 500 - 240_000 <= first.time // 1000
    assert reported(workflow, f"trades before id {found[0]} (time ") == 1
    assert UNCHECKED in loader.errors


def test_deleted_records_are_reported(workflow: Workflow, kafka: Kafka) -> None:
    now = int(time.time() * 1000)
    write(kafka, workflow.topic, [record("POLUSDT", 1 + number, now - 1000 + number) for number in range(100)])
    gone = TopicPartition(workflow.topic, 0, 100)
    kafka.admin.delete_records([gone])[gone].result(30)
    with Exchange([Market.generated("POLUSDT", rate=200)]) as exchange:
        loader = start(workflow, exchange)
        wait_for(lambda: last(workflow) >= 0, "the first trades")
        end(workflow, loader)
    assert "all its records were deleted: trades before the first live one " + UNCHECKED in loader.errors
    assert reported(workflow, "trades before the first live one " + UNCHECKED) == 1
    assert ids(workflow)


def test_a_trade_far_ahead_gets_the_clocks_time_and_does_not_send_a_run_back(
    workflow: Workflow, tmp_path: Path
) -> None:
    now = int(time.time() * 1000)
    times = [now - 3000 + number for number in range(3000)]
    times[1000] = now + 7_200_000
    frames = [
        json.dumps({"e": "trade", "s": "POLUSDT", "t": 100 + number, "p": "1.50", "q": "2.0", "T": moment, "m": True})
        for number, moment in enumerate(times)
    ]
    path = tmp_path / "frames.jsonl"
    path.write_text("\n".join(frames))
    loader = workflow.start("replay", str(path), "--speed", "max")
    assert loader.wait() == 0, loader.errors
    assert loader.errors.count("ahead of the local clock") == 1
    messages = workflow.records()
    assert json.loads(messages[1000].value() or b"")["timestamp"] == times[1000]
    assert now - 1000 <= messages[1000].timestamp()[1] <= int(time.time() * 1000)
    assert [message.timestamp()[1] for message in messages[:1000]] == times[:1000]
    loader = workflow.start("audit", TELEMETRY_INTERVAL=None, QUEUE_ID=None, METRICS_PORT=None)
    assert loader.wait() == 0, loader.output()
    loader = workflow.start("replay", str(path), "--speed", "max")
    assert loader.wait() == 0, loader.errors
    assert len(workflow.records()) == 3000
    with Exchange([Market.generated("POLUSDT", rate=100, first_id=3000)]) as exchange:
        loader = start(workflow, exchange)
        loader.wait_for_line("Resuming after trade id 3099")
        end(workflow, loader)


def test_a_run_waits_for_an_open_transaction_and_reports_it(workflow: Workflow, kafka: Kafka) -> None:
    market = Market.generated("POLUSDT", rate=500)
    with Exchange([market]) as exchange:
        [trade] = market.trades(0, 1)
        write(kafka, workflow.topic, [record("POLUSDT", trade.id, trade.time // 1000)])
        other = open_transaction(kafka, workflow.topic, "BTCUSDT")
        loader = start(workflow, exchange)
        loader.wait_for_line(HIDDEN)
        wait_for(lambda: reported(workflow, HIDDEN) > 1, "events that say so")
        assert ask(int(str(workflow.variables["METRICS_PORT"])), "/healthz").status == 200
        assert "Connected" not in loader.errors
        other.abort_transaction(20)
        wait_for(lambda: last(workflow) > trade.id + 100, "the run to continue")
        end(workflow, loader)
    assert loader.errors.count(HIDDEN) == 1
    assert reported(workflow, HIDDEN) < len(workflow.events())
    assert ids(workflow)


def test_an_open_transaction_on_the_control_topic_is_reported_and_delays_no_trade(
    workflow: Workflow, kafka: Kafka
) -> None:
    writer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"open-{uuid.uuid4()}"})
    writer.init_transactions(20)
    writer.begin_transaction()
    writer.produce(workflow.control_topic, b'{"command":"stop","queue_id":"another"}')
    assert writer.flush(20) == 0
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        loader = start(workflow, exchange)
        loader.wait_for_line("Continuing without the newest commands")
        wait_for(lambda: last(workflow) >= 0, "trades all the same")
        workflow.stop()
        goal = last(workflow) + 500
        wait_for(lambda: last(workflow) > goal, "trades after the hidden stop")
        writer.commit_transaction(20)
        assert loader.wait() == 0, loader.errors
    assert loader.errors.count(HIDDEN) == 1
    assert ids(workflow)
