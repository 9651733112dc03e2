"""The HTTP client, against servers that are slow, send too much, or say nothing."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import urllib3

from loader_ws_trades.binance import http_client
from loader_ws_trades.binance.http_client import HttpClient
from loader_ws_trades.errors import UnavailableError
from tests.integration.conftest import context_of
from tests.tools.scripted_server import Script, Server, answering, dripping, silent
from tests.tools.waiting import wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


@contextlib.contextmanager
def server(script: Script) -> Iterator[str]:
    """The address of a server that the client has to leave by itself."""
    with Server(script) as running:
        yield running.address
        running.check_client_leaves()


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def client(stopping: threading.Event) -> Iterator[HttpClient]:
    made = HttpClient(urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=5)), stopping)
    yield made
    made.close()


SLOW = {
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-", b"a"),
    "lines of headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.15),
    "interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"["),
    "body that ends the connection": dripping(b"HTTP/1.0 200 OK\r\n\r\n", b"["),
    "chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n[\r\n"),
    "size of a chunk": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "nothing": silent,
}


@pytest.mark.parametrize("serve", SLOW.values(), ids=SLOW)
def test_dripping_answer_is_cut_off_by_one_deadline(
    serve: Script, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "_TIME_LIMIT", 0.5)
    with server(serve) as address, pytest.raises(UnavailableError, match="no complete response"):
        client.get(f"http://{address}/", {})


@pytest.mark.parametrize("serve", [SLOW[kind] for kind in ("headers", "body", "nothing")])
def test_end_of_the_run_breaks_off_an_answer(serve: Script, client: HttpClient, stopping: threading.Event) -> None:
    with server(serve) as address:
        stop = threading.Timer(0.3, stopping.set)
        stop.start()
        with pytest.raises(UnavailableError, match="the run is ending"):
            client.get(f"http://{address}/", {})
        stop.join()


def test_dripping_answer_over_tls_is_cut_off(
    authority: trustme.CA, stopping: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "_TIME_LIMIT", 0.5)
    client = HttpClient(urllib3.PoolManager(ca_certs=str(tmp_path / "ca.pem")), stopping)
    with Server(SLOW["headers"], context_of(authority)) as server:
        with pytest.raises(UnavailableError, match="no complete response"):
            client.get(f"https://localhost:{server.port}/", {})
        client.close()


def test_dripping_proxy_is_cut_off_and_no_tls_begins_on_its_socket(
    stopping: threading.Event, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(http_client, "_TIME_LIMIT", 0.5)
    secured: list[object] = []
    monkeypatch.setattr(urllib3.connection, "ssl_wrap_socket", lambda sock, **_: secured.append(sock))
    with server(dripping(b"HTTP/1.1 200 Connection established\r\nX-", b"a")) as address:
        client = HttpClient(urllib3.ProxyManager(f"http://{address}"), stopping)
        request.addfinalizer(client.close)
        with pytest.raises(UnavailableError, match="no complete response"):
            client.get("https://rest.invalid/", {})
        wait_for(lambda: all(thread.name != "rest" for thread in threading.enumerate()), "the end of the request")
    assert not secured, "no TLS on a socket that was shut"


def test_unanswered_tls_handshake_is_cut_off(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_TIME_LIMIT", 0.5)
    client._pool.connection_pool_kw["timeout"] = 1.0  # what ends the handshake
    with server(silent) as address, pytest.raises(UnavailableError, match="no complete response"):
        client.get(f"https://{address}/", {})


def test_hanging_resolver_does_not_hold_the_end_of_the_run(
    client: HttpClient, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, asked = threading.Event(), threading.Event()

    def resolve(*_args: object, **_options: object) -> list[object]:
        asked.set()
        resolved.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def end() -> None:
        asked.wait(10)
        stopping.set()

    stop = threading.Thread(target=end)
    stop.start()
    with pytest.raises(UnavailableError, match="the run is ending"):
        client.get("http://rest.invalid/", {})
    assert not resolved.is_set()
    resolved.set()
    stop.join()


def test_request_given_up_while_connecting_is_not_sent(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_TIME_LIMIT", 0.3)
    go_on, came = threading.Event(), list[bytes]()
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: go_on.wait(10) and resolve(*args, **options))
    with server(lambda connection: came.append(connection.recv(4096))) as address:
        with pytest.raises(UnavailableError, match="no complete response"):
            client.get(f"http://{address}/", {})
        go_on.set()
        wait_for(lambda: came, "the end of the connection")
    assert came == [b""]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_answer_is_bounded_in_size_after_decompression(encoding: str, client: HttpClient) -> None:
    body = b" " * 9 * 1024**2
    sent = gzip.compress(body) if encoding == "gzip" else body
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
    with server(answering(head + sent)) as address:
        with pytest.raises(UnavailableError, match="more than 8 MiB"):
            client.get(f"http://{address}/", {})
        client.close()


def test_endless_header_line_is_rejected(client: HttpClient) -> None:
    with (
        server(dripping(b"HTTP/1.1 200 OK\r\nX-", b"a" * 100_000, 0)) as address,
        pytest.raises(urllib3.exceptions.HTTPError, match="more than 65536"),
    ):
        client.get(f"http://{address}/", {})


def test_connections_are_reused(client: HttpClient) -> None:
    with server(answering(OK)) as address:
        for _ in range(3):
            assert client.get(f"http://{address}/", {"a": 1}).body == b"[]"
        client.close()


def test_redirect_is_not_followed(client: HttpClient) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n"
    with server(answering(moved)) as address:
        assert client.get(f"http://{address}/", {}).status == 302
        client.close()
