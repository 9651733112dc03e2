"""Refusals by Kafka and by the exchange, and signals at awkward moments."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka import properties
from loader_ws_trades.sandbox import Cut, EmbeddedBroker, Exchange, HandshakeStatus, Market
from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.loader import Workflow, workflow_on
from tests.tools.waiting import wait_for


@pytest.fixture
def workflow(kafka: Kafka) -> Iterator[Workflow]:
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as made:
        yield made


@pytest.fixture
def embedded() -> Iterator[Workflow]:
    with EmbeddedBroker() as broker, workflow_on(broker.bootstrap_servers, broker.create_topics) as made:
        yield made


def urls(exchange: Exchange) -> dict[str, object]:
    return {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
@pytest.mark.parametrize(("name", "value"), [("max.message.bytes", "100"), ("message.timestamp.before.max.ms", "0")])
def test_a_record_that_kafka_refuses_ends_the_run_and_nothing_behind_it_is_written(
    workflow: Workflow, kafka: Kafka, name: str, value: str, delivery: str
) -> None:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        loader = workflow.run(**urls(exchange), DELIVERY=delivery)
        wait_for(lambda: workflow.last_id() > 0, "records")
        kafka.alter_topic(workflow.topic, name, value)
        assert loader.wait() == 2
    ids = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    [last] = [line for line in loader.errors.splitlines() if " ERROR " in line]
    assert f"The topic {workflow.topic} refuses" in last
    assert f"raise its {name}" in last
    assert f"not delivered: trade ids {ids[-1] + 1}" in last
    assert workflow.events()[-1]["status"] == "error"


def test_what_waits_is_written_to_a_topic_that_takes_little_at_once(workflow: Workflow, kafka: Kafka) -> None:
    topic = kafka.create_topic(f"{workflow.topic}-small", config={"max.message.bytes": "2000"})
    workflow.topic = topic
    market = Market.generated("POLUSDT", rate=float("inf"), count=5000, start="subscriber")
    with Exchange([market]) as exchange:
        loader = workflow.run("--max-records", "5000", **urls(exchange), KAFKA_TOPIC=topic)
        assert loader.wait() == 0, loader.errors
    assert len(workflow.records()) == 5000


def test_a_location_that_is_not_served_is_a_configuration_fault(embedded: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT")], faults=[HandshakeStatus(451, lasting=60)]) as exchange:
        loader = embedded.run(**urls(exchange))
        assert loader.wait() == 2
    assert "HTTP 451" in loader.errors
    assert "BINANCE_WS_URL (--binance-ws-url)" in loader.errors


def test_a_handshake_that_asks_to_wait_is_waited_for(embedded: Workflow) -> None:
    faults = [Cut(after=300), HandshakeStatus(429, retry_after=3, after=290, times=1)]
    with Exchange([Market.generated("POLUSDT", rate=300, start="subscriber")], faults=faults) as exchange:
        loader = embedded.run(**urls(exchange))
        wait_for(lambda: exchange.counters.connections == 2, "the second connection", 60)
        embedded.stop()
        assert loader.wait() == 0
        refused, accepted = exchange.counters.attempts[1:3]
    assert (refused.status, accepted.status) == (429, 101)
    assert accepted.at - refused.at > 2.9


def test_a_name_that_does_not_resolve_is_asked_for_with_growing_delays(embedded: Workflow) -> None:
    loader = embedded.run(
        BINANCE_REST_URL="http://127.0.0.1:9", BINANCE_WS_URL="ws://no-such-name.invalid/ws", FEED_OUTAGE_LIMIT="5"
    )
    assert loader.wait() == 1
    assert 2 <= loader.errors.count("next attempt in") < 30, "no storm of attempts"
    assert "There was no connection to the exchange at ws://no-such-name.invalid/ws/polusdt@trade" in loader.errors


def test_a_second_signal_ends_a_run_that_waits_for_its_last_event_alone() -> None:
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
        assert loader.wait(30) == 143, "nothing was left to deliver but the event; without the signal: 600 s"


def test_a_first_signal_behind_a_stop_command_does_not_cut_the_tail_off(kafka_cluster: Cluster) -> None:
    with workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as workflow:
        with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
            loader = workflow.run("--duration", "3s", **urls(exchange))
            loader.wait_for_line("Connected")
            wait_for(lambda: workflow.last_id() > 0, "the first records")
            workflow.stop()
            loader.wait_for_line("Stopping")
            loader.process.terminate()
            assert loader.wait(30) == 0
        assert workflow.events()[-1]["records_written"] == len(workflow.records())


def test_a_stop_command_with_an_odd_timestamp_is_obeyed(embedded: Workflow) -> None:
    from confluent_kafka import Producer  # noqa: PLC0415 - no other test writes a timestamp of its own

    producer = Producer({"bootstrap.servers": embedded.servers})
    command = f'{{"command":"stop","queue_id":"{embedded.queue_id}"}}'
    producer.produce(embedded.control_topic, command, timestamp=time.time_ns() // 1000)
    assert producer.flush(10) == 0
    loader = embedded.run(BINANCE_REST_URL="http://127.0.0.1:9", BINANCE_WS_URL="ws://127.0.0.1:9/ws")
    assert loader.wait() == 0, loader.errors


def test_what_the_producers_promise_stands_in_their_properties() -> None:
    settings = load(
        {
            "queue_id": "q",
            "symbol": "s",
            "type": "t",
            "kafka_topic": "t",
            "telemetry_producer_id": "p",
            "kafka_bootstrap_servers": "k:1",
            "kafka_queue_records": "50000",
        }
    )
    expected = {
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "message.timeout.ms": 0,
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
    }
    assert properties.telemetry_producer_properties(settings).items() >= expected.items()
    assert (
        properties.trade_producer_properties(settings).items()
        >= {
            **expected,
            "queue.buffering.max.messages": 50_000,
        }.items()
    )
    assert properties.consumer_properties(settings)["enable.auto.commit"] is False
