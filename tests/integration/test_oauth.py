"""OAUTHBEARER: librdkafka asks for a token itself, and what it is given is shown nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loader_ws_trades.config import settings as config
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import producer_credentials, telemetry_producer_properties
from loader_ws_trades.kafka.reader import TopicReader
from tests.tools.waiting import wait_for


@pytest.fixture
def issuer() -> Iterator[tuple[str, list[bytes]]]:
    """The address of what gives out tokens, and what it was asked."""
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_error(403)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked
        server.shutdown()
        thread.join()


def settings(url: str) -> config.Settings:
    properties = ["sasl.oauthbearer.client.id=loader", "sasl.oauthbearer.client.secret=hush-hush-secret"]
    return load(
        {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "kafka_sasl_mechanism": "oauthbearer",
            "kafka_properties": [*properties, f"sasl.oauthbearer.token.endpoint.url={url}"],
        },
        needed=(),
    )


def test_producers_and_consumers_ask_for_a_token(issuer: tuple[str, list[bytes]]) -> None:
    url, asked = issuer
    given = settings(url)
    producer = Producer(telemetry_producer_properties(given), lambda *_: None, credentials=producer_credentials(given))

    def refused() -> bool:
        producer.poll(0.05)
        return "OAUTHBEARER" in producer.diagnosis.reason

    wait_for(refused, "the refusal of a token")
    assert asked
    with pytest.raises(
        ConfigurationError, match=r"^No token for Kafka could be fetched .* check sasl.oauthbearer.\* in KAFKA_PROP"
    ) as caught:
        producer.diagnosis.check(producer.properties)
    assert str(caught.value).isprintable()
    assert "hush" not in f"{producer.diagnosis.reason} {caught.value}"
    count = len(asked)
    with closing(TopicReader(given, "t")) as reader:

        def asked_again() -> bool:
            reader.poll(0.05)
            return len(asked) > count

        wait_for(asked_again, "a question for a token")
