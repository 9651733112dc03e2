"""`DELIVERY=transactional` on Apache Kafka: one loader of a workflow at a time, no duplicates for `read_committed`."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import pytest
from confluent_kafka import Producer

from loader_ws_trades.sandbox import Cut, Exchange, Market, Replay
from tests.kafka.test_checkpoint import DAY, live, record, write
from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.chaos.proxy import FaultProxy
from tests.tools.loader import Loader, Workflow, check_events, urls, workflow_on
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for


@pytest.fixture(autouse=True)
def _transactional(workflow: Workflow) -> None:
    workflow.variables["DELIVERY"] = "transactional"


def start(workflow: Workflow, exchange: Exchange, *flags: str, **settings: object) -> Loader:
    return workflow.run(*flags, **urls(exchange), **settings)


def committed(workflow: Workflow) -> list[int]:
    """The ids that a reader with `read_committed` finds."""
    return [json.loads(found.value() or b"")["trade_id"] for found in workflow.records()]


def written(workflow: Workflow) -> int:
    """How many records there are, whether committed or not."""
    uncommitted: Any = {"isolation.level": "read_uncommitted"}
    return len(read_topic(workflow.servers, workflow.topic, **uncommitted))


def test_a_run_commits_everything_it_reports(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=2000, start="subscriber")
    with Exchange([market], faults=[Cut(after=3000), Replay(300, times=3)]) as exchange:
        loader = start(workflow, exchange)
        wait_for(lambda: market.issued > 8000, "8000 trades issued")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    found = workflow.consecutive_ids()
    events = workflow.events()
    check_events(events, workflow, "interrupted")
    assert events[-1]["records_written"] == len(found) > 7000


def test_records_count_once_they_are_committed(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=2000, start="subscriber")
    with Exchange([market]) as exchange:
        loader = start(workflow, exchange, "--transaction-interval", "30", "--transaction-records", "1000000")
        wait_for(lambda: written(workflow) > 1000, "records in the open transaction")
        assert workflow.events()[-1]["records_written"] == 0
        assert not workflow.ids()
        loader.process.terminate()
        assert loader.wait() == 143, loader.errors
    found = workflow.ids()
    assert workflow.events()[-1]["records_written"] == len(found) > 1000


def test_a_full_queue_holds_the_stream_back_and_loses_nothing(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=float("inf"), count=5000, start="subscriber")]) as exchange:
        loader = start(workflow, exchange, "--max-records", "5000", "--kafka-queue-records", "100")
        assert loader.wait() == 0, loader.errors
    found = workflow.ids()
    assert found == list(range(found[0], found[0] + 5000))


def test_the_older_of_two_loaders_is_fenced_and_nothing_is_duplicated(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=1000, start="subscriber")
    with Exchange([market]) as exchange:
        older = start(workflow, exchange, TELEMETRY_PRODUCER_ID="older")
        wait_for(lambda: len(workflow.ids()) > 500, "the older one's records")
        newer = start(workflow, exchange, TELEMETRY_PRODUCER_ID="newer")
        assert older.wait() == 1
        goal = market.last_id or 0
        wait_for(lambda: workflow.last_id() > goal, "the newer one's records")
        workflow.stop()
        assert newer.wait() == 0, newer.errors
    workflow.consecutive_ids()
    [last] = [event for event in workflow.events() if event["producer"] == "older" and event["finished"]]
    assert last["status"] == "error"
    assert "Fenced off by a newer loader" in last["message"]
    assert f"loader-ws-trades.{workflow.queue_id}.POLUSDT" in older.errors
    assert "Traceback" not in older.errors


def test_an_expired_transaction_is_reported_as_such_and_the_next_run_completes_the_topic(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=1000, start="subscriber")
    with Exchange([market]) as exchange:
        slow = start(workflow, exchange, "--transaction-interval", "8", "-X", "transaction.timeout.ms=1000")
        assert slow.wait() == 1
        assert "not committed within transaction.timeout.ms (1 s)" in slow.errors
        assert "Fenced off" not in slow.errors
        first_owed = market.first_id
        loader = start(workflow, exchange)
        wait_for(lambda: workflow.last_id() >= first_owed, "the next run's records")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    workflow.consecutive_ids()


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
def test_killed_and_started_again_nothing_is_duplicated_or_missing(workflow: Workflow, delivery: str) -> None:
    rng = random.Random(3)
    workflow.variables["DELIVERY"] = delivery
    market = Market.generated("POLUSDT", rate=2000)
    with Exchange([market]) as exchange:
        for _ in range(5):
            loader = start(workflow, exchange)
            goal = workflow.last_id() + rng.randrange(1, 2000)
            wait_for(lambda: workflow.last_id() > goal, "trades on the topic")  # noqa: B023
            loader.process.kill()
            loader.wait()
        loader = start(workflow, exchange)
        goal = market.last_id or 0
        wait_for(lambda: workflow.last_id() >= goal, "the last run to catch up")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    workflow.consecutive_ids()


def open_transaction(kafka: Kafka, topic: str, symbol: str) -> Producer:
    """A producer with a record in a transaction that is not ended."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"open-{uuid.uuid4()}"})
    producer.init_transactions(20)
    producer.begin_transaction()
    key, value, timestamp = record(symbol, 1, DAY)
    producer.produce(topic, value, key, timestamp=timestamp)
    assert producer.flush(20) == 0
    return producer


def test_a_run_that_waits_for_the_checkpoint_can_be_stopped(workflow: Workflow, kafka: Kafka) -> None:
    write(kafka, workflow.topic, live("POLUSDT", 100))
    open_transaction(kafka, workflow.topic, "BTCUSDT")
    write(kafka, workflow.topic, live("POLUSDT", 100, first=1100))
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = start(workflow, exchange)
        wait_for(lambda: len(workflow.events()) > 3, "events while it waits")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    assert "Connected" not in loader.errors
    check_events(workflow.events(), workflow, "interrupted")


@pytest.mark.parametrize(("refused", "code"), [(2, 0), (100, 1)])
def test_a_transaction_that_is_not_committed_is_written_again(kafka_cluster: Cluster, refused: int, code: int) -> None:
    market = Market.generated("POLUSDT", rate=2000, start="subscriber")
    with (
        FaultProxy(kafka_cluster.nodes[0]) as proxy,
        workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as workflow,
        Exchange([market]) as exchange,
    ):
        settings = {"DELIVERY": "transactional", "KAFKA_BOOTSTRAP_SERVERS": proxy.bootstrap_servers}
        loader = start(workflow, exchange, **settings)
        wait_for(lambda: workflow.last_id() > market.first_id + 1000, "the first transactions")
        proxy.refuse_commits = refused
        loader.wait_for_line("A transaction was not committed")
        if code == 0:
            goal = (market.last_id or 0) + 1000
            wait_for(lambda: workflow.last_id() > goal, "transactions after it")
            workflow.stop()
        assert loader.wait() == code, loader.errors
        found = workflow.consecutive_ids()
        if code:
            assert "did not commit a transaction after 3 retries" in loader.errors
            assert f"not delivered: trade ids {found[-1] + 1}-" in loader.errors
