"""A secured cluster, and the exchange over TLS: it works, and no secret is shown, not even at debug level."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, check_events, workflow_on


@pytest.fixture
def workflow(kafka_cluster: Cluster) -> Iterator[Workflow]:
    with workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as made:
        for topic in (made.topic, made.events_topic, made.control_topic):
            kafka_cluster.grant("loader", topic, "READ", "WRITE", "DESCRIBE")
        made.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_cluster.sasl_bootstrap_servers,
            "KAFKA_USER_PRODUCER": "loader",
            "CA_PATH": kafka_cluster.ca_path,
            "LOG_LEVEL": "debug",
        }
        yield made


@pytest.fixture
def secured_exchange(tmp_path: Path) -> Iterator[tuple[Exchange, Path]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    bundle = tmp_path / "exchange-ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with Exchange([Market.generated("POLUSDT", rate=20_000)], ssl=context) as exchange:
        yield exchange, bundle


def test_everything_over_tls_and_no_secret_anywhere(
    workflow: Workflow, secured_exchange: tuple[Exchange, Path], kafka_cluster: Cluster, tmp_path: Path
) -> None:
    exchange, bundle = secured_exchange
    password = kafka_cluster.users["loader"]
    secret = tmp_path / "password"
    secret.write_text(password + "\n")
    url = exchange.ws_url.replace("wss://", "wss://someone:hush-hush-url@")
    loader = workflow.run(
        "--max-records",
        "20000",
        "-X",
        "debug=security,broker",
        "-X",
        "ssl.key.password=hush-hush-property",
        KAFKA_PASSWORD_FILE=secret,
        SSL_CERT_FILE=bundle,
        BINANCE_WS_URL=url,
        BINANCE_REST_URL=exchange.rest_url,
    )
    assert loader.wait() == 0, loader.errors
    records = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    assert records == list(range(records[0], records[0] + 20_000))
    check_events(workflow.events(), workflow, "finished")
    shown = loader.errors + json.dumps(workflow.events())
    assert "SASL" in shown, "librdkafka's debug lines are in the log"
    assert password not in shown
    assert "hush-hush" not in shown


def test_an_exchange_with_an_untrusted_certificate_is_rejected(
    workflow: Workflow, secured_exchange: tuple[Exchange, Path], kafka_cluster: Cluster
) -> None:
    exchange, _ = secured_exchange
    loader = workflow.run(
        KAFKA_PASSWORD_PRODUCER=kafka_cluster.users["loader"],
        BINANCE_WS_URL=exchange.ws_url,
        BINANCE_REST_URL=exchange.rest_url,
    )
    assert loader.wait() == 2
    assert "is not trusted; set SSL_CERT_FILE to the CA that signed it" in loader.errors
    assert not workflow.records()
