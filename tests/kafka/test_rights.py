"""The ACLs in README.md are enough, each user with its own only; `test_refused` leaves out one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import pytest

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, check_events, workflow_on
from tests.tools.rights import CHECKPOINT, LEAST, POLICY, READER, TRANSACTIONS, WRITER, Right

ONE_USER = {WRITER: "loader", READER: "loader"}
TWO_USERS = {WRITER: "loader", READER: "reader"}


@pytest.fixture
def workflow(kafka_cluster: Cluster) -> Iterator[Workflow]:
    with workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as made:
        made.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_cluster.sasl_bootstrap_servers,
            "KAFKA_USER_PRODUCER": "loader",
            "KAFKA_PASSWORD_PRODUCER": kafka_cluster.users["loader"],
            "CA_PATH": kafka_cluster.ca_path,
        }
        yield made


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as made:
        yield made


def to(exchange: Exchange) -> dict[str, object]:
    return {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}


def grant(cluster: Cluster, workflow: Workflow, rights: Iterable[Right], users: Mapping[str, str]) -> None:
    for right in rights:
        cluster.grant(users[right.user], str(workflow.variables[right.setting.upper()]), right.operation)


@pytest.mark.parametrize("users", [ONE_USER, TWO_USERS], ids=["one user", "a writer and a reader"])
def test_with_the_required_acls_a_run_writes_reports_stops_and_resumes(
    kafka_cluster: Cluster, workflow: Workflow, exchange: Exchange, users: Mapping[str, str]
) -> None:
    grant(kafka_cluster, workflow, (*LEAST, CHECKPOINT), users)
    if users is TWO_USERS:
        workflow.variables |= {
            "KAFKA_USER_CONSUMER": "reader",
            "KAFKA_PASSWORD_CONSUMER": kafka_cluster.users["reader"],
        }
    assert workflow.run("--max-records", "500", **to(exchange)).wait() == 0
    again = workflow.run(**to(exchange))
    again.wait_for_line("Resuming after trade id")
    workflow.stop()
    assert again.wait() == 0
    assert "WARNING" not in again.errors
    ids = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    events = workflow.events()
    second = next(number for number, event in enumerate(events) if number and event["status"] == "started")
    check_events(events[:second], workflow, "finished")
    check_events(events[second:], workflow, "interrupted")


def test_without_read_on_the_topic_a_run_starts_at_the_first_live_trade_with_a_warning(
    kafka_cluster: Cluster, workflow: Workflow, exchange: Exchange
) -> None:
    grant(kafka_cluster, workflow, LEAST, ONE_USER)
    assert workflow.run("--max-records", "50", **to(exchange)).wait() == 0
    again = workflow.run("--max-records", "50", **to(exchange))
    assert again.wait() == 0
    [warning] = [line for line in again.errors.splitlines() if "WARNING" in line]
    assert f"READ on the topic {workflow.topic}" in warning
    assert "KAFKA_USER_PRODUCER (--kafka-user-producer)" in warning
    assert "RESUME (--resume)" in warning


def test_a_compacted_topic_is_noticed_with_describe_configs(
    kafka_cluster: Cluster, workflow: Workflow, exchange: Exchange
) -> None:
    topic = kafka_cluster.create_topic(f"{workflow.topic}-compact", config={"cleanup.policy": "compact"})
    workflow.variables["KAFKA_TOPIC"] = topic
    grant(kafka_cluster, workflow, LEAST, ONE_USER)
    assert workflow.run("--max-records", "5", **to(exchange)).wait() == 0
    grant(kafka_cluster, workflow, [POLICY], ONE_USER)
    noticing = workflow.run("--max-records", "5", **to(exchange))
    assert noticing.wait() == 2
    assert "is compacted" in noticing.errors


def test_transactions_need_one_more_acl(kafka_cluster: Cluster, workflow: Workflow, exchange: Exchange) -> None:
    grant(kafka_cluster, workflow, (*LEAST, CHECKPOINT), ONE_USER)
    transactional_id = f"loader-ws-trades.{workflow.queue_id}.POLUSDT"
    kafka_cluster.grant("loader", transactional_id, TRANSACTIONS.operation, kind=TRANSACTIONS.kind)
    for _ in range(2):
        loader = workflow.run("--max-records", "500", **to(exchange), DELIVERY="transactional")
        assert loader.wait() == 0
        assert "WARNING" not in loader.errors
    ids = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    assert ids == list(range(ids[0], ids[0] + 1000))
