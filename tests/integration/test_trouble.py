"""What is told of a refusal, where it is too odd for a broker of our own: by servers that only look like one."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError, UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka import listener
from loader_ws_trades.kafka.diagnosis import Trouble
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.lifecycle import Deadline, Startup


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that gives each connection to `answer` and then closes it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.settimeout(5)
                answer(self.request)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def answer(data: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(data)

    return send


NO_BROKERS = {
    "closes": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "too short": b"\x00\x00\x00\x04\x00\x00\x00\x01",
    "too many mechanisms": b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x21\x7f\xff\xff\xff",
    "another correlation": b"\x00\x00\x00\x0a\x00\x00\x00\x02\x00\x22\x00\x00\x00\x00",
    "a mechanism that is no text": b"\x00\x00\x00\x0d\x00\x00\x00\x01\x00\x21\x00\x00\x00\x01\x00\x01\xff",
}


@pytest.mark.parametrize("data", NO_BROKERS.values(), ids=NO_BROKERS.keys())
def test_what_answers_like_no_broker_speaks_for_nothing(data: bytes) -> None:
    with serving(answer(data)) as address:
        assert listener.look(address, 1) is None


def test_what_answers_as_a_broker_does_speaks_for_itself() -> None:
    with serving(answer(b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x22\x00\x00\x00\x00")) as address:
        assert listener.look(address, 1) == listener.Listener(tls=False, mechanisms=())


def startup(seconds: float = 20) -> Startup:
    return Startup(Deadline(seconds), grace=1e-9, stopped=lambda: False)


def refusal(properties: KafkaProperties) -> str:
    """The sentence with which a producer with `properties` is refused."""
    client = kafka.Producer(properties, lambda error, message: None, credentials="the user")
    with pytest.raises(ConfigurationError) as caught:
        kafka.await_topic(client, "t", "kafka_topic", startup(), right=kafka.AclOperation.WRITE)
    return str(caught.value)


def test_brokers_that_ask_for_a_certificate_of_the_clients(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def handshake(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1000)

    with serving(handshake) as address:
        told = refusal(
            {
                "bootstrap.servers": address,
                "security.protocol": "SSL",
                "ssl.ca.location": str(tmp_path / "ca.pem"),
            }
        )
    assert "KAFKA_PROPERTIES (-X)" in told
    assert "ssl.certificate.location" in told


def test_an_address_is_found_in_a_line_in_any_form() -> None:
    for address in ("kafka:9092", "127.0.0.1:9092", "[::1]:9093", "b-1.example.com:9094"):
        for prefix in ("", "sasl_ssl://", f"FAIL [rdkafka#producer-1] [thrd:ssl://{address}/1]: ssl://"):
            trouble = Trouble("")
            trouble.note_line(f"{prefix}{address}/1: Disconnected (after 3ms in state APIVERSION_QUERY)")
            assert trouble.reason == f"{address}/1: Disconnected"


def test_a_refusal_before_an_outage_counts_no_more() -> None:
    refused, away = ConfigurationError("refused"), UnavailableError("away")
    told: list[LoaderError | None] = [refused, away, away, refused, None]

    def ask() -> None:
        error = told.pop(0)
        if error:
            raise error

    assert kafka.persist(ask, startup(), lambda seconds: None)
    told += [refused, away, refused]
    with pytest.raises(ConfigurationError):
        kafka.persist(ask, startup(), lambda seconds: None)
    told += [refused, away]
    with pytest.raises(RunError, match="away"):
        kafka.persist(ask, startup(0), lambda seconds: None)
