"""A secured cluster, and the exchange over TLS: it works, and no secret is shown, not even at debug level."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import trustme

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, check_events


def test_everything_over_tls_and_no_secret_anywhere(secured: Workflow, kafka_cluster: Cluster, tmp_path: Path) -> None:
    for topic in (secured.topic, secured.events_topic, secured.control_topic):
        kafka_cluster.grant("loader", topic, "READ", "WRITE", "DESCRIBE")
    authority, bundle = trustme.CA(), tmp_path / "exchange-ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(bundle)
    password = kafka_cluster.users["loader"]
    secret = tmp_path / "password"
    secret.write_text(password + "\n")
    with Exchange([Market.generated("POLUSDT", rate=20_000)], ssl=context) as exchange:
        loader = secured.run(
            *(
                "--max-records",
                "20000",
                "-X",
                "debug=security,broker,conf",
                "-X",
                "ssl.key.password=hush-hush-property",
            ),
            KAFKA_PASSWORD_PRODUCER=None,
            KAFKA_PASSWORD_FILE=secret,
            LOG_LEVEL="debug",
            SSL_CERT_FILE=bundle,
            BINANCE_WS_URL=exchange.ws_url.replace("wss://", "wss://someone:hush-hush-url@"),
            BINANCE_REST_URL=exchange.rest_url,
        )
        assert loader.wait() == 0, loader.errors
    records = secured.ids()
    assert records == list(range(records[0], records[0] + 20_000))
    check_events(secured.events(), secured, "finished")
    shown = loader.errors + json.dumps(secured.events())
    assert "SASL" in shown, "librdkafka's debug lines are in the log"
    assert password not in shown
    assert "hush-hush" not in shown
