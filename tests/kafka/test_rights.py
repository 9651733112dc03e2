"""The ACLs in README.md are enough, each user with its own only; `test_refused` leaves out one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from loader_ws_trades.sandbox import Exchange, Market, crowd
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, check_events, urls
from tests.tools.rights import CHECKPOINT, LEAST, POLICY, READER, TRANSACTIONS, WRITER, Right

ONE_USER = {WRITER: "loader", READER: "loader"}
TWO_USERS = {WRITER: "loader", READER: "reader"}


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as made:
        yield made


def grant(cluster: Cluster, secured: Workflow, rights: Iterable[Right], users: Mapping[str, str]) -> None:
    for right in rights:
        cluster.grant(users[right.user], str(secured.variables[right.setting.upper()]), right.operation)


@pytest.mark.parametrize("users", [ONE_USER, TWO_USERS], ids=["one user", "a writer and a reader"])
def test_with_the_required_acls_a_run_writes_reports_stops_and_resumes(
    kafka_cluster: Cluster, secured: Workflow, exchange: Exchange, users: Mapping[str, str]
) -> None:
    grant(kafka_cluster, secured, (*LEAST, CHECKPOINT), users)
    if users is TWO_USERS:
        secured.variables |= {
            "KAFKA_USER_CONSUMER": "reader",
            "KAFKA_PASSWORD_CONSUMER": kafka_cluster.users["reader"],
        }
    assert secured.run("--max-records", "500", **urls(exchange)).wait() == 0
    again = secured.run(**urls(exchange))
    again.wait_for_line("Resuming after trade id")
    secured.stop()
    assert again.wait() == 0
    assert "WARNING" not in again.errors
    secured.consecutive_ids()
    events = secured.events()
    second = next(number for number, event in enumerate(events) if number and event["status"] == "started")
    check_events(events[:second], secured, "finished")
    check_events(events[second:], secured, "interrupted")


def test_without_read_on_the_topic_a_run_starts_at_the_first_live_trade_with_a_warning(
    kafka_cluster: Cluster, secured: Workflow, exchange: Exchange
) -> None:
    grant(kafka_cluster, secured, LEAST, ONE_USER)
    assert secured.run("--max-records", "50", **urls(exchange)).wait() == 0
    again = secured.run("--max-records", "50", **urls(exchange))
    assert again.wait() == 0
    [warning] = [line for line in again.errors.splitlines() if "WARNING" in line]
    assert f"READ on the topic {secured.topic}" in warning
    assert "KAFKA_USER_PRODUCER (--kafka-user-producer)" in warning
    assert "RESUME (--resume)" in warning


def test_a_compacted_topic_is_noticed_with_describe_configs(
    kafka_cluster: Cluster, secured: Workflow, exchange: Exchange
) -> None:
    topic = kafka_cluster.create_topic(f"{secured.topic}-compact", config={"cleanup.policy": "compact"})
    secured.variables["KAFKA_TOPIC"] = topic
    grant(kafka_cluster, secured, LEAST, ONE_USER)
    assert secured.run("--max-records", "5", **urls(exchange)).wait() == 0
    grant(kafka_cluster, secured, [POLICY], ONE_USER)
    noticing = secured.run("--max-records", "5", **urls(exchange))
    assert noticing.wait() == 2
    assert "is compacted" in noticing.errors


def test_transactions_need_one_more_acl(kafka_cluster: Cluster, secured: Workflow, exchange: Exchange) -> None:
    grant(kafka_cluster, secured, (*LEAST, CHECKPOINT), ONE_USER)
    transactional_id = f"loader-ws-trades.{secured.queue_id}.POLUSDT"
    kafka_cluster.grant("loader", transactional_id, TRANSACTIONS.operation, kind=TRANSACTIONS.kind)
    for _ in range(2):
        loader = secured.run("--max-records", "500", **urls(exchange), DELIVERY="transactional")
        assert loader.wait() == 0
        assert "WARNING" not in loader.errors
    ids = secured.ids()
    assert ids == list(range(ids[0], ids[0] + 1000))


def test_a_pair_on_whose_topic_write_is_denied_ends_alone(kafka_cluster: Cluster, secured: Workflow) -> None:
    grant(kafka_cluster, secured, LEAST, ONE_USER)
    for pair, right in (("BTCUSDT", "WRITE"), ("ETHUSDT", "DESCRIBE")):
        topic = kafka_cluster.create_topic(f"{secured.topic}-{pair}")
        kafka_cluster.grant("loader", topic, right)
    given = {"SYMBOL": None, "SYMBOLS": "BTCUSDT,ETHUSDT", "STARTUP_GRACE": "1", "RESUME": "off"}
    with Exchange(crowd(2, 500.0)) as exchange:
        topics = f"{secured.topic}-{{symbol}}"
        loader = secured.run("--max-records", "50", **urls(exchange), **given, KAFKA_TOPIC=topics)
        assert loader.wait() == 0, loader.errors
    assert f"Cannot load ETHUSDT: Kafka denies WRITE on the topic {secured.topic}-ETHUSDT" in loader.errors
    last = [(event["symbol"], event["status"], event["records_written"]) for event in secured.events()]
    assert ("ETHUSDT", "error", 0) in last
    assert ("BTCUSDT", "finished", 50) in last
