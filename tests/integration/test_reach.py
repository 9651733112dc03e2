"""How REST is reached: certificates, proxies, wrong URLs, and what it says of itself, against scripted peers."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest

from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.sandbox import Exchange
from tests.tools.scripted_server import ConnectProxy, Server, answering, request_on


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def symbol_status(url: str, symbol: str = "POLUSDT") -> str:
    with closing(Rest(url, threading.Event())) as rest:
        return rest.symbol_status(symbol)


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_rest_through_a_proxy_that_wants_a_password(
    secured_exchange: Exchange, environment: pytest.MonkeyPatch
) -> None:
    proxy = ConnectProxy("us\\er:p@ss:ü")
    with Server(proxy) as server:
        environment.setenv("https_proxy", f"us%5Cer:p%40ss:%C3%BC@{server.address}")
        assert symbol_status(f"https://localhost:{secured_exchange.port}") == "TRADING"
        assert proxy.targets == [f"localhost:{secured_exchange.port}"]


def test_rest_without_tls_through_a_proxy_that_wants_a_password(environment: pytest.MonkeyPatch) -> None:
    requests = []

    def script(sock: Any) -> None:
        requests.append(request_on(sock))
        sock.sendall(answer(b"200 OK", b'{"symbols":[{"symbol":"POLUSDT","status":"HALT"}]}'))

    with Server(script) as server:
        environment.setenv("http_proxy", f"http://me:p%40ss@{server.address}")
        assert symbol_status("http://exchange.example:81") == "HALT"
    assert requests[0].startswith(b"GET http://exchange.example:81/api/v3/exchangeInfo?")
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in requests[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_the_password_is_a_configuration_fault(
    scheme: str, environment: pytest.MonkeyPatch
) -> None:
    with Server(ConnectProxy("someone:else")) as server:
        environment.setenv(f"{scheme}_proxy", f"http://me:hush@{server.address}")
        with pytest.raises(ConfigurationError, match=f"{server.address} rejects the user and the") as caught:
            symbol_status(f"{scheme}://exchange.example")
        assert f"{scheme}_proxy" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_a_proxy_that_is_dead_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("https_proxy", "http://me:hush@127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"through the proxy 127.0.0.1:9 \(.*refused\)") as caught:
        symbol_status("https://exchange.example")
    assert "hush" not in str(caught.value)


def test_what_rest_says_of_an_error_is_shown_on_one_short_line() -> None:
    body = b'{"code":-1000,"msg":"a\\n2026-01-01 ERROR forged\\u001b[2J' + b"x" * 4_000_000 + b'"}'
    with Server(answering(answer(b"500 Oops", body))) as server, pytest.raises(UnavailableError) as caught:
        symbol_status(f"http://{server.address}")
    text = str(caught.value)
    assert text.startswith("the exchange answered HTTP 500 a\\n2026-01-01 ERROR forged\\x1b[2Jxxx")
    assert len(text) < 300
