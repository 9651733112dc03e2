"""What a rejection means where it is too odd for a broker of ours: servers that only look like one."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trustme

from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.diagnosis import BrokerDiagnosis, Listener, probe
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.lifecycle import Deadline, Startup
from tests.tools.scripted_server import Server, answering

ANSWERS: dict[str, tuple[bytes, Listener | None]] = {
    "closes": (b"", None),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
    "too short": (b"\x00\x00\x00\x04\x00\x00\x00\x01", None),
    "too many mechanisms": (b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x21\x7f\xff\xff\xff", None),
    "another correlation": (b"\x00\x00\x00\x0a\x00\x00\x00\x02\x00\x22\x00\x00\x00\x00", None),
    "not text": (b"\x00\x00\x00\x0d\x00\x00\x00\x01\x00\x21\x00\x00\x00\x01\x00\x01\xff", None),
    "no SASL": (b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x22\x00\x00\x00\x00", Listener(tls=False, mechanisms=())),
}


@pytest.mark.parametrize(("data", "found"), ANSWERS.values(), ids=ANSWERS.keys())
def test_only_the_answer_of_a_broker_counts(data: bytes, found: Listener | None) -> None:
    def send(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(data)

    with Server(send) as server:
        assert probe(server.address) == found


def test_brokers_that_require_a_client_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    startup = Startup(Deadline(20), grace=1e-9, stopped=lambda: False)
    with Server(answering(b""), context) as server:
        ca = str(tmp_path / "ca.pem")
        client = Producer(
            {"bootstrap.servers": server.address, "security.protocol": "SSL", "ssl.ca.location": ca},
            lambda _error, _message: None,
            credentials="the user",
        )
        with pytest.raises(ConfigurationError, match=r"ssl\.certificate\.location.*KAFKA_PROPERTIES \(-X\)"):
            await_topic(client, "t", "kafka_topic", startup, operation="WRITE")


@pytest.mark.parametrize("address", ["kafka:9092", "127.0.0.1:9092", "[::1]:9093", "b-1.example.com:9094"])
def test_the_address_in_a_log_line(address: str) -> None:
    for prefix in ("", "sasl_ssl://", f"FAIL [rdkafka#producer-1] [thrd:ssl://{address}/1]: ssl://"):
        diagnosis = BrokerDiagnosis("")
        diagnosis.note_line(f"{prefix}{address}/1: Disconnected (after 3ms in state APIVERSION_QUERY)")
        assert diagnosis.reason == f"{address}/1: Disconnected"
