"""Connecting, against scripted peers on real sockets: what is answered before frames is bounded, and not obeyed."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest
import trustme
from websocket import WebSocketBadStatusException, WebSocketException

from loader_ws_trades.binance import transport
from loader_ws_trades.binance.connection import Connection
from loader_ws_trades.binance.disconnects import describe, permanent_error, retry_after
from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.sandbox import Exchange
from tests.integration.conftest import context_of
from tests.integration.test_websocket import Run
from tests.tools.scripted_server import ConnectProxy, Server, answering, dripping, request_on
from tests.tools.waiting import wait_for


def run(url: str, **environ: str) -> Run:
    proxy = proxy_for(url, environ)
    return Run(Connection(url, lambda _: None, lambda: None, silence_limit=60, proxy=proxy))


ENDLESS = [
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nX-Endless: ", b"x" * 4096, id="a line"),
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n", b"X-More: 1\r\n" * 100, id="lines"),
    pytest.param(b"", b"x" * 4096, id="a status line"),
    pytest.param(b"HTTP/1.1 503 Busy\r\n", b"X-More: 1\r\n" * 100, id="lines of a refusal"),
]


@pytest.mark.parametrize(("first", "again"), ENDLESS)
def test_endless_answer_of_the_exchange_or_a_proxy_is_cut_off(first: bytes, again: bytes) -> None:
    with Server(answering(first, again)) as server:
        address = server.address
        assert "more than 16384 bytes" in describe(run(f"ws://{address}/ws").ended())
        ending = run("wss://127.0.0.1:9/ws", https_proxy=address).ended()
        assert f"the proxy {address}: a response with more than 16384 bytes" in describe(ending)


@pytest.mark.parametrize("by_proxy", [False, True])
def test_dripping_handshake_is_cut_off_by_one_deadline(by_proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_LIMIT", 0.3)
    with Server(dripping(b"", b"X", 0.05)) as server:
        running = (
            run("ws://127.0.0.1:9/ws", http_proxy=server.address) if by_proxy else run(f"ws://{server.address}/ws")
        )
        assert "no complete response in time" in describe(running.ended())


def test_rejection_is_read_without_its_body() -> None:
    head = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 99999999999\r\nRetry-After: 7\r\n\r\n"
    with Server(answering(head, b"x" * 4096)) as server:
        ending = run(f"ws://{server.address}/ws").ended()
    assert isinstance(ending, WebSocketBadStatusException)
    assert retry_after(ending) == 7


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\x1b[2J\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 " + b"9" * 5000 + b" \r\n\r\n",
        b"HTTP/1.1 101 \r\nno header\r\n\r\n",
        b"HTTP/1.1 101 \r\nUpgrade: \xff\r\n\r\n",
        b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_invalid_handshake_answer_ends_the_attempt(answer: bytes) -> None:
    with Server(answering(answer)) as server:
        ending = run(f"ws://{server.address}/ws").ended()
    assert isinstance(ending, WebSocketException)
    assert describe(ending).isprintable()
    assert len(describe(ending)) <= 203


@pytest.mark.parametrize("target", ["ws://127.0.0.1:{port}/x", "wss://localhost:{port}/x", "wss://localhost:{own}/x"])
def test_no_redirect_is_followed(authority: trustme.CA, target: str) -> None:
    context = context_of(authority)
    with ExitStack() as stack:
        other = stack.enter_context(Server(answering(b"HTTP/1.1 500 \r\n\r\n"), context if "wss" in target else None))
        port = [0]

        def redirect(sock: socket.socket) -> None:
            request_on(sock)
            location = target.format(port=other.port, own=port[0])
            sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}?token=hush\x1b\r\n\r\n".encode())

        server = stack.enter_context(Server(redirect, context))
        port[0] = server.port
        ending = run(f"wss://localhost:{server.port}/ws").ended()
        assert other.accepted == 0
        assert server.accepted == 1
    assert describe(ending).startswith("the exchange answered the handshake with HTTP 302, a redirect to ")
    assert "/x?***, which is not followed" in describe(ending)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_abort_ends_connecting_to_a_silent_peer(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 1000)
    monkeypatch.setattr(transport, "CONNECT_LIMIT", 1000)
    heard = threading.Event()

    def listen(sock: socket.socket) -> None:
        sock.recv(1)
        heard.set()
        sock.recv(100_000)
        sock.recv(1)

    with Server(listen) as server:
        running = run(f"{scheme}://{server.address}/ws")
        assert heard.wait(10)
        running.connection.close()
        running.connection.abort()
        running.ended()


def test_host_with_a_trailing_dot(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    asked = []

    def resolved(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve(host.rstrip("."), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    requests = []

    def note(sock: socket.socket) -> None:
        requests.append(request_on(sock))

    with Server(note, context_of(authority)) as server:
        run(f"wss://me:p.@LOCALHOST.:{server.port}/ws").ended()
        assert asked == ["localhost."], "the name is complete"
        assert f"Host: localhost:{server.port}\r\n".encode() in requests[0]


def test_stream_through_a_proxy_with_a_password(secured_exchange: Exchange) -> None:
    proxy = ConnectProxy("us\\er:p@ss:ü")
    got: list[bytes] = []
    with Server(proxy) as server:
        url = f"wss://localhost:{secured_exchange.port}/ws/polusdt@trade"
        through = proxy_for(url, {"HTTPS_PROXY": f"http://us%5Cer:p%40ss:%C3%BC@{server.address}/"})
        running = Run(Connection(url, got.extend, lambda: None, silence_limit=60, proxy=through))
        wait_for(lambda: got, "a frame")
        running.connection.close()
        assert running.ended() is None
        assert proxy.targets == [f"localhost:{secured_exchange.port}"]


def test_rejected_proxy_password_is_a_configuration_error() -> None:
    with Server(ConnectProxy("someone:else")) as server:
        ending = run("wss://localhost:9/ws", https_proxy=f"http://me:hush@{server.address}").ended()
        assert describe(ending) == f"the proxy {server.address} answered CONNECT with HTTP 407"
        assert f"{server.address} rejects the user and the password in https_proxy" in str(permanent_error(ending))
        assert "hush" not in str(permanent_error(ending))
