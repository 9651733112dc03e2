"""What the loader does before the first trade, on Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.loader import Loader, Workflow, check_events, workflow_on

# Nothing listens there: the symbol check warns, the feed keeps retrying.
NOWHERE = {"BINANCE_WS_URL": "ws://127.0.0.1:9/ws", "BINANCE_REST_URL": "http://127.0.0.1:9"}


@pytest.fixture
def workflow(kafka: Kafka) -> Iterator[Workflow]:
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as made:
        made.variables |= NOWHERE
        yield made


def sentence(loader: Loader) -> str:
    """The one error line of a run that failed."""
    [line] = [line for line in loader.errors.splitlines() if " ERROR " in line]
    assert "Traceback" not in loader.errors
    return line


def test_a_rejection_at_the_start_is_reported_on_the_events_topic_too(workflow: Workflow) -> None:
    loader = workflow.run(KAFKA_TOPIC="missing-topic", STARTUP_GRACE="1")
    assert loader.wait() == 2
    assert "retrying" in loader.errors
    [event] = workflow.events()
    assert event["status"] == "error"
    assert event["finished"] is True
    assert event["message"] in sentence(loader)


@pytest.mark.parametrize(
    ("variable", "config", "words"),
    [
        ("KAFKA_TOPIC", "cleanup.policy=compact", "is compacted"),
        ("KAFKA_TOPIC", "max.message.bytes=100", "at most 100 bytes at once"),
        ("KAFKA_TOPIC", "message.timestamp.before.max.ms=500", "older than 0.50 s"),
        ("QUEUE_EVENTS_TOPIC", "max.message.bytes=100", "at most 100 bytes at once"),
    ],
)
def test_a_topic_that_would_reject_or_lose_records_is_rejected(
    workflow: Workflow, kafka: Kafka, variable: str, config: str, words: str
) -> None:
    setting, value = config.split("=")
    topic = kafka.create_topic(f"{workflow.topic}-unfit", config={setting: value})
    loader = workflow.run(**{variable: topic}, STARTUP_GRACE="0.1")
    assert loader.wait() == 2
    for expected in (words, setting, f"{variable} (--{variable.lower().replace('_', '-')})"):
        assert expected in sentence(loader)


@pytest.mark.parametrize("command", ["run", "stop"])
def test_an_advertised_address_that_cannot_be_reached_is_named(
    workflow: Workflow, kafka_cluster: Cluster, command: str
) -> None:
    ports = kafka_cluster.nodes[0].ports
    flags = ("--wait",) if command == "stop" else ()
    loader = workflow.start(
        command, *flags, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{ports.proxied}", STARTUP_TIMEOUT="1", STARTUP_GRACE="1"
    )
    assert loader.wait() == 1
    said = loader.errors.splitlines()[-1]
    assert f"advertise addresses that cannot be reached: 127.0.0.1:{ports.proxy} (Connection refused)" in said
    assert "advertised.listeners" in said


def test_an_unknown_librdkafka_property_is_a_configuration_error(workflow: Workflow) -> None:
    loader = workflow.run("-X", "no.such.property=hush-hush-hush")
    assert loader.wait() == 2
    assert "KAFKA_PROPERTIES (-X)" in sentence(loader)
    assert "hush" not in loader.errors


def test_a_stop_sent_before_the_start_is_obeyed(workflow: Workflow) -> None:
    workflow.command({"command": "stop", "queue_id": "another"})
    workflow.stop()
    loader = workflow.run()
    assert loader.wait() == 0
    check_events(workflow.events(), workflow, "interrupted")
    assert workflow.events()[-1]["message"].startswith("Stopped by command")
    assert "partition 0, offset 1" in loader.errors
    assert "CONTROL_FROM=now" in loader.errors
    assert "No connection to the exchange" not in loader.errors, "the feed was opened"


def test_control_from_now_ignores_earlier_commands(workflow: Workflow) -> None:
    workflow.stop()
    loader = workflow.run("--control-from", "now")
    loader.wait_for_line("No connection to the exchange")
    workflow.stop()
    assert loader.wait() == 0
    assert "partition 0, offset 1" in loader.errors


def test_an_unreachable_exchange_is_reported_while_waiting_and_at_the_end(workflow: Workflow) -> None:
    loader = workflow.run(FEED_OUTAGE_LIMIT="2")
    assert loader.wait() == 1
    assert "BINANCE_WS_URL (--binance-ws-url)" in sentence(loader)
    assert loader.errors.count("The symbol could not be checked") == 1
    events = workflow.events()
    check_events(events, workflow, "error")
    assert any("no connection to the exchange since" in event["message"] for event in events[1:-1])
