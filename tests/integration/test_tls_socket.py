"""TLS without a thread of its own: what a socket's read takes, and what stays for the next, against a real peer."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import trustme
import websocket

from loader_ws_trades.binance import websocket as wire
from loader_ws_trades.binance.tls_socket import TlsSocket
from loader_ws_trades.lifecycle import Deadline
from tests.integration.test_websocket import frame


@contextmanager
def secured() -> Iterator[tuple[TlsSocket, ssl.SSLSocket]]:
    """The two ends of a TLS connection, the client's first."""
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(of_server)
    authority.configure_trust(of_client)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), 10)
        far, _ = listener.accept()
    far.settimeout(10)
    client = TlsSocket(near, of_client, "localhost")
    with near, ThreadPoolExecutor(1) as pool:
        server = pool.submit(of_server.wrap_socket, far, server_side=True)
        client.do_handshake(Deadline(10))
        with server.result(10) as other:
            near.settimeout(10)
            yield client, other


def test_available_tls_records_are_one_read_before_the_end_after_them() -> None:
    sent = [b"%05d" % number for number in range(100)]
    with secured() as (client, server):
        buffered = wire.ReadBuffer(client)
        for payload in sent:
            server.sendall(frame(payload))  # a record each
        server.shutdown(socket.SHUT_WR)
        assert buffered.fill()
        assert buffered.take_text_frames() == sent
        with pytest.raises((websocket.WebSocketConnectionClosedException, ssl.SSLError)):
            buffered.fill()


def test_received_data_that_did_not_fit_is_there_without_another_read() -> None:
    with secured() as (client, server):
        server.sendall(b"abcde")
        assert client.recv(1) == b"a"
        assert (client.has_more, client.receive(3)) == (True, b"bcd")
        assert (client.has_more, client.receive(3)) == (True, b"e")
        assert not client.has_more
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_what_a_long_read_had_no_room_for_belongs_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MUCH", 60)
    with secured() as (client, server):
        buffered = wire.ReadBuffer(client)
        server.sendall(b"x" * 70)
        assert client.recv(1) == b"x"
        monkeypatch.setattr(wire, "READ_SIZE", 64)
        assert [(buffered.fill(), buffered.took_much) for _ in range(2)] == [(True, True)] * 2
        server.sendall(b"x")
        assert (select.select([client], [], [], 10)[0], buffered.fill(), buffered.took_much) == ([client], True, False)


def test_incomplete_tls_record_is_not_data_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    with secured() as (client, server):
        buffered = wire.ReadBuffer(client)
        monkeypatch.setattr(wire, "READ_SIZE", 3)
        server.sendall(frame(b"whole"))
        parts = 0
        while select.select([client], [], [], 10)[0] and not buffered.fill():
            parts += 1
        assert parts > 3
        while client.has_more:
            buffered.fill()
        assert buffered.take_text_frames() == [b"whole"]
        with pytest.raises(BlockingIOError):
            buffered.fill()
        assert client.gettimeout() == 10
