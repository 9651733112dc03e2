"""Records that Kafka rejects, small batches, and stop requests at awkward moments."""

from __future__ import annotations

import re
import signal
import time

import pytest
from confluent_kafka import Producer

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka import properties
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Workflow, urls, workflow_on
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for


@pytest.mark.parametrize(
    ("name", "value", "delivery"),
    [("max.message.bytes", "100", "transactional"), ("message.timestamp.before.max.ms", "0", "idempotent")],
)
def test_rejected_record_ends_the_run_with_nothing_written_after_it(
    workflow: Workflow, kafka: Kafka, name: str, value: str, delivery: str
) -> None:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        loader = workflow.run(**urls(exchange), DELIVERY=delivery)
        wait_for(lambda: workflow.last_id() > 0, "records")
        kafka.alter_topic(workflow.topic, name, value)
        assert loader.wait() == 2
    ids = workflow.consecutive_ids()
    [last] = [line for line in loader.errors.splitlines() if " ERROR " in line]
    assert workflow.topic in last
    assert f"raise its {name}" in last
    assert f"not delivered: trade ids {ids[-1] + 1}" in last
    assert workflow.events()[-1]["status"] == "error"


def test_buffered_records_fit_a_topic_with_small_batches(workflow: Workflow, kafka: Kafka) -> None:
    topic = kafka.create_topic(f"{workflow.topic}-small", config={"max.message.bytes": "2000"})
    workflow.topic = topic
    market = Market.generated("POLUSDT", rate=float("inf"), count=5000, start="subscriber")
    with Exchange([market]) as exchange:
        loader = workflow.run("--max-records", "5000", **urls(exchange), KAFKA_TOPIC=topic)
        assert loader.wait() == 0, loader.errors
    assert len(workflow.records()) == 5000


def test_second_signal_ends_a_run_that_only_waits_for_its_last_event() -> None:
    market = Market.generated("POLUSDT", rate=500, count=300, start="subscriber")
    with (
        EmbeddedBroker() as broker,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
        Exchange([market]) as exchange,
    ):
        loader = workflow.run(**urls(exchange), SHUTDOWN_TIMEOUT="600", TELEMETRY_INTERVAL="600")
        wait_for(lambda: len(workflow.records()) == 300, "all records")
        broker.stop()
        loader.process.terminate()
        loader.wait_for_line("Stopping")
        loader.process.send_signal(signal.SIGINT)
        assert loader.wait() == 143, "only the event was left to deliver; without the second signal: 600 s"


def test_ids_that_cannot_be_delivered_are_named_at_the_deadline() -> None:
    market = Market.generated("POLUSDT", rate=1000)
    with (
        EmbeddedBroker() as broker,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
        Exchange([market]) as exchange,
    ):
        loader = workflow.run(**urls(exchange), SHUTDOWN_TIMEOUT="5")
        wait_for(lambda: len(workflow.records()) > 300, "300 records")
        broker.stop()
        seen = market.issued
        wait_for(lambda: market.issued > seen + 500, "trades that nobody acknowledges")
        loader.process.terminate()
        assert loader.wait() == 1
        errors = loader.errors
    [line] = [line for line in errors.splitlines() if " ERROR   Error: Stopped by" in line]
    first, last = map(int, re.findall(r"not delivered: trade ids (\d+)-(\d+)", line)[0])
    assert last - first > 300
    assert "Traceback" not in errors


def test_first_signal_after_a_stop_command_still_delivers_the_tail(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = workflow.run(**urls(exchange))
        wait_for(lambda: workflow.last_id() > 0, "the first records")
        workflow.stop()
        loader.wait_for_line("Stopping")
        loader.process.terminate()
        assert loader.wait() == 0
    assert workflow.events()[-1]["records_written"] == len(workflow.records())


def test_stop_command_with_an_odd_timestamp_is_obeyed(workflow: Workflow, kafka: Kafka) -> None:
    kafka.alter_topic(workflow.control_topic, "message.timestamp.after.max.ms", str(2**63 - 1))
    producer = Producer({"bootstrap.servers": workflow.servers})
    command = f'{{"command":"stop","queue_id":"{workflow.queue_id}"}}'
    producer.produce(workflow.control_topic, command, timestamp=time.time_ns() // 1000)
    assert producer.flush(10) == 0
    assert len(read_topic(workflow.servers, workflow.control_topic)) == 1
    loader = workflow.run(BINANCE_REST_URL="http://127.0.0.1:9", BINANCE_WS_URL="ws://127.0.0.1:9/ws")
    assert loader.wait() == 0, loader.errors


def test_producer_properties_hold_the_delivery_guarantee() -> None:
    given = ("queue_id", "symbol", "type", "kafka_topic", "telemetry_producer_id")
    settings = load({**dict.fromkeys(given, "x"), "kafka_bootstrap_servers": "k:1", "kafka_queue_records": "7"})
    expected = {
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "message.timeout.ms": 0,
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
    }
    trades = properties.trade_producer_properties(settings)
    assert properties.telemetry_producer_properties(settings).items() >= expected.items()
    assert trades.items() >= {**expected, "queue.buffering.max.messages": 7}.items()
    assert properties.consumer_properties(settings)["enable.auto.commit"] is False
