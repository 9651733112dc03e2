"""`check` on a secured Apache Kafka: what the cluster rejects, and that a running loader is not fenced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from loader_ws_trades.check.check import configuration
from loader_ws_trades.check.kafka import KafkaSteps
from loader_ws_trades.check.steps import run_steps
from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, urls
from tests.tools.rights import CHECKPOINT, COMMANDS, LEAST, POLICY, TELEMETRY, TRADES, Right
from tests.tools.waiting import wait_for

USER, PASSWORD = "KAFKA_USER_PRODUCER (--kafka-user-producer)", "KAFKA_PASSWORD_PRODUCER (--kafka-password-producer)"
TOPIC, EVENTS = "KAFKA_TOPIC (--kafka-topic)", "QUEUE_EVENTS_TOPIC (--queue-events-topic)"
COMMANDS_TOPIC = "QUEUE_CONTROL_TOPIC (--queue-control-topic)"
STEPS = ("brokers", "events topic", "trades topic", "commands topic", "checkpoint")


class Case(NamedTuple):
    """What is wrong, the steps that do not pass, and what the first of them says."""

    not_passed: dict[str, str]
    words: tuple[str, ...]
    exit_code: int = 0
    settings: dict[str, str] = {}  # noqa: RUF012 - never changed
    lacking: Right | None = None
    config: Mapping[str, str] = {}


CASES = {
    "wrong password": Case(
        {"events topic": "FAIL", "trades topic": "FAIL", "commands topic": "FAIL", "checkpoint": "skip"},
        (USER, PASSWORD),
        2,
        {"kafka_password_producer": "hush-hush-wrong"},
    ),
    "wrong password for reading": Case(
        {"commands topic": "FAIL", "checkpoint": "skip"},
        ("KAFKA_PASSWORD_CONSUMER (--kafka-password-consumer)",),
        2,
        {"kafka_user_consumer": "reader", "kafka_password_consumer": "hush-hush-wrong"},
    ),
    "no right to write trades": Case(
        {"trades topic": "FAIL", "checkpoint": "skip"}, ("WRITE", TOPIC, USER), 2, lacking=TRADES
    ),
    "no right to write events": Case({"events topic": "FAIL"}, ("WRITE", EVENTS, USER), 2, lacking=TELEMETRY),
    "no right to read commands": Case(
        {"commands topic": "FAIL", "checkpoint": "skip"}, ("READ", COMMANDS_TOPIC, USER), 2, lacking=COMMANDS
    ),
    "no right to read trades": Case({"checkpoint": "warn"}, ("READ", USER, "RESUME (--resume)"), lacking=CHECKPOINT),
    "a compacted topic": Case(
        {"trades topic": "FAIL", "checkpoint": "skip"},
        ("cleanup.policy", TOPIC),
        2,
        config={"cleanup.policy": "compact"},
    ),
    "a short retention": Case({"trades topic": "warn"}, ("retention.ms",), config={"retention.ms": "60000"}),
    "no right to the transactional id": Case(
        {"transactional id": "skip"},
        ("would fence a running loader", "WRITE on loader-ws-trades."),
        settings={"delivery": "transactional"},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_fault_of_the_cluster_is_named_by_its_step(case: Case, kafka_cluster: Cluster, secured: Workflow) -> None:
    if case.config:
        secured.variables["KAFKA_TOPIC"] = kafka_cluster.create_topic(f"{secured.topic}-set", config=case.config)
    for right in (*LEAST, CHECKPOINT, POLICY):
        # The right to read the trades would show their topic too.
        if right != case.lacking and not (case.lacking == TRADES and right == CHECKPOINT):
            kafka_cluster.grant("loader", str(secured.variables[right.setting.upper()]), right.operation)
        elif right == case.lacking:
            kafka_cluster.grant("loader", str(secured.variables[right.setting.upper()]), "DESCRIBE")
    texts = {name.lower(): str(value) for name, value in secured.variables.items()} | case.settings
    configured = configuration(texts)
    found = {result.name: result for result in run_steps(KafkaSteps(configured.settings).steps(), configured.unusable)}
    assert {name: result.verdict for name, result in found.items() if result.verdict != "ok"} == case.not_passed, found
    assert max(result.exit_code for result in found.values()) == case.exit_code
    told = found[next(iter(case.not_passed))].text
    assert not [word for word in case.words if word not in told], told


def test_a_running_transactional_loader_is_not_fenced(kafka_cluster: Cluster, secured: Workflow) -> None:
    for right in (*LEAST, CHECKPOINT, POLICY):
        kafka_cluster.grant("loader", str(secured.variables[right.setting.upper()]), right.operation)
    # The ids of all workflows, as README.md has it.
    for kind in ("", ".check"):
        name = f"loader-ws-trades.{secured.queue_id}.POLUSDT{kind}"
        kafka_cluster.grant("loader", name, "WRITE", kind="TRANSACTIONAL_ID")
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        secured.variables |= urls(exchange)
        secured.variables["DELIVERY"] = "transactional"
        loader = secured.run()
        wait_for(lambda: secured.last_id() >= 0, "a trade")
        checking = secured.start("check", COLUMNS="80", NO_COLOR="1")
        assert checking.wait() == 0, checking.output()
        shown = checking.output()
        before = secured.last_id()
        wait_for(lambda: secured.last_id() > before, "the loader to go on")
        kafka_cluster.grant("loader", secured.control_topic, "WRITE")
        secured.stop()
        assert loader.wait() == 0
    assert "WARNING" not in loader.errors
    assert "All checks passed." in shown, shown
    assert "resumes after trade id" in shown
    assert f"tested with {transactional_id(secured)}" in " ".join(shown.split())
    assert checking.errors == ""


def transactional_id(secured: Workflow) -> str:
    return f"loader-ws-trades.{secured.queue_id}.POLUSDT.check"
